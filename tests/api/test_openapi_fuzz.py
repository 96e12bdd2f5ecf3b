"""Schemathesis tests every operation: nothing undocumented happens, and nothing fails.

UPLIFT_FUZZ_EXAMPLES raises the number of examples for each operation and kind of data.
UPLIFT_FUZZ_PARTS makes so many tests of it, each of some operations: so a long run shows how far it
is.
"""

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.calls import Keys, bearer, device_token
from tests.api.serving import ApiServer
from tests.factories import resource
from uplift.ledger.database import Database
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings

_EXAMPLES = int(os.environ.get("UPLIFT_FUZZ_EXAMPLES", "8"))
_PARTS = int(os.environ.get("UPLIFT_FUZZ_PARTS", "1"))
_OF_HTTP = frozenset({
    "connection", "content-length", "expect", "host", "transfer-encoding", "upgrade",
})  # fmt: skip
_OF_ALL = ("/v1/uploads/redrive", "/v1/uploads/try-now")
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
def upstream() -> Iterator[SandboxServer]:
    """A simulated 1upHealth without a limit on new users, because the test makes many."""
    config = SandboxConfig(client_secret=secrets.token_urlsafe(8), quota_calls=1_000_000)
    with SandboxServer(config) as running:
        yield running


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # A long run adds more people than 1upHealth allows in an hour.
    return settings.model_copy(update={"max_wait_seconds": 0.02, "oneup_quota_calls": 1_000_000})


