"""Records that are validated before they are sent, whoever comes with them."""

import asyncio

import orjson
from prometheus_client import REGISTRY

from tests import factories
from uplift.delivery.validation import Validation
from uplift.fhir.validate import validate
from uplift.settings import Settings

_GOOD = orjson.dumps(factories.resource())
_BAD = orjson.dumps(factories.resource(status="nonsense"))
_LARGE = orjson.dumps(factories.resource(note=[{"text": "a" * 20_000}]))


async def test_each_of_those_who_come_together_gets_its_own_report() -> None:
    validation = Validation(Settings())
    bodies = [_GOOD, _BAD, b"not JSON", _LARGE] * 20
    found = await asyncio.gather(*(validation.validate(body, "R4") for body in bodies))
    assert found == [validate(body, "R4") for body in bodies]


async def test_what_is_found_is_counted_for_each() -> None:
    def counted() -> float:
        labels = {"code": "structure", "severity": "fatal"}
        return REGISTRY.get_sample_value("uplift_validation_findings_total", labels) or 0.0

    before = counted()
    validation = Validation(Settings())
    await asyncio.gather(*(validation.validate(b"not JSON", "R4") for _ in range(3)))
    assert counted() == before + 3
