"""What must be true after a chaos run. Pure: evidence in, findings out; none: the check holds.

A finding names the upload by its id and states, never by its content.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from chaos.evidence import Evidence, Request, Row, Stored
from chaos.records import SYSTEM, Version
from uplift.lifecycle import UNFINISHED, Reason, State

Check = Callable[[Evidence], list[str]]

# So many uploads may be marked for each copy.
_MAX_MARKS = 3

# The outcomes of attempts that sent nothing, or whose record was not stored.
_NOTHING_SENT = (
    "search_empty",
    "look_up_",
    "handed_back",
    "no_token",
    "awaiting_",
    "http_4",
    "unauthorized",
    "forbidden",
)

# Between the last time at which a worker may send and the time at which the sandbox notices.
_SLACK = 2.0  # seconds


def every_202_is_in_exactly_one_state(evidence: Evidence) -> list[str]:
    """Each is once in the ledger, the API shows the same state, and the states sum to them all."""
    rows = defaultdict(list)
    for row in evidence.rows:
        rows[row.id].append(row)
    accepted = {each.upload_id for each in evidence.accepted}
    findings = []
    for upload_id in sorted(accepted):
        states = [row.state for row in rows[upload_id]]
        if len(states) != 1 or states[0] not in set(State):
            findings.append(f"{upload_id} got 202 and is in these states: {states}")
        elif evidence.shown.get(upload_id) != states[0]:
            shown = evidence.shown.get(upload_id)
            findings.append(f"{upload_id} is {states[0]} in the ledger and {shown} at the API")
    by_state = Counter(row.state for row in evidence.rows if row.id in accepted)
    if sum(by_state.values()) != len(accepted):
        findings.append(f"{dict(by_state)} do not sum to {len(accepted)} uploads that got 202")
    return findings


def every_version_is_one_upload(evidence: Evidence) -> list[str]:
    """However often it was sent, and however many sent it at once; and there is no other upload."""
    ids = defaultdict(set)
    for each in evidence.accepted:
        ids[each.version].add(each.upload_id)
    findings = [
        f"{version.user} {version.record} version {version.number} is {len(found)} uploads:"
        f" {sorted(found)}"
        for version, found in ids.items()
        if len(found) != 1
    ]
    accepted = {each.upload_id for each in evidence.accepted}
    findings += [
        f"{row.id} of {row.user} ({row.state}) is in the ledger, and no device got a 202 for it"
        for row in evidence.rows
        if row.id not in accepted
    ]
    return findings


def every_device_got_the_responses_it_expects(evidence: Evidence) -> list[str]:
    """No device got a response that it cannot expect, and each upload got its 202."""
    return list(evidence.unexpected)


def nothing_is_stuck(evidence: Evidence) -> list[str]:
    """Once all has settled, no upload is unfinished."""
    unfinished = set(UNFINISHED)
    return [
        f"{row.id} of {row.user} is still {row.state} ({row.reason}) after {row.attempts} attempts"
        for row in evidence.rows
        if row.state in unfinished
    ]


def every_upload_reached_the_right_state(evidence: Evidence) -> list[str]:
    """Valid records are delivered, invalid ones rejected and poisonous ones refused, unless a newer
    one superseded them."""
    rows = {row.id: row for row in evidence.rows}
    newest: dict[tuple[str, str], int] = {}
    for each in evidence.ever_accepted:
        record = (each.version.user, each.version.record)
        newest[record] = max(newest.get(record, 0), each.version.number)
    findings = []
    for upload_id, version in _accepted_versions(evidence).items():
        row = rows.get(upload_id)
        if row is None or row.state in set(UNFINISHED):
            continue  # other checks find these
        allowed = {State.DELIVERED if version.valid else State.REJECTED}
        if version.poisonous:
            allowed = {State.REFUSED}
        if version.number < newest[version.user, version.record]:
            allowed.add(State.SUPERSEDED)
        # The ledger went back in time, and the destination has a newer version than it knew.
        is_newer_there = row.reason == Reason.NEWER_UPSTREAM and State.SUPERSEDED in allowed
        if row.state not in allowed and not is_newer_there:
            findings.append(
                f"{upload_id} of {row.user} is {row.state} ({row.reason}), not"
                f" {' or '.join(sorted(allowed))}"
            )
    return findings


def everything_delivered_is_upstream(evidence: Evidence) -> list[str]:
    """With the same bytes that the device sent."""
    upstream = {(each.user, each.sha256) for each in evidence.stored}
    versions = _accepted_versions(evidence)
    return [
        f"{row.id} of {row.user} is delivered, and its bytes are not upstream"
        for row in evidence.rows
        if row.state == State.DELIVERED
        and row.id in versions
        and (row.user, versions[row.id].sha256) not in upstream
    ]


def nothing_is_upstream_twice(evidence: Evidence) -> list[str]:
    """No findable record is; any other copy is marked as a possible duplicate.

    With delays longer than settle and index_lag every record may be there twice, if it is marked.
    """
    by_content = _rows_by_content(evidence)
    findings = []
    for each in evidence.stored:
        if each.copy is None:
            continue
        found = by_content.get((each.user, each.sha256), [])
        versions = {version for _, version in found}
        marked = any(row.marked for row, _ in found)
        named = ", ".join(row.id for row, _ in found) or "an unknown upload"
        if not evidence.options.beyond and any(version.findable for version in versions):
            findings.append(f"{named} is upstream twice (a second {each.copy})")
        elif not marked:
            findings.append(f"{named} is upstream twice (a second {each.copy}) and not marked")
    return findings


def everything_upstream_was_accepted(evidence: Evidence) -> list[str]:
    """Everything upstream was sent by a device, with the same bytes."""
    sent = {(each.version.user, each.version.sha256) for each in evidence.ever_accepted}
    return [
        f"{each.user} {each.resource_id} is upstream with bytes for which no device got a 202"
        for each in evidence.stored
        if (each.user, each.sha256) not in sent
    ]


def no_older_version_came_after_a_newer_one(evidence: Evidence) -> list[str]:
    """The newest version is upstream last. With delays longer than settle a late commit may be."""
    if evidence.options.beyond:
        return []
    version_of = {
        (each.version.user, each.version.sha256): each.version for each in evidence.ever_accepted
    }
    last: dict[tuple[str, str], tuple[Stored, Version]] = {}
    newest: dict[tuple[str, str], int] = {}
    for each in sorted(evidence.stored, key=lambda stored: stored.at):
        version = version_of.get((each.user, each.sha256))
        if version is not None:
            record = (version.user, version.record)
            last[record] = (each, version)
            newest[record] = max(newest.get(record, 0), version.number)
    return [
        f"{user} {record}: version {version.number} came after version {newest[user, record]}"
        for (user, record), (_, version) in last.items()
        if version.number < newest[user, record]
    ]


def every_request_belongs_to_an_attempt(evidence: Evidence) -> list[str]:
    """An attempt was opened before it; a request with a body came before the attempt's deadline."""
    of_content: dict[tuple[str, str], list[float]] = defaultdict(list)
    of_record: dict[str, list[float]] = defaultdict(list)
    of_any: list[float] = []
    # The ledger lost them before a device knew that they were accepted.
    of_unknown: list[float] = []
    versions = _versions(evidence)
    attempts = [*evidence.attempts, *evidence.lost_attempts]
    for attempt in sorted(attempts, key=lambda attempt: attempt.opened_at):
        version = versions.get(attempt.upload_id)
        if version is not None:
            of_content[version.user, version.sha256].append(attempt.opened_at)
            of_record[version.record].append(attempt.opened_at)
            of_any.append(attempt.opened_at)
        else:
            of_unknown.append(attempt.opened_at)
    users = {each.version.sha256: each.version.user for each in evidence.ever_accepted}
    records = _records_by_upstream_id(evidence)
    findings = []
    for request in evidence.requests:
        # Cut off before its body arrived, its upload is unknown. The doctor asks for metadata too.
        if not request.whole or request.path.endswith("/metadata"):
            continue
        if request.sha256 is not None:
            user = users.get(request.sha256, "")
            opened, allowed_seconds = (
                of_content[user, request.sha256],
                evidence.options.attempt + _SLACK,
            )
        else:
            record = _record_looked_up(request, records)
            opened = of_record[record] if record is not None else of_any
            allowed_seconds = float("inf")
        since = min(_since(request, opened), _since(request, of_unknown))
        if since > allowed_seconds or since == float("inf"):
            findings.append(
                f"request {request.number} ({request.method} {request.path}) came"
                f" {since:.1f} s after the last attempt that was opened before it"
            )
    return findings


