"""A worker's relay in a process of its own: delivers what is due, and ends."""

import asyncio

from uplift.fhir.validate import validate
from uplift.queues import UPLOADS
from uplift.settings import Settings
from uplift.wiring import open_relay


async def _deliver() -> None:
    # The first validation loads the schemas. On a busy machine that takes longer than an attempt.
    validate(b'{"resourceType":"Observation"}', "R4")
    async with open_relay(Settings()) as relay:
        await relay.deliverer.deliver(UPLOADS)


if __name__ == "__main__":
    asyncio.run(_deliver())
