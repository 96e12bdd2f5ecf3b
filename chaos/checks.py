"""What must be true after a storm. Pure: evidence in, findings out; none means that it holds.

Each check says what it found in words that lead to the upload: ids and states, never content.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from chaos.evidence import Evidence, Request, Row, Stored
from chaos.records import SYSTEM, Version
from uplift.lifecycle import UNFINISHED, State

Check = Callable[[Evidence], list[str]]

# Between a worker's last moment to send and the sandbox's first moment to notice.
_SLACK = 2.0  # seconds


def every_202_is_in_exactly_one_state(evidence: Evidence) -> list[str]:
    """None is missing or twice in the ledger, the API says the same, and the states sum to them."""
    rows = defaultdict(list)
    for row in evidence.rows:
        rows[row.id].append(row)
    told = {each.upload_id for each in evidence.told}
    findings = []
    for upload_id in sorted(told):
        states = [row.state for row in rows[upload_id]]
        if len(states) != 1 or states[0] not in set(State):
            findings.append(f"{upload_id} was told 202 and is in these states: {states}")
        elif evidence.shown.get(upload_id) != states[0]:
            shown = evidence.shown.get(upload_id)
            findings.append(f"{upload_id} is {states[0]} in the ledger and {shown} by the API")
    by_state = Counter(row.state for row in evidence.rows if row.id in told)
    if sum(by_state.values()) != len(told):
        findings.append(f"{dict(by_state)} do not sum to {len(told)} uploads that were told 202")
    return findings


def every_version_is_one_upload(evidence: Evidence) -> list[str]:
    """However often it was sent, and by how many at once; and nothing else was put in."""
    ids = defaultdict(set)
    for each in evidence.told:
        ids[each.version].add(each.upload_id)
    findings = [
        f"{version.user} {version.record} version {version.number} is {len(found)} uploads:"
        f" {sorted(found)}"
        for version, found in ids.items()
        if len(found) != 1
    ]
    told = {each.upload_id for each in evidence.told}
    findings += [
        f"{row.id} of {row.user} ({row.state}) is in the ledger, and no device was told of it"
        for row in evidence.rows
        if row.id not in told
    ]
    return findings


def every_device_was_told(evidence: Evidence) -> list[str]:
    """No device met an answer that it had no reason to expect, or was left without a 202."""
    return list(evidence.wrong)


def nothing_is_stuck(evidence: Evidence) -> list[str]:
    """Once all has settled, nothing is under way or waits any more."""
    unfinished = set(UNFINISHED)
    return [
        f"{row.id} of {row.user} is still {row.state} ({row.reason}) after {row.attempts} attempts"
        for row in evidence.rows
        if row.state in unfinished
    ]


def everything_ended_as_it_must(evidence: Evidence) -> list[str]:
    """Valid records are delivered and broken ones rejected, unless a newer version took over."""
    rows = {row.id: row for row in evidence.rows}
    newest: dict[tuple[str, str], int] = {}
    for each in evidence.told:
        record = (each.version.user, each.version.record)
        newest[record] = max(newest.get(record, 0), each.version.number)
    findings = []
    for upload_id, version in _versions(evidence).items():
        row = rows.get(upload_id)
        if row is None or row.state in set(UNFINISHED):
            continue  # another check's
        allowed = {State.DELIVERED if version.valid else State.REJECTED}
        if version.number < newest[version.user, version.record]:
            allowed.add(State.SUPERSEDED)
        if row.state not in allowed:
            findings.append(
                f"{upload_id} of {row.user} is {row.state} ({row.reason}), not"
                f" {' or '.join(sorted(allowed))}"
            )
    return findings


def everything_delivered_is_upstream(evidence: Evidence) -> list[str]:
    """With the very bytes that the device sent."""
    upstream = {(each.user, each.sha256) for each in evidence.stored}
    versions = _versions(evidence)
    return [
        f"{row.id} of {row.user} is delivered, and its bytes are not upstream"
        for row in evidence.rows
        if row.state == State.DELIVERED
        and row.id in versions
        and (row.user, versions[row.id].sha256) not in upstream
    ]


def nothing_upstream_is_there_twice(evidence: Evidence) -> list[str]:
    """Within the clocks no findable record is; what else is there twice carries the mark.

    Beyond the clocks everything may be there twice, if it carries the mark.
    """
    by_content = _rows_by_content(evidence)
    findings = []
    for each in evidence.stored:
        if each.copy is None:
            continue
        found = by_content.get((each.user, each.sha256), [])
        versions = {version for _, version in found}
        marked = any(row.marked for row, _ in found)
        named = ", ".join(row.id for row, _ in found) or "nobody's upload"
        if not evidence.terms.beyond and any(version.findable for version in versions):
            findings.append(f"{named} is upstream twice (a second {each.copy})")
        elif not marked:
            findings.append(f"{named} is upstream twice (a second {each.copy}) without the mark")
    return findings


def everything_upstream_was_told(evidence: Evidence) -> list[str]:
    """Upstream is nothing that no device sent, nor with other bytes."""
    sent = {(each.version.user, each.version.sha256) for each in evidence.told}
    return [
        f"{each.user} {each.resource_id} is upstream with bytes that no device was told 202 for"
        for each in evidence.stored
        if (each.user, each.sha256) not in sent
    ]


def the_newest_version_is_the_last_upstream(evidence: Evidence) -> list[str]:
    """No older version came after a newer one. Beyond the clocks a late commit may."""
    if evidence.terms.beyond:
        return []
    version_of = {(each.version.user, each.version.sha256): each.version for each in evidence.told}
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
    """Opened before it came; and what brought a body came before that attempt's deadline."""
    of_content: dict[tuple[str, str], list[float]] = defaultdict(list)
    of_record: dict[str, list[float]] = defaultdict(list)
    of_any: list[float] = []
    versions = _versions(evidence)
    for attempt in sorted(evidence.attempts, key=lambda attempt: attempt.opened_at):
        version = versions.get(attempt.upload_id)
        if version is not None:
            of_content[version.user, version.sha256].append(attempt.opened_at)
            of_record[version.record].append(attempt.opened_at)
            of_any.append(attempt.opened_at)
    users = {each.version.sha256: each.version.user for each in evidence.told}
    records = _records_by_upstream_id(evidence)
    findings = []
    for request in evidence.requests:
        if not request.whole:
            continue  # cut off before its body came: nobody can say whose it was
        if request.sha256 is not None:
            user = users.get(request.sha256, "")
            opened, lasting = of_content[user, request.sha256], evidence.terms.attempt + _SLACK
        else:
            record = _record_looked_for(request, records)
            opened = of_record[record] if record is not None else of_any
            lasting = float("inf")
        before = bisect_right(opened, request.at)
        if not before or request.at - opened[before - 1] > lasting:
            since = f"{request.at - opened[before - 1]:.1f} s after" if before else "without"
            findings.append(
                f"request {request.number} ({request.method} {request.path}) came {since} an"
                " attempt that was opened before it"
            )
    return findings