def _since(request: Request, opened: list[float]) -> float:
    """How long before the request the last of these attempts was opened."""
    before = bisect_right(opened, request.at)
    return request.at - opened[before - 1] if before else float("inf")


def a_ledger_that_went_back_marks_few(evidence: Evidence) -> list[str]:
    """Not more than three times as many as there are copies, and those that no look-up can tell."""
    marked, copies = marked_by_restores(evidence), copies_of(evidence)
    if len(marked) <= _MAX_MARKS * copies:
        return []
    return [f"{upload_id} is marked, and there are {copies} copies" for upload_id in marked]


def marked_by_restores(evidence: Evidence) -> list[str]:
    """The uploads that are marked only because the ledger went back, although a look-up can tell.

    Of the others an attempt had an unknown outcome, by the ledger that is there.
    """
    in_doubt = {
        upload_id
        for upload_id, outcomes in _outcomes(evidence).items()
        if any(not (outcome or "").startswith(_NOTHING_SENT) for outcome in outcomes[:-1])
    }
    return [
        row.id
        for row in evidence.rows
        if row.marked
        and row.restored
        and row.reason != Reason.CANNOT_LOOK_UP
        and row.id not in in_doubt
    ]


def copies_of(evidence: Evidence) -> int:
    """How much is at the destination a second time."""
    return sum(each.copy is not None for each in evidence.stored)


