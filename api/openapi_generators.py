"""Makes the OpenAPI description one that generators of clients and linters understand.

FastAPI describes routes. What it cannot say, or says in a way from which generators make poor
names or wrong types, is put right here.
"""

from collections.abc import Iterator
from typing import Any

from uplift.api.rate_limits import RATE_LIMIT_HEADERS

_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "schema": {"type": "string", "examples": ["0199c5a4-7a0e-7c31-8a54-0b8f7a0b0c1d"]},
        "description": "The id of the request. The logs of the API name it.",
    },
    "Retry-After": {
        "schema": {"type": "integer", "examples": [5]},
        "description": "Seconds until you should try again.",
    },
    "WWW-Authenticate": {
        "schema": {"type": "string", "examples": ["Bearer"]},
        "description": "How to authenticate.",
    },
    "Accept": {
        "schema": {"type": "string", "examples": ["application/json"]},
        "description": "The content types that this address accepts, if yours is not one of them.",
    },
    "Accept-Encoding": {
        "schema": {"type": "string", "examples": ["identity"]},
        "description": "The content codings that it accepts, if yours is not one of them.",
    },
    **RATE_LIMIT_HEADERS,
}
_OF_EVERY_RESPONSE = ("X-Request-ID",)
_OF_STATUS = {
    "401": ("WWW-Authenticate",),
    "415": ("Accept", "Accept-Encoding"),
    "429": ("Retry-After", *RATE_LIMIT_HEADERS),
    "503": ("Retry-After",),
}


def operations(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every operation of the description."""
    for path in description["paths"].values():
        yield from path.values()


def document_headers(description: dict[str, Any]) -> None:
    """Name the headers that routes do not name: those of every answer, and those of problems."""
    for operation in operations(description):
        for status, response in operation["responses"].items():
            headers = response.setdefault("headers", {})
            for name in (*_OF_EVERY_RESPONSE, *_OF_STATUS.get(status, ())):
                headers.setdefault(name, _HEADERS[name])


def say_who_may_ask(description: dict[str, Any]) -> None:
    """Say of an operation that needs no credential that this is so on purpose."""
    for operation in operations(description):
        operation.setdefault("security", [])


def leave_out_null(description: dict[str, Any]) -> None:
    """A parameter that is null is one that is not there, so its schema does not say null."""
    for operation in operations(description):
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            kinds = [each for each in schema.pop("anyOf", []) if each != {"type": "null"}]
            if len(kinds) == 1:
                schema.update(kinds[0])
            elif kinds:
                schema["anyOf"] = kinds


def shorten_schemas(description: dict[str, Any]) -> None:
    """Leave out the titles that FastAPI makes of names, and write "or null" as a list of types.

    From both, generators make a type of its own for each field.
    """
    for schema in description["components"]["schemas"].values():
        _shorten_properties(schema)
    for operation in operations(description):
        for parameter in operation.get("parameters", []):
            parameter["schema"] = _shortened(parameter["schema"])


def _shortened(schema: dict[str, Any]) -> dict[str, Any]:
    short = {name: value for name, value in schema.items() if name != "title"}
    kinds = [each for each in short.get("anyOf", []) if each != {"type": "null"}]
    if len(kinds) == 1 < len(short["anyOf"]) and isinstance(kinds[0].get("type"), str):
        del short["anyOf"]
        short = {**kinds[0], **short, "type": [kinds[0]["type"], "null"]}
        if "enum" in short:
            short["enum"] = [*short["enum"], None]
    for name in ("items", "additionalProperties"):
        if isinstance(short.get(name), dict):
            short[name] = _shortened(short[name])
    _shorten_properties(short)
    return short


def _shorten_properties(schema: dict[str, Any]) -> None:
    for name, member in schema.get("properties", {}).items():
        schema["properties"][name] = _shortened(member)


def name_bodies(description: dict[str, Any]) -> None:
    """Give every object in the body of a request a name, under which generators show it."""
    schemas = description["components"]["schemas"]
    for operation in operations(description):
        for media in operation.get("requestBody", {}).get("content", {}).values():
            media["schema"] = _named(media["schema"], schemas)
    for schema in list(schemas.values()):
        # From `false`, openapi-generator makes a Java class that is a map and sends `{}`. The API
        # refuses fields that it does not know all the same.
        if schema.get("additionalProperties") is False:
            del schema["additionalProperties"]
        for name, member in schema.get("properties", {}).items():
            schema["properties"][name] = _named(member, schemas)


def _named(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema if it is that of an object with a title, else the schema."""
    if "items" in schema:
        return {**schema, "items": _named(schema["items"], schemas)}
    members = schema.get("properties", {})
    if "title" not in schema or not (members or schema.get("additionalProperties") is True):
        return schema
    name = schema["title"]
    if members:
        schema = {
            **schema,
            "properties": {each: _named(member, schemas) for each, member in members.items()},
        }
    schemas[name] = schema
    return {"$ref": f"#/components/schemas/{name}"}
