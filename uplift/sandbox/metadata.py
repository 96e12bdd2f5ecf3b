"""`/{version}/metadata`: what the server says that it can do."""

from typing import Any

from starlette.responses import Response

from uplift.sandbox import capabilities
from uplift.sandbox.exchange import Exchange
from uplift.sandbox.responses import message, response
from uplift.sandbox.state import Sandbox

_NAME = "Simulated 1upHealth"
_DATE = "2026-07-24"  # of the statements that it is made from
_SEARCH_PARAMS = [
    {"name": "_id", "type": "token"},
    {"name": "identifier", "type": "token"},
    {"name": "patient", "type": "reference"},
]


def metadata(_: Sandbox, exchange: Exchange) -> Response:
    """The capability statement of the version, without credentials."""
    version = exchange.version or ""
    if version not in capabilities.TYPES:
        return message(404, "Not Found")
    body = {
        "resourceType": "Conformance" if version == "dstu2" else "CapabilityStatement",
        "name": _NAME.replace(" ", ""),
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "software": {"name": _NAME},
        "implementation": {"description": f"{_NAME}, {version}", "url": exchange.base},
        "fhirVersion": capabilities.FHIR_VERSIONS[version],
        "format": ["json"],
        "rest": [
            {
                "mode": "server",
                "resource": [_type(version, name) for name in sorted(capabilities.TYPES[version])],
            }
        ],
    }
    if version != "r4":
        body["acceptUnknown"] = "both"  # required until STU3
    return response(body, fhir=True)


def _type(version: str, name: str) -> dict[str, Any]:
    writes, searches = capabilities.may_write(version, name), capabilities.may_search(version, name)
    offered = {
        "read": True,
        "vread": True,
        "create": writes,
        "update": writes,
        "search-type": searches,
    }
    return {
        "type": name,
        "interaction": [{"code": code} for code, is_offered in offered.items() if is_offered],
        **({"searchParam": _SEARCH_PARAMS} if searches else {}),
    }
