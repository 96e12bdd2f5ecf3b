"""The OpenAPI description is complete, and docs/api.md agrees with it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from jsonschema_rs import Draft202012Validator

from tests.api.calls import assert_problem
from tests.factories import resource
from uplift.api.app import create_app
from uplift.api.openapi import describe
from uplift.lifecycle import State
from uplift.settings import Settings

_DOCS = Path(__file__).parents[2] / "docs" / "api.md"
_PUBLIC = {"/healthz", "/readyz", "/v1/users/{user}/fhir/{version}/metadata"}
# Their address says everything, so they have no body.
_WITHOUT_BODY = {
    "POST /v1/uploads/{upload_id}/redrive",
    "POST /v1/uploads/{upload_id}/try-now",
    "PUT /v1/pause",
    "PUT /v1/users/{user}/pause",
    "POST /v1/users/{user}/resend",
}


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    """The description. It needs no started app."""
    described: dict[str, Any] = orjson.loads(orjson.dumps(describe(create_app(Settings()))))
    return described


async def test_the_description_is_served_as_it_is(
    anybody: httpx.AsyncClient, openapi: dict[str, Any]
) -> None:
    assert (await anybody.get("/openapi.json")).json() == openapi


def _operations(openapi: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    }


def test_every_operation_says_what_it_does_in_words(openapi: dict[str, Any]) -> None:
    for name, operation in _operations(openapi).items():
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name


def test_every_operation_except_health_asks_for_a_bearer(openapi: dict[str, Any]) -> None:
    scheme = openapi["components"]["securitySchemes"]["HTTPBearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for name, operation in _operations(openapi).items():
        public = name.split(" ")[1] in _PUBLIC
        assert operation.get("security", []) == ([] if public else [{"HTTPBearer": []}]), name


def test_every_operation_documents_the_statuses_it_can_answer(openapi: dict[str, Any]) -> None:
    for name, operation in _operations(openapi).items():
        method, path = name.split(" ")
        statuses = set(operation["responses"])
        expected = {"200"} if path == "/healthz" or path.endswith("/metadata") else {"503"}
        if path not in _PUBLIC:
            expected |= {"400", "401", "403"}
        if method in ("POST", "PUT") and name not in _WITHOUT_BODY:
            expected |= {"413", "415"}
        if "{upload_id}" in path or (method, path) == ("GET", "/v1/users/{user}"):
            expected |= {"404"}
        assert expected <= statuses, name
        assert statuses & {"200", "201", "202", "204"}, name
        # The 422 of Idempotency-Key. What FastAPI answers with 422 is a 400 here.
        assert ("422" in statuses) == (name == "POST /v1/uploads"), name


def test_every_error_is_documented_as_a_problem(openapi: dict[str, Any]) -> None:
    for name, operation in _operations(openapi).items():
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
            if int(status) >= 400:
                content = response["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, (name, status)


def test_every_success_has_a_schema_and_every_body_too(openapi: dict[str, Any]) -> None:
    for name, operation in _operations(openapi).items():
        for status, response in operation["responses"].items():
            if status in ("200", "201", "202"):
                media = "application/fhir+json" if "/fhir/" in name else "application/json"
                assert response["content"][media]["schema"], (name, status)
        if name in _WITHOUT_BODY:
            assert "requestBody" not in operation, name
        elif name.startswith(("POST", "PUT")):
            body = operation["requestBody"]
            assert body["required"] is True
            assert all(content["schema"] for content in body["content"].values()), name


def test_every_parameter_is_described(openapi: dict[str, Any]) -> None:
    for name, operation in _operations(openapi).items():
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])


def _resolve(openapi: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").removeprefix("#/components/schemas/")
    return dict(openapi["components"]["schemas"][reference]) if reference else schema


def _has_examples(openapi: dict[str, Any], schema: dict[str, Any]) -> bool:
    schema = _resolve(openapi, schema)
    return "examples" in schema or any(
        "examples" in each or "const" in each for each in schema.get("properties", {}).values()
    )


def test_every_body_that_goes_in_or_out_has_examples(openapi: dict[str, Any]) -> None:
    for name, operation in _operations(openapi).items():
        bodies = [operation.get("requestBody", {})]
        bodies += [operation["responses"].get(status, {}) for status in ("200", "201", "202")]
        for body in bodies:
            for content in body.get("content", {}).values():
                schema = content["schema"]
                properties = _resolve(openapi, schema).get("properties", {})
                items = properties.get("uploads", {}).get("items", schema)
                assert content.get("examples") or _has_examples(openapi, items), name


async def test_the_examples_of_submitting_are_accepted_as_they_are(
    client: httpx.AsyncClient, alice: str, openapi: dict[str, Any]
) -> None:
    content = openapi["paths"]["/v1/uploads"]["post"]["requestBody"]["content"]
    for content_type, media in content.items():
        for name, example in media["examples"].items():
            labels = {} if name == "envelope" else {"user": "alice", "fhirVersion": "R4"}
            response = await client.post(
                "/v1/uploads",
                params=labels,
                json=example["value"],
                headers={"Content-Type": content_type},
            )
            assert response.status_code == 202, response.text


async def test_problems_match_their_schema(
    client: httpx.AsyncClient, openapi: dict[str, Any]
) -> None:
    validator = Draft202012Validator(openapi["components"]["schemas"]["Problem"])
    for path, status in (("/nothing", 404), ("/v1/uploads?limit=0", 400), ("/v1/uploads/1", 400)):
        validator.validate(assert_problem(await client.get(path), status))


def test_every_reference_of_the_description_has_its_schema(openapi: dict[str, Any]) -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", str(openapi)))
    assert names == set(openapi["components"]["schemas"])


def test_the_docs_name_every_route_and_no_other(openapi: dict[str, Any]) -> None:
    told = {
        f"{method} {re.sub(r'{.*?}', '{}', path.partition('?')[0])}"
        for method, path in re.findall(
            r"`(GET|POST|PUT|PATCH|DELETE) (/[^`\s]*)`", _DOCS.read_text(encoding="utf-8")
        )
    }
    served = {re.sub(r"{.*?}", "{}", name) for name in _operations(openapi)}
    assert told == served


def test_the_docs_name_every_field_that_goes_in_or_out(openapi: dict[str, Any]) -> None:
    text = _DOCS.read_text(encoding="utf-8")
    schemas = dict(openapi["components"]["schemas"])
    for operation in _operations(openapi).values():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for schema in content["schema"].get("anyOf", [content["schema"]]):
                schemas[schema.get("title", "")] = schema
    for name, schema in schemas.items():
        for field in schema.get("properties", {}):
            assert re.search(rf"[\"`]{field}[\"`]", text), (name, field)


def test_every_field_is_described(openapi: dict[str, Any]) -> None:
    for name, schema in openapi["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            told = described.get("description") or "$ref" in described or field == "type"
            assert told, (name, field)


def test_the_docs_name_every_state_and_every_parameter(openapi: dict[str, Any]) -> None:
    text = _DOCS.read_text(encoding="utf-8")
    assert all(state.value in text for state in State)
    for operation in _operations(openapi).values():
        for parameter in operation.get("parameters", []):
            assert parameter["in"] == "path" or parameter["name"].lower() in text.lower()


def test_operations_have_names_of_their_own_that_are_words(openapi: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in _operations(openapi).values()]
    assert len(set(names)) == len(names)
    assert {"submit_upload", "get_upload", "list_uploads", "submit_batch", "search_fhir"} <= set(
        names
    )
    for name in names:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name), name


def test_nothing_of_a_resource_is_left_out_by_who_follows_the_schema(
    openapi: dict[str, Any],
) -> None:
    schemas = openapi["components"]["schemas"]
    for name in ("Resource", "Bundle", "FhirResource", "FhirPage"):
        assert schemas[name]["additionalProperties"] is True
        assert "properties" not in schemas[name]  # openapi-generator's Java would leave them out


def _example_errors(openapi: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each example that its schema does not accept, and why."""
    root = {"components": openapi["components"]}

    def walk(schema: Any, where: str) -> Iterator[tuple[str, str]]:
        if isinstance(schema, list):
            for number, each in enumerate(schema):
                yield from walk(each, f"{where}/{number}")
        elif isinstance(schema, dict):
            examples = schema.get("examples", [])
            values = examples if isinstance(examples, list) else []
            if "schema" in schema and isinstance(examples, dict):
                values = [each["value"] for each in examples.values()]
                values += [schema["example"]] if "example" in schema else []
            described = schema.get("schema", schema)
            for value in values:
                validator = Draft202012Validator({**root, **described})
                for error in validator.iter_errors(value):
                    yield where, error.message
            for name, each in schema.items():
                if name not in ("examples", "example", "const", "enum"):
                    yield from walk(each, f"{where}/{name}")

    yield from walk(openapi["paths"], "paths")
    yield from walk(openapi["components"]["schemas"], "schemas")


