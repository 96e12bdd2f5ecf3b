"""The memory of the API under more than it can hold."""

import asyncio

import httpx
import orjson

from tests import factories
from tests.api.api_process import api_process, peak_of
from tests.api.calls import bearer, make_keys
from tests.factories import resource
from uplift.ledger.database import Database
from uplift.settings import Settings
from uplift.wiring import open_relay

_MIB = 1024 * 1024


async def test_many_large_bodies_at_once_use_no_more_memory_than_the_setting_allows(
    database: Database, settings: Settings
) -> None:
    async with open_relay(settings) as relay:
        await factories.user_without_grant(relay)
    key = (await make_keys(database)).backend
    limit = 8 * _MIB
    large = [
        orjson.dumps(resource(id=f"large-{number}", note=[{"text": f"{number:04}" * (_MIB // 2)}]))
        for number in range(60)
    ]
    sent = sum(map(len, large))
    more = {"UPLIFT_MAX_INTAKE_BYTES": str(limit), "UPLIFT_ADMISSION_WAIT_SECONDS": "60"}
    async with (
        api_process(settings, **more) as (process, url),
        httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=100) as client,
    ):
        headers = {"Content-Type": "application/fhir+json"}
        path = "/v1/uploads?user=alice&fhirVersion=R4"
        await client.post(path, content=large[0], headers=headers)
        async with peak_of(process) as peak:
            responses = await asyncio.gather(
                *(client.post(path, content=body, headers=headers) for body in large[1:]),
                *(
                    client.post(
                        "/v1/batches?user=alice&fhirVersion=R4&source=b",
                        content=body,
                        headers={"Content-Type": "application/x-ndjson"},
                    )
                    for body in large[:8]
                ),
            )
        assert {response.status_code for response in responses} == {202}
        # Without the setting it grows by 330 MiB. Several threads parse bodies, and malloc keeps
        # a different amount for each of them in each run (71 to 103 MiB were measured).
        assert peak.growth < 160 * _MIB
        assert sent > 100 * _MIB