def of_who_was_erased_nothing_is_there(evidence: Evidence) -> list[str]:
    """A person was erased with `upstream=delete` while everything else went on."""
    return list(evidence.leaver)


def the_doctor_told_every_fault_and_is_well_at_last(evidence: Evidence) -> list[str]:
    """It failed because of each lasting fault while that lasted, and of none when all is over."""
    return list(evidence.not_told)


CHECKS: tuple[Check, ...] = (
    every_202_is_in_exactly_one_state,
    every_version_is_one_upload,
    every_device_got_the_responses_it_expects,
    nothing_is_stuck,
    every_upload_reached_the_right_state,
    everything_delivered_is_upstream,
    nothing_is_upstream_twice,
    everything_upstream_was_accepted,
    no_older_version_came_after_a_newer_one,
    every_request_belongs_to_an_attempt,
    a_ledger_that_went_back_marks_few,
    of_who_was_erased_nothing_is_there,
    the_doctor_told_every_fault_and_is_well_at_last,
)


def _versions(evidence: Evidence) -> dict[str, Version]:
    """The version that each upload carries, also those that the ledger lost."""
    return {each.upload_id: each.version for each in evidence.ever_accepted}


def _outcomes(evidence: Evidence) -> dict[str, list[str | None]]:
    """Those of each upload's attempts, in their order."""
    found: dict[str, list[str | None]] = defaultdict(list)
    for attempt in sorted(evidence.attempts, key=lambda attempt: attempt.opened_at):
        found[attempt.upload_id].append(attempt.outcome)
    return found


def _accepted_versions(evidence: Evidence) -> dict[str, Version]:
    return {each.upload_id: each.version for each in evidence.accepted}


def _rows_by_content(evidence: Evidence) -> dict[tuple[str, str], list[tuple[Row, Version]]]:
    rows = {row.id: row for row in evidence.rows}
    found: dict[tuple[str, str], list[tuple[Row, Version]]] = defaultdict(list)
    for upload_id, version in _versions(evidence).items():
        if upload_id in rows:
            found[version.user, version.sha256].append((rows[upload_id], version))
    return found


def _records_by_upstream_id(evidence: Evidence) -> dict[str, str]:
    """The record that 1upHealth stores under an id: the record's own id where ids are kept."""
    record_of = {
        (each.version.user, each.version.sha256): each.version.record
        for each in evidence.ever_accepted
    }
    records = {each.version.record: each.version.record for each in evidence.ever_accepted}
    return records | {
        each.resource_id: record_of[each.user, each.sha256]
        for each in evidence.stored
        if (each.user, each.sha256) in record_of
    }


def _record_looked_up(request: Request, records: dict[str, str]) -> str | None:
    """The record whose id or identifier a read or a search asks for.

    The request does not always name the user: its token may have expired.
    """
    identifier = f"identifier={SYSTEM}|"
    for parameter in unquote(request.query).split("&"):
        if parameter.startswith(identifier):
            return parameter.removeprefix(identifier)
    return records.get(request.path.rpartition("/")[2])


def run(evidence: Evidence, checks: Iterable[Check] = CHECKS) -> dict[str, list[str]]:
    """Each check's findings, by its name in words."""
    return {check.__name__.replace("_", " "): check(evidence) for check in checks}
