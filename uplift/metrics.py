"""What a process counts, named by Prometheus' rules. A label has few values, and is never an id.

`docs/metrics.md` lists all metrics; a test keeps it equal.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Literal
from uuid import UUID

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from uplift import uuid_time

# Without this, each counter has a second series with the time of its start.
disable_created_metrics()  # type: ignore[no-untyped-call]

submissions = Counter(
    "uplift_submissions_total",
    "Resources that callers sent, one by one (single) or in batches (batch). The outcome is"
    " accepted, duplicate, or problem: a line of a batch that became no upload.",
    ["kind", "outcome"],
)

http_responses = Counter(
    "uplift_http_responses_total",
    "Responses of the API, by HTTP status code.",
    ["status"],
)

http_duration = Histogram(
    "uplift_http_duration_seconds",
    "Time from the head of a request to the end of the API's answer, by the template of its"
    " address, method and class of status (2xx). The time of a body that arrives and of a long poll"
    " is in it; none is an address that does not exist.",
    ["route", "method", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)

http_refusals = Counter(
    "uplift_http_refusals_total",
    "Requests that the API refused: no valid credential (401), not allowed (403), too slow (408),"
    " too large (413), a wrong content type (415), too many (429). By the kind of address; none is"
    " an address that does not exist.",
    ["status", "kind"],
)

admission_refused = Counter(
    "uplift_admission_refused_total",
    "Requests that got 503 because the API had no capacity for them in time: for a request, a"
    " large_request, a body, a batch, a long_poll or a read_back.",
    ["what"],
)

admission_interrupted = Counter(
    "uplift_admission_interrupted_total",
    "Requests that ended early, so that another credential has its share: a body, a batch, a"
    " long_poll or a read_back.",
    ["what"],
)

connection_refusals = Counter(
    "uplift_connection_refusals_total",
    "Requests that the API refused, and connections that it closed, before the application saw"
    " them, by what was wrong.",
    ["why"],
)

redis_foreign = Counter(
    "uplift_redis_foreign_total",
    "What was found in Redis that no process of Uplift writes, and was dropped: a message, an"
    " unacknowledged message, a command to a worker, a key, or a binding.",
    ["kind"],
)

attempts = Counter(
    "uplift_attempts_total",
    "Attempts at a delivery whose outcome is recorded, by the state and the reason that the upload"
    " has after it. With state queued, the upload is retried.",
    ["state", "reason"],
)

responses = Counter(
    "uplift_responses_total",
    "Responses of destinations to attempts: 2xx, 3xx, 4xx, 429, 5xx, or none if no response came.",
    ["status"],
)

wrong_resources = Counter(
    "uplift_wrong_resources_total",
    "Successes of destinations that are not about the resource that was sent: none, or another type"
    " (not_the_resource); another id than the known one (another_id); an id that is another"
    " record's (another_record). Such an upload is looked up before it counts as delivered.",
    ["why"],
)

attempts_unrecorded = Counter(
    "uplift_attempts_unrecorded_total",
    "Attempts whose outcome is not in the ledger: the lease had ended (lease_lost), or writing"
    " failed (failed). Each upload is looked up before it is sent again.",
    ["why"],
)

attempt_duration = Histogram(
    "uplift_attempt_duration_seconds",
    "From the start of an attempt to its outcome, by the state that the upload has after it.",
    ["state"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60),
)

bundle_entries = Histogram(
    "uplift_bundle_entries",
    "How many records went in each Bundle. A record that goes alone is none.",
    buckets=(2, 3, 5, 10, 20, 50, 100),
)

bundles = Counter(
    "uplift_bundles_total",
    "Bundles that were sent, by what came back: an answer for each entry (each), a refusal of the"
    " whole, after which all of it goes again in smaller ones (refused), or anything else about all"
    " of it, such as a 5xx or no answer (whole).",
    ["answer"],
)

waiting_duration = Histogram(
    "uplift_waiting_duration_seconds",
    "From the time an upload is due to its attempt, by queue.",
    ["queue"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 14400),
)

slots_free = Gauge(
    "uplift_slots_free",
    "How many more uploads this worker could send at once.",
)

delivery_duration = Histogram(
    "uplift_delivery_duration_seconds",
    "From the acceptance of an upload to its delivery, with all waits and retries.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400, 259200),
)

erasures_left_upstream = Counter(
    "uplift_erasures_left_upstream",
    "Users who were erased with upstream=delete, although something of them may be left at a"
    " destination: it was not deleted in UPLIFT_ERASE_UPSTREAM_DAYS, or nobody knows where it is.",
)
sweep_work = Counter(
    "uplift_sweep_work_total",
    "What sweeps did. Uploads: refused because they crash workers, queued because their lease"
    " expired (lease_expired), released because of a new grant, moved to their users' new"
    " destination, retried because a collision is none any more, expired, dispatched. Users:"
    " erased.",
    ["kind"],
)

sweep_duration = Histogram(
    "uplift_sweep_duration_seconds",
    "How long a sweep takes.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

clocks_apart = Gauge(
    "uplift_clocks_apart_seconds",
    "By how much the clocks of PostgreSQL, Redis and this machine differ at most. Only beat"
    " compares them.",
)

validation_findings = Counter(
    "uplift_validation_findings_total",
    "What validation found, by FHIR issue type and severity; up to 50 per record.",
    ["code", "severity"],
)

credentials_not_believed = Counter(
    "uplift_credentials_not_believed_total",
    "Requests with a credential whose row in the ledger has a wrong MAC: somebody wrote it.",
)

audit_seal_number = Gauge(
    "uplift_audit_seal_number",
    "The number of the last seal over the audit trail that this process made. Only beat seals.",
)

audit_sealed_at = Gauge(
    "uplift_audit_sealed_timestamp_seconds",
    "When this process last sealed the audit trail, or found all of it sealed, in seconds since"
    " 1970. Only beat seals.",
)

library_disagreements = Counter(
    "uplift_library_disagreements_total",
    "Records that the schemas accept and fhir.resources does not accept.",
    ["fhir_version"],
)

quota_calls = Counter(
    "uplift_quota_calls_total",
    "User-management calls: made, refused by 1upHealth's limit, or withheld by the quota.",
    ["outcome"],
)

tokens_renewed = Counter(
    "uplift_tokens_renewed_total",
    "Tokens that replaced older ones, got for a refresh token (refresh) or an auth code (code).",
    ["by"],
)

grants_ended = Counter(
    "uplift_grants_ended_total",
    "Grants that 1upHealth no longer accepts; each person must consent again. By origin.",
    ["origin"],
)

uploads_parked = Counter(
    "uplift_uploads_parked_total",
    "Uploads that were parked: they wait until the person consents again.",
)

destination_address_changed = Gauge(
    "uplift_destination_address_changed",
    "Whether this process has another address for the destination than the ledger knows: 1 or 0."
    " It sends nothing there until a person decides.",
    ["destination"],
)

rate_limiter_limit = Gauge(
    "uplift_rate_limiter_limit",
    "Attempts a second that all workers together may begin, as this process last read it.",
    ["destination"],
)

rate_limiter_probing = Gauge(
    "uplift_rate_limiter_probing",
    "Whether only probes, or nothing, may go there, as this process last read it: 1 or 0.",
    ["destination"],
)

rate_limiter_types_probing = Gauge(
    "uplift_rate_limiter_types_probing",
    "FHIR types, each in one FHIR version, that a destination seems to lack: only probes of them"
    " go out, as this process last read it.",
    ["destination"],
)

rate_limiter_slowed = Counter(
    "uplift_rate_limiter_slowed_total",
    "How often the rate limiter began to throttle because of a 429 (busy), or to probe because of"
    " an outage (outage).",
    ["destination", "cause"],
)


# A counter that begins with its first event hides that event from PromQL's `increase`. So the
# counters that alerts use are there from the start.
for _state, _reason in (
    ("delivered", "none"),
    ("delivered", "stored_differently"),
    ("delivered", "cannot_look_up"),
    ("rejected", "invalid"),
    ("rejected", "too_complex"),
    ("refused", "upstream_refused"),
    ("expired", "gave_up"),
):
    attempts.labels(_state, _reason)
for _status in ("401", "403", "408", "413", "415", "429"):
    for _kind in ("uploads", "batches", "users", "pauses", "reading back"):
        http_refusals.labels(_status, _kind)
for _status in ("2xx", "3xx", "4xx", "429", "5xx", "none"):
    responses.labels(_status)
for _answer in ("each", "refused", "whole"):
    bundles.labels(_answer)
for _why in ("not_the_resource", "another_id", "another_record"):
    wrong_resources.labels(_why)
for _kind in ("message", "unacknowledged", "command", "key", "binding"):
    redis_foreign.labels(_kind)
for _why in ("lease_lost", "failed"):
    attempts_unrecorded.labels(_why)
for _kind in (
    "refused",
    "lease_expired",
    "released",
    "moved",
    "retried",
    "expired",
    "dispatched",
    "erased",
):
    sweep_work.labels(_kind)
# Unknown until this process has read it.
clocks_apart.set(math.nan)
audit_seal_number.set(math.nan)
audit_sealed_at.set(math.nan)
for _outcome in ("made", "refused", "withheld"):
    quota_calls.labels(_outcome)
for _origin in ("user_management", "backend"):
    grants_ended.labels(_origin)
for _queue in ("uploads", "bulk"):
    waiting_duration.labels(_queue)
for _version in ("DSTU2", "STU3", "R4"):
    library_disagreements.labels(_version)


@cache
def of_responses(status: int) -> Counter:
    """The series of `http_responses`: to find it by its labels takes longer than to count."""
    return http_responses.labels(str(status))


@cache
def of_requests(route: str, method: str, status_class: int) -> Histogram:
    """The series of `http_duration`, for a class of status such as 2."""
    return http_duration.labels(route, method, f"{status_class}xx")


@cache
def of_submissions(kind: str, outcome: str) -> Counter:
    """The series of `submissions`."""
    return submissions.labels(kind, outcome)


def count_attempt(
    upload_id: UUID,
    *,
    state: str,
    reason: str | None,
    status_code: int | None,
    asked: bool,
    seconds: float,
) -> None:
    """Count a recorded attempt, and the response of the destination if one was `asked` for."""
    attempted, duration = _of_attempts(state, reason or "none")
    attempted.inc()
    duration.observe(seconds)
    if status_code is not None or asked:
        _of_responses(status_code).inc()
    if state == "delivered" and upload_id.version == uuid_time.VERSION:
        delivery_duration.observe(max(0.0, time.time() - uuid_time.seconds_of(upload_id)))


@cache
def _of_attempts(state: str, reason: str) -> tuple[Counter, Histogram]:
    """To find them by their labels takes longer than to count."""
    return attempts.labels(state, reason), attempt_duration.labels(state)


@cache
def _of_responses(status_code: int | None) -> Counter:
    return responses.labels(_status_class(status_code))


def count_bundle(entries: int, answer: Literal["each", "refused", "whole"]) -> None:
    """Count a Bundle of so many entries that was sent."""
    bundle_entries.observe(entries)
    bundles.labels(answer).inc()


def count_findings(findings: Iterable[tuple[str, str]]) -> None:
    """Count what validation found in one record: pairs of a code and a severity."""
    for code, severity in findings:
        validation_findings.labels(code, severity).inc()


def _status_class(status_code: int | None) -> str:
    if status_code is None:
        return "none"
    return "429" if status_code == 429 else f"{status_code // 100}xx"


class LedgerGauges(Collector):
    """The last measurement of the ledger and of Redis, which all processes share.

    Only a process that measures exposes it. After `keep_seconds` it is absent, because an old value
    would be wrong.
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
            "How long the oldest due upload has been due, in seconds; 0 if none is due.",
            ("queue",),
        ),
        "uplift_users_parked": (
            "Users with parked uploads: they wait until the person consents again.",
            (),
        ),
        "uplift_pauses": (
            "Pauses in force: of all users (all), or of single users (user).",
            ("scope",),
        ),
        "uplift_queue_messages": ("Messages of a queue that no worker has taken yet.", ("queue",)),
        "uplift_redis_up": ("1 if Redis takes messages, otherwise 0.", ()),
        "uplift_quota_calls_left": (
            "User-management calls that are left now: all, or only those for known users (known).",
            ("whom",),
        ),
        "uplift_master_key_due_timestamp_seconds": (
            "When the master key in use is to be replaced, in seconds since 1970.",
            (),
        ),
        "uplift_master_keys_to_destroy": (
            "Master keys that nothing in the ledger and no kept backup needs, and not retired.",
            (),
        ),
        "uplift_sweep_ended_timestamp_seconds": (
            "When the last successful sweep of this process ended, in seconds since 1970.",
            (),
        ),
        "uplift_ledger_measured_timestamp_seconds": (
            "When the ledger was last measured, in seconds since 1970.",
            (),
        ),
    }

    def __init__(self, keep_seconds: float = 120.0) -> None:
        self._keep_seconds = keep_seconds
        self._samples: Mapping[str, Mapping[tuple[str, ...], float]] = {}
        self._until = 0.0  # on time.monotonic

    def show(self, samples: Mapping[str, Mapping[tuple[str, ...], float]]) -> None:
        """Expose these values, by name and labels, in place of the former. Raises KeyError.

        A name that is not in NAMES is wrong.
        """
        wrong = samples.keys() - self.NAMES.keys()
        if wrong:
            raise KeyError(*wrong)
        self._until = time.monotonic() + self._keep_seconds
        self._samples = samples

    def describe(self) -> Iterator[Metric]:
        """The metrics without values, for the registry."""
        for name, (text, labels) in self.NAMES.items():
            yield GaugeMetricFamily(name, text, labels=labels)

    def collect(self) -> Iterator[Metric]:
        """The metrics with their values, while these are fresh."""
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
