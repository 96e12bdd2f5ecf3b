"""What a process counts, by Prometheus' names and units. Labels are bounded, and never an id.

`docs/metrics.md` lists all of it; a test keeps it so.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

# A second series for each count, of when it began: nobody asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call]

submissions = Counter(
    "uplift_submissions_total",
    "Resources that callers sent, singly or in batches: accepted, duplicates of what was there, or"
    " lines of a batch that are no upload (problem).",
    ["kind", "outcome"],
)

http_responses = Counter(
    "uplift_http_responses_total",
    "The API's answers, by HTTP status code.",
    ["status"],
)

attempts = Counter(
    "uplift_attempts_total",
    "Attempts at a delivery that ended and are recorded, by the state that they left the upload in"
    " and why. Retries are those that left it queued.",
    ["state", "reason"],
)

responses = Counter(
    "uplift_responses_total",
    "How 1upHealth answered the attempts that asked it: 2xx, 3xx, 4xx, 429, 5xx, or none where no"
    " answer came.",
    ["status"],
)

attempts_unrecorded = Counter(
    "uplift_attempts_unrecorded_total",
    "Attempts whose outcome is not in the ledger: their lease had ended (lease_lost), or it could"
    " not be written (failed). Each is looked up before it is sent again.",
    ["why"],
)

attempt_duration = Histogram(
    "uplift_attempt_duration_seconds",
    "From the start of an attempt to its outcome, by the state that it left the upload in.",
    ["state"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60),
)

delivery_duration = Histogram(
    "uplift_delivery_duration_seconds",
    "From the acceptance of an upload to its delivery, waits and retries included.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400, 259200),
)

sweep_work = Counter(
    "uplift_sweep_work_total",
    "What sweeps found and did: uploads refused because they end their workers, recovered from"
    " leases that ran out, released to a new grant, expired, and rung for; users whose erasing they"
    " ended.",
    ["kind"],
)

sweep_duration = Histogram(
    "uplift_sweep_duration_seconds",
    "How long a sweep takes.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

validation_findings = Counter(
    "uplift_validation_findings_total",
    "What validation found, by the FHIR issue type and severity; at most 50 of one record.",
    ["code", "severity"],
)

library_disagreements = Counter(
    "uplift_library_disagreements_total",
    "Records that the schemas accept and fhir.resources does not.",
    ["fhir_version"],
)

quota_calls = Counter(
    "uplift_quota_calls_total",
    "User-management calls: made, refused by 1upHealth's limit, or withheld because of it.",
    ["outcome"],
)

tokens_renewed = Counter(
    "uplift_tokens_renewed_total",
    "Tokens that replaced older ones, by what they were traded for: refresh or code.",
    ["by"],
)

grants_ended = Counter(
    "uplift_grants_ended_total",
    "Grants that 1upHealth no longer accepts: each needs the person. By who obtained them.",
    ["origin"],
)

uploads_parked = Counter(
    "uplift_uploads_parked_total",
    "Uploads that began to wait for a person's grant.",
)

rate_limiter_limit = Gauge(
    "uplift_rate_limiter_limit",
    "Attempts a second that all workers together may begin at 1upHealth, as this process last"
    " read it.",
)

rate_limiter_probing = Gauge(
    "uplift_rate_limiter_probing",
    "Whether only probes, or nothing, may go to 1upHealth, as this process last read it: 1 or 0.",
)

rate_limiter_slowed = Counter(
    "uplift_rate_limiter_slowed_total",
    "How often the rate limiter was throttled because 1upHealth was busy (429), or began to probe"
    " because of an outage.",
    ["cause"],
)


# A counter that begins with its first event hides that event from `increase`: what alerts look
# at is there from the start.
for _state, _reason in (
    ("delivered", "none"),
    ("rejected", "invalid"),
    ("refused", "upstream_refused"),
    ("expired", "gave_up"),
):
    attempts.labels(_state, _reason)
for _status in ("2xx", "3xx", "4xx", "429", "5xx", "none"):
    responses.labels(_status)
for _why in ("lease_lost", "failed"):
    attempts_unrecorded.labels(_why)
for _kind in ("refused", "recovered", "released", "expired", "dispatched", "erased"):
    sweep_work.labels(_kind)
# Not known in a process that has not asked yet.
rate_limiter_limit.set(math.nan)
rate_limiter_probing.set(math.nan)
for _cause in ("busy", "outage"):
    rate_limiter_slowed.labels(_cause)
for _outcome in ("made", "refused", "withheld"):
    quota_calls.labels(_outcome)
for _origin in ("user_management", "backend"):
    grants_ended.labels(_origin)
for _version in ("DSTU2", "STU3", "R4"):
    library_disagreements.labels(_version)


def count_attempt(
    upload_id: UUID,
    *,
    state: str,
    reason: str | None,
    status_code: int | None,
    asked: bool,
    seconds: float,
) -> None:
    """Count a recorded attempt: how it left the upload, and how 1upHealth answered, if `asked`."""
    attempts.labels(state, reason or "none").inc()
    attempt_duration.labels(state).observe(seconds)
    if status_code is not None or asked:
        responses.labels(_status_class(status_code)).inc()
    if state == "delivered" and upload_id.version == 7:
        # A UUIDv7 begins with the milliseconds since 1970 at which it was made (RFC 9562, 5.7).
        delivery_duration.observe(max(0.0, time.time() - (upload_id.int >> 80) / 1000))


def count_findings(findings: Iterable[tuple[str, str]]) -> None:
    """Count what validation found in one record, each by its code and its severity."""
    for code, severity in findings:
        validation_findings.labels(code, severity).inc()


def _status_class(status_code: int | None) -> str:
    if status_code is None:
        return "none"
    return "429" if status_code == 429 else f"{status_code // 100}xx"


class LedgerGauges(Collector):
    """What was last measured of the ledger and of Redis, shared by all processes.

    Only the process that measures exposes it, so that it is not there once a process; and only
    while it measures, so that what is old is absent and not wrong.
    """

    NAMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
        "uplift_uploads_unfinished": (
            "Uploads that are queued, sending or parked.",
            ("queue", "state", "reason"),
        ),
        "uplift_uploads_due": (
            "Queued uploads that are due now and not paused.",
            ("queue",),
        ),
        "uplift_due_oldest_seconds": (
            "For how long the upload that is due longest has been; 0 if none is due.",
            ("queue",),
        ),
        "uplift_users_parked": ("Users with uploads that wait for the person's consent.", ()),
        "uplift_pauses": (
            "Pauses in force: of everybody (all), or of single users (user).",
            ("scope",),
        ),
        "uplift_queue_messages": ("Messages in a queue that no worker has taken yet.", ("queue",)),
        "uplift_redis_up": ("Whether Redis answers: 1 or 0.", ()),
        "uplift_quota_calls_left": (
            "User-management calls that 1upHealth allows now: all, or of known users.",
            ("whom",),
        ),
        "uplift_sweep_ended_timestamp_seconds": (
            "When the last sweep of this process ended well, in seconds since 1970.",
            (),
        ),
        "uplift_ledger_measured_timestamp_seconds": (
            "When the ledger was measured last, in seconds since 1970.",
            (),
        ),
    }

    def __init__(self, keep_seconds: float = 120.0) -> None:
        self._keep_seconds = keep_seconds
        self._samples: Mapping[str, Mapping[tuple[str, ...], float]] = {}
        self._until = 0.0  # on time.monotonic

    def show(self, samples: Mapping[str, Mapping[tuple[str, ...], float]]) -> None:
        """Expose these instead: by name, the values by their labels. KeyError for a wrong name."""
        wrong = samples.keys() - self.NAMES.keys()
        if wrong:
            raise KeyError(*wrong)
        self._until = time.monotonic() + self._keep_seconds
        self._samples = samples

    def describe(self) -> Iterator[Metric]:
        """The families without values: what the registry asks for."""
        for name, (text, labels) in self.NAMES.items():
            yield GaugeMetricFamily(name, text, labels=labels)

    def collect(self) -> Iterator[Metric]:
        """The families with their values, while these are fresh."""
        if time.monotonic() >= self._until:
            return
        for name, values in self._samples.items():
            text, labels = self.NAMES[name]
            family = GaugeMetricFamily(name, text, labels=labels)
            for of, value in values.items():
                family.add_metric(of, value)
            yield family


ledger_gauges = LedgerGauges()
REGISTRY.register(ledger_gauges)