def test_every_example_is_valid(openapi: dict[str, Any]) -> None:
    assert list(_example_errors(openapi)) == []


# Of every answer, of HTTP itself, or of the server.
_GENERAL = {
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "server",
    "x-content-type-options",
}


async def test_every_header_is_documented(
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    alice: str,
    openapi: dict[str, Any],
) -> None:
    labels = {"user": "alice", "fhirVersion": "R4"}
    submitted = await client.post("/v1/uploads", params=labels, json=resource())
    status_url = submitted.headers["Location"]
    status = await client.get(status_url)
    known = {"If-None-Match": status.headers["ETag"]}
    batch = await client.post(
        "/v1/batches",
        params=labels,
        content=orjson.dumps(resource(id="b")),
        headers={"Content-Type": "application/x-ndjson"},
    )
    asked = {
        "POST /v1/uploads": [
            submitted,
            await client.post("/v1/uploads", params=labels, content=b"{"),
            await anybody.post("/v1/uploads", params=labels, json=resource()),
        ],
        "GET /v1/uploads/{upload_id}": [
            status,
            await client.get(status_url, headers=known),
            await client.get("/v1/uploads/01900000-0000-7000-8000-000000000000"),
        ],
        "POST /v1/batches": [batch],
        "GET /v1/batches/{batch_id}": [await client.get(batch.headers["Location"])],
        "GET /healthz": [await anybody.get("/healthz")],
    }
    operations = _operations(openapi)
    for name, responses in asked.items():
        for response in responses:
            documented = operations[name]["responses"][str(response.status_code)]["headers"]
            found = {each.lower() for each in response.headers} - _GENERAL
            assert found <= {each.lower() for each in documented}, (name, response.status_code)
            for header in documented.values():
                assert header["schema"]["type"]
                assert header["description"]
