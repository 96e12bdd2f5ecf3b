"""The client knows every operation of our OpenAPI, and every field that the API answers with."""

import inspect
import re
from functools import cache
from typing import Any, get_args

import msgspec
import pytest

from uplift import __version__, client
from uplift.api.app import create_app
from uplift.client import calls, models, user_operations
from uplift.client.messages import Call

# What a person, a probe or a FHIR client asks for.
_NOT_CALLED = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/v1/users/{}/fhir/{}/metadata")}

_MODELS: dict[str, type[msgspec.Struct]] = {
    "UploadStatus": models.Upload,
    "Receipt": models.Receipt,
    "Issue": models.Issue,
    "Issues": models.Issues,
    "Attempt": models.Attempt,
    "BatchSummary": models.Batch,
    "BatchStatus": models.BatchStatus,
    "LineProblem": models.LineProblem,
    "AcceptedLine": models.BatchLine,
    "ProblemLine": models.BatchLine,
    "RedriveReport": models.RedriveReport,
    "PauseStatus": models.Pause,
    "UserStatus": models.User,
    "UserSummary": models.UserSummary,
    "DeviceToken": models.DeviceToken,
    "UploadList": models.UploadPage,
    "BatchList": models.BatchPage,
    "BatchLines": models.LinePage,
    "UserList": models.UserPage,
    "PauseList": models.PauseList,
    "AttemptList": models.AttemptList,
}


@cache
def _openapi() -> dict[str, Any]:
    return create_app().openapi()


@pytest.mark.parametrize("name", _MODELS)
def test_a_model_has_every_field_of_its_schema(name: str) -> None:
    schema = _openapi()["components"]["schemas"][name]
    fields = {each.encode_name: each for each in msgspec.structs.fields(_MODELS[name])}
    assert set(schema["properties"]) <= set(fields)
    for wire, described in schema["properties"].items():
        nullable = {"type": "null"} in described.get("anyOf", [])
        if nullable:
            assert type(None) in get_args(fields[wire].type), wire
    required = {wire for wire, each in fields.items() if each.required}
    assert required <= set(schema.get("required", ()))


def _made() -> list[Call[Any]]:
    """One call of each operation, with a text for everything that must be given."""
    made = []
    for module in (calls, user_operations):
        for name, make in inspect.getmembers(module, inspect.isfunction):
            if make.__module__ != module.__name__ or name.startswith("_"):
                continue
            given: dict[str, Any] = {
                each.name: 1.0 if each.annotation is float else "{}"
                for each in inspect.signature(make).parameters.values()
                if each.default is each.empty and each.kind is not each.VAR_KEYWORD
            }
            if name == "batch_request":
                given["lines"] = b""
            made.append(make(**given))
    return [*made, user_operations.pause("{}"), user_operations.resume("{}")]


def test_there_is_a_call_for_every_operation() -> None:
    made = {
        (each.request.method, each.request.target.partition("?")[0].replace("%7B%7D", "{}"))
        for each in _made()
    }
    described = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, operations in _openapi()["paths"].items()
        for method in operations
    }
    assert described - made == _NOT_CALLED
    assert made <= described


def test_both_clients_have_the_same_methods() -> None:
    def methods(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    assert methods(client.Uplift) == methods(client.AsyncUplift)


def test_client_and_api_have_one_version() -> None:
    assert client.__version__ == __version__
