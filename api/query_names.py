"""Query parameters by their names: one that the address does not have is a mistake of the caller.

Without this, a misspelt filter lists everything, and a misspelt label makes another record.
"""

from collections.abc import Callable
from typing import Any, get_args, get_origin
from weakref import WeakKeyDictionary

from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute

from uplift.api.problems import invalid_request
from uplift.intake.repeated_names import quoted

_MAX_ERRORS = 10

# By the function of the route, of which each route has its own.
_known: WeakKeyDictionary[Callable[..., Any], dict[str, bool]] = WeakKeyDictionary()


class PassesQueryOn(APIRoute):
    """A route that passes its query on, so it takes every name."""


def check_query_names(request: HTTPConnection) -> None:
    """Raises a Problem (400) for a parameter that the route does not have, or has only once."""
    route = request.scope["route"]
    if isinstance(route, PassesQueryOn):
        return
    takes = _parameters(route)
    seen: set[str] = set()
    errors = []
    for name, value in request.query_params.multi_items():
        if name not in takes:
            errors.append(_error(name, _takes_only(takes)))
        elif name in seen and not takes[name]:
            errors.append(_error(name, "It is there twice. Send it once."))
        elif "\ufffd" in value:
            # What stands for bytes that are no UTF-8: different values would become one.
            errors.append(_error(name, "Its value is not percent-encoded UTF-8."))
        seen.add(name)
    if errors:
        raise invalid_request(errors[:_MAX_ERRORS])


def _parameters(route: APIRoute) -> dict[str, bool]:
    """The names of the query parameters that a route documents, and whether each can repeat.

    Read once: every single upload asks for them.
    """
    known = _known.get(route.endpoint)
    if known is None:
        known = _known[route.endpoint] = _read_parameters(route)
    return known


def _read_parameters(route: APIRoute) -> dict[str, bool]:
    extra: list[dict[str, Any]] = (route.openapi_extra or {}).get("parameters", [])
    named = {each["name"]: False for each in extra if each["in"] == "query"}
    for field in route.dependant.query_params:
        annotation = field.field_info.annotation
        repeats = any(get_origin(each) is list for each in (annotation, *get_args(annotation)))
        named[field.alias] = repeats
    return named


def _error(name: str, what: str) -> dict[str, str]:
    known = quoted(name)
    return {"where": f"query.{known.strip(' `')}" if known else "query", "what": what}


def _takes_only(names: dict[str, bool]) -> str:
    if not names:
        return "There is no such parameter. This address takes none."
    return f"There is no such parameter. This address takes {', '.join(names)}."
