"""A worker's relay in a process of its own: delivers the uploads of these ids, and ends."""

import asyncio
import sys
from uuid import UUID

from uplift.settings import Settings
from uplift.wiring import open_relay


async def _deliver(ids: list[UUID]) -> None:
    async with open_relay(Settings()) as relay:
        await relay.deliverer.deliver(ids)


if __name__ == "__main__":
    asyncio.run(_deliver([UUID(each) for each in sys.argv[1:]]))