CHECKS: tuple[Check, ...] = (
    every_202_is_in_exactly_one_state,
    every_version_is_one_upload,
    every_device_was_told,
    nothing_is_stuck,
    everything_ended_as_it_must,
    everything_delivered_is_upstream,
    nothing_upstream_is_there_twice,
    everything_upstream_was_told,
    the_newest_version_is_the_last_upstream,
    every_request_belongs_to_an_attempt,
)


def _versions(evidence: Evidence) -> dict[str, Version]:
    """What each upload is a version of."""
    return {each.upload_id: each.version for each in evidence.told}


def _rows_by_content(evidence: Evidence) -> dict[tuple[str, str], list[tuple[Row, Version]]]:
    rows = {row.id: row for row in evidence.rows}
    found: dict[tuple[str, str], list[tuple[Row, Version]]] = defaultdict(list)
    for upload_id, version in _versions(evidence).items():
        if upload_id in rows:
            found[version.user, version.sha256].append((rows[upload_id], version))
    return found


def _records_by_upstream_id(evidence: Evidence) -> dict[str, str]:
    """Which record is under an id of 1upHealth's: its own id where that is kept."""
    record_of = {
        (each.version.user, each.version.sha256): each.version.record for each in evidence.told
    }
    records = {each.version.record: each.version.record for each in evidence.told}
    return records | {
        each.resource_id: record_of[each.user, each.sha256]
        for each in evidence.stored
        if (each.user, each.sha256) in record_of
    }


def _record_looked_for(request: Request, records: dict[str, str]) -> str | None:
    """The record whose id, or whose identifier, a read or a search asks for.

    Whose it is, the request cannot always say: its token may have ended.
    """
    identifier = f"identifier={SYSTEM}|"
    for parameter in unquote(request.query).split("&"):
        if parameter.startswith(identifier):
            return parameter.removeprefix(identifier)
    return records.get(request.path.rpartition("/")[2])


def run(evidence: Evidence, checks: Iterable[Check] = CHECKS) -> dict[str, list[str]]:
    """Each check's findings, by its name in words."""
    return {check.__name__.replace("_", " "): check(evidence) for check in checks}
