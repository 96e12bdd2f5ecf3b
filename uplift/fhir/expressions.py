"""The place of something in a resource, written like FHIRPath with the names of the JSON."""

import re

_ELEMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def element_name(name: str) -> str | None:
    """The name, if it looks like an element's. Otherwise None: it may be health data."""
    return name if _ELEMENT_NAME.fullmatch(name) else None


def below(expression: str, *steps: str | int) -> str:
    """The expression of a place below `expression`, as `Observation.component[0].code`."""
    for step in steps:
        if isinstance(step, int):
            expression += f"[{step}]"
        else:
            expression += f".{element_name(step) or '(unknown)'}"
    return expression
