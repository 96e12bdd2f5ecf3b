"""What must be true after a chaos run where Uplift puts records to ids of its own. Pure."""

import re
from collections import Counter, defaultdict

from chaos import checks
from chaos.checks import Check
from chaos.evidence import Evidence
from chaos.records import Version
from uplift.destinations.destination import Subject
from uplift.destinations.presets import PRESETS
from uplift.lifecycle import Reason, State

# So often at most a record says that it may be overwritten, for each one that had a reason to.
_MAX_SAID = 3

# n records, then an eighth of them.
_MAX_REFUSED = 2
_REFUSED_ALONE = "http_400"
_REFUSED_BUNDLE = re.compile(r"bundle_http_4(?!01|03|08|25|29)\d\d")

# The outcome of an attempt whose worker did not come back.
_LOST = "lease_expired"

Record = tuple[str, str]
"""A user and a record."""


def each_record_is_one_resource(evidence: Evidence) -> list[str]:
    """However often it was sent, it has one id."""
    version_of = _version_of(evidence)
    ids: dict[Record, set[str]] = defaultdict(set)
    for each in evidence.stored:
        version = version_of.get((each.user, each.sha256))
        if version is not None:
            ids[version.user, version.record].add(each.resource_id)
    return [
        f"{user} {record} is {len(found)} resources: {sorted(found)}"
        for (user, record), found in ids.items()
        if len(found) != 1
    ]


def each_person_is_one_patient(evidence: Evidence) -> list[str]:
    """Uplift makes a Patient for each person of whom it delivers something, where references to
    the person lead to one. It never changes it.
    """
    if PRESETS[evidence.options.like].subject is not Subject.PATIENT:
        return [f"there are {len(evidence.patients)} Patients"] if evidence.patients else []
    delivered = {row.user for row in evidence.rows if row.state == State.DELIVERED}
    findings = [
        f"a Patient has {contents} contents" for contents in evidence.patients if contents != 1
    ]
    # A person whose only deliveries never ended has one as well.
    if not len(delivered) <= len(evidence.patients) <= len({row.user for row in evidence.rows}):
        findings.append(f"{len(delivered)} persons are {len(evidence.patients)} Patients")
    return findings


def nothing_is_marked_as_a_copy(evidence: Evidence) -> list[str]:
    """There can be none, so no status warns of one."""
    return [f"{row.id} is marked as a possible duplicate" for row in evidence.rows if row.marked]


def the_last_delivered_version_is_there(evidence: Evidence) -> list[str]:
    """Where the destination finishes later than `settle`: or the record says that it may not be."""
    excused = _records_that_say_so(evidence) if evidence.options.beyond else set()
    return [
        f"{user} {record}: another version than the last delivered one is there"
        for user, record in sorted(stale_records(evidence) - excused)
    ]


def few_say_that_they_may_be_overwritten(evidence: Evidence) -> list[str]:
    """They had a reason: an older version was sent without a precondition, and nobody knows the
    outcome. Not more than three times as many say so.
    """
    said, had = _records_that_say_so(evidence), _records_in_doubt(evidence)
    if len(said) <= _MAX_SAID * len(had):
        return []
    return [f"{len(said)} records say that they may be overwritten, and {len(had)} had a reason"]


def what_is_poisonous_ends_alone(evidence: Evidence) -> list[str]:
    """No upload was in more than two Bundles that were refused, and none was refused by one.

    What was refused alone may be redriven, and starts from zero.
    """
    refused: Counter[str] = Counter()
    most: Counter[str] = Counter()
    last: dict[str, str | None] = {}
    for attempt in sorted(evidence.attempts, key=lambda attempt: attempt.opened_at):
        id_, outcome = attempt.upload_id, attempt.outcome
        last[id_] = outcome
        refused[id_] += bool(_REFUSED_BUNDLE.fullmatch(outcome or ""))
        if outcome == _REFUSED_ALONE:
            refused[id_] = 0
        most[id_] = max(most[id_], refused[id_])
    findings = [
        f"{upload_id} was in {times} Bundles that were refused"
        for upload_id, times in most.items()
        if times > _MAX_REFUSED
    ]
    return findings + [
        f"{row.id} is refused, and its last attempt came to {last.get(row.id)}"
        for row in evidence.rows
        if row.reason == Reason.UPSTREAM_REFUSED and last.get(row.id) != _REFUSED_ALONE
    ]


CHECKS: tuple[Check, ...] = (
    checks.every_202_is_in_exactly_one_state,
    checks.every_version_is_one_upload,
    checks.every_device_got_the_responses_it_expects,
    checks.nothing_is_stuck,
    checks.every_upload_reached_the_right_state,
    checks.everything_delivered_is_upstream,
    checks.everything_upstream_was_accepted,
    checks.every_request_belongs_to_an_attempt,
    checks.of_who_was_erased_nothing_is_there,
    checks.the_doctor_told_every_fault_and_is_well_at_last,
    each_record_is_one_resource,
    each_person_is_one_patient,
    nothing_is_marked_as_a_copy,
    the_last_delivered_version_is_there,
    few_say_that_they_may_be_overwritten,
    what_is_poisonous_ends_alone,
)


def stale_records(evidence: Evidence) -> set[Record]:
    """Those at which another version is there than the one that was delivered last."""
    there = _content_now(evidence)
    return {
        record
        for record, delivered in _last_delivered(evidence).items()
        if there.get(record) != delivered
    }


def _version_of(evidence: Evidence) -> dict[tuple[str, str], Version]:
    return {
        (each.version.user, each.version.sha256): each.version for each in evidence.ever_accepted
    }


def _content_now(evidence: Evidence) -> dict[Record, int]:
    """The number of the version that is there now."""
    version_of = _version_of(evidence)
    there: dict[Record, int] = {}
    for each in sorted(evidence.stored, key=lambda stored: stored.at):
        version = version_of.get((each.user, each.sha256))
        if version is not None:
            there[version.user, version.record] = version.number
    return there


def _last_delivered(evidence: Evidence) -> dict[Record, int]:
    """The number of the newest version that the ledger calls delivered."""
    delivered = {row.id for row in evidence.rows if row.state == State.DELIVERED}
    last: dict[Record, int] = {}
    for each in evidence.accepted:
        if each.upload_id in delivered:
            record = (each.version.user, each.version.record)
            last[record] = max(last.get(record, 0), each.version.number)
    return last


def _records_that_say_so(evidence: Evidence) -> set[Record]:
    saying = {row.id for row in evidence.rows if row.maybe_overwritten}
    return {
        (each.version.user, each.version.record)
        for each in evidence.accepted
        if each.upload_id in saying
    }


def _records_in_doubt(evidence: Evidence) -> set[Record]:
    """Those of which an older version was sent without a precondition, with an unknown outcome."""
    upload_of = {each.version.sha256: each for each in evidence.ever_accepted}
    lost = {each.upload_id for each in evidence.attempts if each.outcome in (None, _LOST)}
    newest: dict[Record, int] = defaultdict(int)
    for each in evidence.ever_accepted:
        record = (each.version.user, each.version.record)
        newest[record] = max(newest[record], each.version.number)
    found: set[Record] = set()
    for request in evidence.requests:
        upload = upload_of.get(request.sha256 or "")
        if upload is None or request.if_match:
            continue
        record = (upload.version.user, upload.version.record)
        is_unknown = not request.answered or upload.upload_id in lost
        if is_unknown and upload.version.number < newest[record]:
            found.add(record)
    return found
