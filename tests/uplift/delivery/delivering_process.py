"""A worker's relay in a process of its own: delivers the uploads of these ids, and ends."""

import asyncio
import sys
from uuid import UUID

from uplift.fhir.validate import validate
from uplift.settings import Settings
from uplift.wiring import open_relay


async def _deliver(ids: list[UUID]) -> None:
    # The first validation loads the schemas. On a busy machine that takes longer than an attempt.
    validate(b'{"resourceType":"Observation"}', "R4")
    async with open_relay(Settings()) as relay:
        await relay.deliverer.deliver(ids)


if __name__ == "__main__":
    asyncio.run(_deliver([UUID(each) for each in sys.argv[1:]]))
