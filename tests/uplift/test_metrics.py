"""How attempts are counted, and when measured numbers are exposed."""

from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from uuid_utils.compat import uuid7

from uplift.lifecycle import Reason, State
from uplift.metrics import LedgerGauges, attempts, count_attempt


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


_ATTEMPT: dict[str, Any] = {"state": "delivered", "reason": None, "asked": False, "seconds": 0.2}


@pytest.mark.parametrize(
    ("status_code", "asked", "counted"),
    [
        (201, False, "2xx"),
        (301, False, "3xx"),
        (400, False, "4xx"),
        (429, True, "429"),
        (503, True, "5xx"),
        (None, True, "none"),
    ],
)
def test_a_response_is_counted_by_its_class(
    status_code: int | None, asked: bool, counted: str
) -> None:
    before = value("uplift_responses_total", status=counted)
    count_attempt(uuid4(), **{**_ATTEMPT, "asked": asked}, status_code=status_code)
    assert value("uplift_responses_total", status=counted) == before + 1


def test_an_attempt_that_asked_nothing_counts_no_response() -> None:
    before = value("uplift_responses_total", status="none")
    count_attempt(
        uuid4(), state="rejected", reason="invalid", status_code=None, asked=False, seconds=0.1
    )
    assert value("uplift_responses_total", status="none") == before


def test_a_delivery_is_timed_from_the_acceptance_of_its_upload() -> None:
    name = "uplift_delivery_duration_seconds"
    count, total = value(f"{name}_count"), value(f"{name}_sum")
    count_attempt(uuid7(), **_ATTEMPT, status_code=201)
    assert value(f"{name}_count") == count + 1
    assert value(f"{name}_sum") - total < 5
    # The id has no time of acceptance.
    count_attempt(uuid4(), **_ATTEMPT, status_code=201)
    assert value(f"{name}_count") == count + 1


def test_the_counters_that_alerts_use_are_there_from_the_start() -> None:
    known = {(state, reason) for state in State for reason in (*Reason, "none")}
    (family,) = attempts.collect()
    shown = {(sample.labels["state"], sample.labels["reason"]) for sample in family.samples}
    assert shown >= {
        (State.DELIVERED, "none"),
        (State.REJECTED, Reason.INVALID),
        (State.REFUSED, Reason.UPSTREAM_REFUSED),
        (State.EXPIRED, Reason.GAVE_UP),
    }
    assert shown <= known


def test_a_measured_number_is_exposed_while_it_is_fresh() -> None:
    registry = CollectorRegistry()
    gauges = LedgerGauges(keep_seconds=60)
    registry.register(gauges)
    assert registry.get_sample_value("uplift_redis_up") is None
    gauges.show({"uplift_redis_up": {(): 1}, "uplift_uploads_due": {("bulk",): 7}})
    assert registry.get_sample_value("uplift_redis_up") == 1
    assert registry.get_sample_value("uplift_uploads_due", {"queue": "bulk"}) == 7
    gauges.show({"uplift_redis_up": {(): 0}})
    assert registry.get_sample_value("uplift_uploads_due", {"queue": "bulk"}) is None


def test_an_old_number_is_absent() -> None:
    registry = CollectorRegistry()
    gauges = LedgerGauges(keep_seconds=0)
    registry.register(gauges)
    gauges.show({"uplift_redis_up": {(): 1}})
    assert registry.get_sample_value("uplift_redis_up") is None


def test_a_number_without_a_description_is_an_error() -> None:
    with pytest.raises(KeyError, match="uplift_other"):
        LedgerGauges().show({"uplift_other": {(): 1}})
