"""Collects the evidence: from the ledger, from the API, from the simulated 1upHealth."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
import psycopg

from chaos import put_evidence
from chaos.clocks import without_jump
from chaos.devices import Accepted, DeviceLog
from chaos.evidence import Attempt, Evidence, Request, Row, Stored
from chaos.leaver import RECORD, Leaver
from chaos.leaver import told_apart as told_apart_of_leaver
from chaos.options import Options
from chaos.put_evidence import Held
from chaos.restores import Restored, Restores
from uplift.sandbox.testing import SandboxControl

_PAGE = 500
_DELETE = "DELETE"  # only what is the leaver's is deleted
_ROWS = """
    SELECT u.id::text, p.app_user_id, u.version, u.state, u.reason, u.attempts, u.maybe_sent,
        u.possible_duplicate, extract(epoch FROM u.delivered_at - u.created_at)::float8,
        u.maybe_overwritten, u.restored OR u.maybe_lost
    FROM uploads AS u JOIN users AS p ON p.id = u.user_id
"""
_ATTEMPTS = "SELECT upload_id::text, extract(epoch FROM opened_at)::float8, outcome FROM attempts"


def collect(
    options: Options,
    log: DeviceLog,
    *,
    database_url: str,
    api_url: str,
    key: str,
    upstream: SandboxControl,
    restores: Restores,
    leaver: Leaver,
) -> Evidence:
    """Everything that the checks read, as it is now."""
    with psycopg.connect(database_url) as connection:
        rows = [Row(*row) for row in connection.execute(_ROWS)]
        attempts = [Attempt(*row) for row in connection.execute(_ATTEMPTS)]
    lost_attempts: set[Attempt] = set()
    for restored in restores.done:
        with psycopg.connect(restores.url_of_lost(restored)) as connection:
            lost_attempts |= {Attempt(*row) for row in connection.execute(_ATTEMPTS)}
    accepted, lost = told_apart(log.accepted, restores.done)
    resources, left = told_apart_of_leaver(upstream.resources(bytes="1"))
    if options.puts:
        held = put_evidence.held_by(resources, [each.version for each in log.accepted])
    else:
        held = Held([_stored(each, one) for each in resources for one in each["versions"]])
    leavers = {version.sha256 for version in leaver.sent}
    return Evidence(
        options=options,
        accepted=accepted,
        lost=lost,
        unexpected=list(log.unexpected),
        rows=rows,
        shown=_shown(api_url, key, sorted({row.user for row in rows})),
        attempts=[_at_its_time(each) for each in attempts],
        lost_attempts=[_at_its_time(each) for each in lost_attempts],
        stored=held.stored,
        requests=[
            one
            for each in upstream.requests(api="fhir")
            for one in _requests(each, held.sent)
            if one.method != _DELETE and one.sha256 not in leavers and RECORD not in one.query
        ],
        patients=held.patients,
        leaver=[*leaver.findings, *left],
    )


def told_apart(
    accepted: Iterable[Accepted], restores: Sequence[Restored]
) -> tuple[list[Accepted], list[Accepted]]:
    """What is accepted still, and what the ledger lost as it went back in time.

    The last time decides: a backup may hold what an earlier one lost.
    """
    last = max(restores, key=lambda one: one.at, default=None)
    kept: list[Accepted] = []
    lost: list[Accepted] = []
    for each in accepted:
        is_lost = last is not None and each.at < last.at and each.upload_id not in last.kept
        (lost if is_lost else kept).append(each)
    return kept, lost


def _at_its_time(attempt: Attempt) -> Attempt:
    return replace(attempt, opened_at=without_jump(attempt.opened_at))


def _shown(api_url: str, key: str, users: list[str]) -> dict[str, str]:
    shown: dict[str, str] = {}
    with httpx.Client(
        base_url=api_url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,
    ) as api:
        for user in users:
            page: str | None = f"/v1/uploads?user={user}&order=asc&limit={_PAGE}"
            while page is not None:
                response = api.get(page)
                response.raise_for_status()
                found = response.json()
                shown |= {each["id"]: each["status"] for each in found["uploads"]}
                page = found["next"]
    return shown


def _stored(resource: Mapping[str, Any], version: Mapping[str, Any]) -> Stored:
    return Stored(
        user=resource["app_user_id"],
        resource_id=resource["id"],
        sha256=version["sha256"],
        at=datetime.fromisoformat(version["last_updated"]).timestamp(),
        copy=version["copy"],
    )


def _request(entry: dict[str, Any], sent: Mapping[str, str]) -> Request:
    return Request(
        number=entry["number"],
        at=datetime.fromisoformat(entry["received_at"]).timestamp(),
        method=entry["method"],
        path=entry["path"],
        query=entry["query"],
        sha256=sent.get(entry["sha256"]) if sent else entry["sha256"],
        whole=entry["fault"] != "client_disconnected",
        answered=entry["status"] is not None and entry["fault"] in (None, "slow"),
        if_match=entry["if_match"] is not None,
    )


def _requests(entry: dict[str, Any], sent: Mapping[str, str]) -> list[Request]:
    """A Bundle is one request for each of its records."""
    return [_request({**entry, **one}, sent) for one in entry["entries"] or [{}]]