def _with_bundle(case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    case.media_type = "application/fhir+json"
    case.body = {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": resource()}]}
    return case


def _to_oneup(case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    case.body = {"destination": "oneup"}
    return case


def _of_all(case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    case.body = {"all": True}
    return case


def _with_resource(case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    """The case with a resource as its body."""
    case.media_type = "application/fhir+json"
    case.body = resource()
    return case


def _fuzz(
    operation: APIOperation[Any, Any, Any, Any],
    mode: GenerationMode,
    known: dict[str, str],
    callers: list[str],
    session: requests.Session,
) -> Counter[int]:
    """How often each status was answered. Raises the first failed check, with a curl command."""
    parts = {parameter.name for parameter in operation.path_parameters}
    cases = [operation.as_strategy(mode)]
    if parts:  # half of the cases use existing ids
        existing = {part: known[part] for part in parts}
        cases.append(operation.as_strategy(mode, path_parameters=existing))
    if operation.label == "PUT /v1/users/{user}/destination" and mode is GenerationMode.POSITIVE:
        cases.append(cases[-1].map(_to_oneup))  # hardly any other destination is known
    if operation.path in _OF_ALL and mode is GenerationMode.POSITIVE:
        cases.append(cases[-1].map(_of_all))  # hardly any body names an upload that is there
    if operation.label == "POST /v1/batches":  # its user is only in the query
        of_user = operation.as_strategy(mode, query={"user": known["user"]})
        cases.append(of_user)
        if mode is GenerationMode.POSITIVE:  # of a Bundle, the schema says only that it is JSON
            cases.append(of_user.map(_with_bundle))
    if operation.label == "POST /v1/uploads":  # hardly any other user or version is known
        labelled = operation.as_strategy(mode, query={"user": known["user"], "fhirVersion": "R4"})
        cases.append(labelled)
        if mode is GenerationMode.POSITIVE:  # of a resource, the schema says only that it is JSON
            cases.append(labelled.map(_with_resource))
    answered = Counter[int]()

    @hypothesis.settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(
        case=strategies.one_of(cases), caller=strategies.sampled_from(callers[:1] * 5 + callers)
    )
    def exchange(case: schemathesis.Case[Any], caller: str) -> None:
        # test_callers.py has the bad credentials. Here they would hide everything else.
        case.headers.pop("Authorization", None)
        # Nor do invented headers of HTTP itself: test_http_protocol.py has them, and their 501.
        for name in [each for each in case.headers if each.lower() in _OF_HTTP]:
            del case.headers[name]
        response = case.call_and_validate(session=session, headers=bearer(caller), checks=_CHECKS)
        answered[response.status_code] += 1

    exchange()
    return answered


def _leaver(session: requests.Session, url: str, keys: Keys) -> dict[str, str]:
    """A user, a device token and an upload that a test can delete."""
    session.put(
        f"{url}/v1/users/leaver/grant",
        json={"accessToken": "a", "expiresIn": 3600},
        headers=bearer(keys.backend),
    ).raise_for_status()
    token = session.post(
        f"{url}/v1/users/leaver/device-tokens",
        json={"expiresIn": 60},
        headers=bearer(keys.backend),
    ).json()
    upload = session.post(
        f"{url}/v1/uploads",
        json={"user": "alice", "fhirVersion": "R4", "resource": {**resource(), "id": "leaving"}},
        headers=bearer(keys.backend),
    ).json()
    return {"user": "leaver", "token_id": token["id"], "upload_id": upload["id"]}


@pytest.mark.timeout(60 + _EXAMPLES * 10)
@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
async def test_no_request_fails_or_gets_an_undocumented_answer(
    server: ApiServer,
    keys: Keys,
    database: Database,
    upstream: SandboxServer,
    mode: GenerationMode,
    part: int,
) -> None:
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    with requests.Session() as session:
        session.trust_env = False
        session.put(
            f"{server.url}/v1/users/alice/grant",
            json={"accessToken": "a", "expiresIn": 3600},
            headers=bearer(keys.backend),
        ).raise_for_status()
        # The other operations do not change the grant of this user.
        token = upstream.grant("reader")["access_token"]
        session.put(
            f"{server.url}/v1/users/reader/grant",
            json={"accessToken": token, "expiresIn": 3600},
            headers=bearer(keys.backend),
        ).raise_for_status()
        session.post(
            f"{upstream.fhir_url}/r4/Patient",
            json={"resourceType": "Patient", "id": "p1"},
            headers=bearer(token),
        ).raise_for_status()
        reading = {"user": "reader", "version": "R4", "type": "Patient", "id": "p1", "history": "1"}
        upload = session.post(
            f"{server.url}/v1/uploads",
            json={"user": "alice", "fhirVersion": "R4", "resource": resource()},
            headers=bearer(keys.backend),
        ).json()
        batch = session.post(
            f"{server.url}/v1/batches?user=alice&fhirVersion=R4",
            json={"resourceType": "Bundle", "type": "batch", "entry": [{"resource": resource()}]},
            headers=bearer(keys.backend),
        ).json()
        known = {
            "upload_id": upload["id"],
            "batch_id": batch["id"],
            "user": "alice",
            "version": "R4",
        }
        callers = [keys.backend, keys.operator, await device_token(database, "alice"), "wrong"]
        failures: list[BaseException] = []
        for result in list(schema.get_all_operations())[part::_PARTS]:
            assert isinstance(result, Ok)
            operation = result.ok()
            named = {parameter.name for parameter in operation.iter_parameters()}
            takes_nothing = not operation.body and named <= {"Authorization"}
            if takes_nothing and mode is GenerationMode.NEGATIVE:
                continue  # no input can be wrong
            about = reading if "/fhir/" in operation.path else known
            if operation.method.upper() == "DELETE":
                about = {**known, **_leaver(session, server.url, keys)}
            operators = operation.path.endswith(("/pause", *_OF_ALL))
            # The first caller asks most often.
            asking = [keys.operator, *callers] if operators else callers
            try:
                answered = _fuzz(operation, mode, about, asking, session)
            except (Exception, FailureGroup) as error:  # noqa: BLE001  a long run shows all it finds
                failures.append(error)
                continue
            meant = {200, 201, 202, 204} if mode is GenerationMode.POSITIVE else {400, 404, 415}
            if operation.path.endswith("/patient"):
                meant |= {409}  # at 1upHealth no record refers to a Patient of ours
            assert meant & set(answered), f"{operation.label} was answered {dict(answered)} only"
        if failures:
            raise BaseExceptionGroup("operations failed", failures)
