"""Finds the series that an expression of PromQL names."""

import re

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE = re.compile(r"\[[^\]]*\]")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\}|(?=[^\w:\s(]|\s|$))")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


def series(expression: str) -> list[tuple[str, set[str]]]:
    """The names of the series, each with the labels that the expression selects by.

    Raises AssertionError if brackets do not match.
    """
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing), expression
    plain = _GROUPING.sub(" ", _RANGE.sub("", _STRING.sub('""', expression)))
    return [
        (name, set(re.findall(r"(\w+)\s*[=!]", selector)))
        for name, selector in _SELECTOR.findall(plain)
        if name not in _WORDS and not re.match(r"\s*\(", plain[plain.index(name) + len(name) :])
    ]
