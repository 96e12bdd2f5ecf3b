"""One error of the schema, in words for the developer of the sending app."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema_rs import ValidationError, ValidationErrorKind

from uplift.fhir.compiled import definition
from uplift.fhir.document import JsonObject
from uplift.fhir.expressions import below, element_name
from uplift.fhir.findings import Finding, Kind
from uplift.fhir.versions import FhirVersion

_ID_OF_ANY_LENGTH = re.compile(r"[A-Za-z0-9.\-_]+", re.ASCII)
_ID_LENGTH = 64
_NAMES_LISTED = 12
_MAX_TIME = 100  # a longer date or time is no reading of a clock

_EXPECTED = {
    "string": "text, not blank and without control characters, of at most 1048576 characters",
    "markdown": "text, not blank and without control characters, of at most 1048576 characters",
    "xhtml": "XHTML, not blank and without control characters",
    "boolean": "true or false, without quotes",
    "integer": "a whole number of at most 32 bits, without quotes, point or exponent",
    "unsignedInt": "a whole number from 0 to 2147483647, without quotes, point or exponent",
    "positiveInt": "a whole number from 1 to 2147483647, without quotes, point or exponent",
    "decimal": "a number, without quotes",
    "code": "a code: text without spaces at either end or two in a row",
    "id": "an id: 1 to 64 letters, digits, hyphens and points",
    "uri": "a URI, without spaces",
    "url": "a URL, without spaces",
    "canonical": "a canonical URL, without spaces",
    "oid": "an OID such as urn:oid:1.2.3",
    "uuid": "a UUID such as urn:uuid:c757873d-ec9a-4326-a141-556f43239520, in lower case",
    "base64Binary": "base64 with its padding",
    "date": "an existing date as YYYY, YYYY-MM or YYYY-MM-DD",
    "dateTime": "an existing date as YYYY, YYYY-MM or YYYY-MM-DD, or with a time and its zone as "
    "YYYY-MM-DDThh:mm:ss+zz:zz",
    "instant": "an existing date with a time and its zone as YYYY-MM-DDThh:mm:ss.sss+zz:zz",
    "time": "a time of day as hh:mm:ss",
}


class DescribedError:
    """One error of the schema."""

    def __init__(
        self, error: ValidationError, resource: JsonObject, expression: str, version: FhirVersion
    ) -> None:
        self._error = error
        self._version = version
        # The name of the definition: a type, a path of elements, `code:…` or `Reference(…)`. A
        # question mark at its end means that null is allowed.
        _, self._type, *self._steps = map(str, error.schema_path)
        self._type = self._type.removesuffix("?")
        _, *path = error.instance_path  # the first step is the resource's type
        self._value = _at(path, resource)
        # A binding is about the concept. The schema looks at its codings.
        self._where = below(expression, *(path[:-1] if self._is_concept(path) else path))

    def findings(self) -> Iterator[Finding]:
        kind = self._error.kind
        match kind, self._rule():
            case ValidationErrorKind.AdditionalProperties(), _:
                yield from self._unknown(kind.unexpected)
            case ValidationErrorKind.Required(), _:
                yield self._missing(kind.property)
            case _, ["required", name]:
                yield self._missing(name)
            case _, ["choice", name]:
                yield self._choice(name, given=type(kind) is ValidationErrorKind.OneOfMultipleValid)
            case _, ["target"]:
                allowed = self._type.removeprefix("Reference(").removesuffix(")")
                yield Finding(
                    Kind.REFERENCE_TARGET,
                    "value",
                    self._where,
                    f"This refers to a type that is not allowed here. Allowed: {allowed}.",
                )
            case _, ["binding"]:
                yield self._outside_binding(_codes(self._failed()))
            case _ if self._type == "Resource" and "resourceType" in self._steps:
                yield Finding(
                    Kind.STRUCTURE,
                    "not-supported",
                    self._where,
                    f"This is not a resource type of {self._version}.",
                )
            case ValidationErrorKind.Enum(), _ if isinstance(self._value, str):
                yield self._outside_binding()
            case _:
                yield from self._wrong(kind)

    def _is_concept(self, path: Sequence[str | int]) -> bool:
        return self._type.startswith("CodeableConcept:") and path[-1:] == ["coding"]

    def _failed(self) -> Any:
        """The part of the schema with the keyword that failed."""
        _, name, *steps, _ = self._error.schema_path
        return _at(steps, definition(self._version, str(name)))

    def _rule(self) -> Sequence[str]:
        """The note of uplift.fhir.generate.structures at the keyword that failed."""
        schema = self._failed()
        noted: Sequence[str] = schema.get("rule", ()) if isinstance(schema, Mapping) else ()
        return noted

    # --- findings about an object's elements ----------------------------------------------------

    def _unknown(self, names: list[str]) -> Iterator[Finding]:
        for name in names:
            shown = element_name(name)
            subject = f"{shown} is" if shown else "An unknown element (its name is not shown) is"
            yield Finding(
                Kind.UNKNOWN_ELEMENT,
                "structure",
                f"{self._where}.{shown}" if shown else self._where,
                f"{subject} not an element of {self._type} in {self._version}. "
                "Check its spelling, its place and the fhirVersion.",
            )

    def _missing(self, name: str) -> Finding:
        match self._type, name:
            case _, "resourceType":
                kind = Kind.STRUCTURE  # a resource inside another cannot be validated without
            case "Narrative", _:
                kind = Kind.BAD_NARRATIVE
            case _:
                kind = Kind.MISSING_REQUIRED
        return Finding(
            kind,
            "required",
            f"{self._where}.{name}",
            f"{self._type} requires {name} in {self._version}.",
        )

    def _choice(self, name: str, *, given: bool) -> Finding:
        known = definition(self._version, self._type)["properties"]
        names = [each for each in known if re.fullmatch(f"{name}[A-Z].*", each)]
        listed = ", ".join(names) if len(names) <= _NAMES_LISTED else f"{name}[x]"
        if given:
            return Finding(
                Kind.STRUCTURE,
                "structure",
                f"{self._where}.{name}[x]",
                f"Only one of {listed} is allowed.",
            )
        return Finding(
            Kind.MISSING_REQUIRED,
            "required",
            f"{self._where}.{name}[x]",
            f"{self._type} requires one of {listed} in {self._version}.",
        )

    # --- findings about a value -----------------------------------------------------------------

    def _outside_binding(self, codes: frozenset[str] = frozenset()) -> Finding:
        value_set = self._type.partition(":")[2]
        codings = self._value if isinstance(self._value, list) else [self._value]
        if any(_is_under_value_set(each, value_set, codes) for each in codings):
            return Finding(
                Kind.VALUE_SET_AS_SYSTEM,
                "code-invalid",
                self._where,
                f"The code is in the required value set {value_set}, but its system is the address "
                "of the value set. It must be the address of the code system.",
            )
        return Finding(
            Kind.CODE_OUTSIDE_BINDING,
            "code-invalid",
            self._where,
            f"The code is not in the required value set {value_set} of {self._version}.",
        )

    def _wrong(self, kind: ValidationErrorKind) -> Iterator[Finding]:
        match kind:
            case _ if self._value is None:
                yield self._structure("null is not allowed here: leave the element out.")
            case ValidationErrorKind.MaxItems():
                yield self._structure(f"At most {kind.limit} items are allowed here.")
            case ValidationErrorKind.Type() if kind.types[0] in ("object", "array"):
                yield self._structure(f"This must be an {kind.types[0]}, not {self._shape()}.")
            case _ if isinstance(self._value, dict | list):
                yield self._structure(f"This must be {self._expected()}, not {self._shape()}.")
            case _:
                yield from self._bad_primitive()

    def _structure(self, diagnostics: str) -> Finding:
        return Finding(Kind.STRUCTURE, "structure", self._where, diagnostics)

    def _bad_primitive(self) -> Iterator[Finding]:
        value = self._value
        match self._type:
            case "xhtml" if isinstance(value, str):
                return  # uplift.fhir.narrative judges it
            case "positiveInt" if value == 0 and type(value) is int:
                yield self._bad(Kind.ZERO_WHERE_POSITIVE, "0 is not allowed here: 1 is the least.")
            case "id" if isinstance(value, str) and _ID_OF_ANY_LENGTH.fullmatch(value):
                if len(value) > _ID_LENGTH:
                    yield self._bad(Kind.ID_TOO_LONG, "An id has at most 64 characters.")
                if "_" in value:
                    yield self._bad(
                        Kind.ID_WITH_UNDERSCORE, "An id must not contain an underscore."
                    )
            case "date" if self._is_a("dateTime") or self._is_a("dateTime", "Z"):
                yield self._bad(
                    Kind.DATE_WITH_TIME, "A date has no time: YYYY, YYYY-MM or YYYY-MM-DD."
                )
            case "dateTime" if self._is_a("dateTime", "Z"):
                yield self._bad(
                    Kind.DATETIME_WITHOUT_ZONE,
                    "A dateTime with a time needs its zone: Z, or an offset such as +01:00.",
                )
            case "instant" if self._is_a("instant", "Z"):
                yield self._bad(
                    Kind.INSTANT_WITHOUT_ZONE,
                    "An instant needs its time zone: Z, or an offset such as +01:00.",
                )
            case _:
                yield self._bad(Kind.VALUE, f"This must be {self._expected()}.")

    def _bad(self, kind: Kind, diagnostics: str) -> Finding:
        return Finding(kind, "value", self._where, diagnostics)

    def _is_a(self, primitive: str, addition: str = "") -> bool:
        """Whether the value is text of that type, or becomes it with the addition."""
        pattern = definition(self._version, primitive)["pattern"]
        return (
            isinstance(self._value, str)
            and len(self._value) < _MAX_TIME
            and re.fullmatch(pattern, f"{self._value}{addition}", re.ASCII) is not None
        )

    def _expected(self) -> str:
        return _EXPECTED.get(self._type.partition(":")[0], "another kind of value")

    def _shape(self) -> str:
        match self._value:
            case dict():
                return "an object"
            case list():
                return "an array"
            case _:
                return "a single value"


def _at(path: Sequence[str | int], value: Any) -> Any:
    for step in path:
        value = value[step]
    return value


def _codes(binding: Any) -> frozenset[str]:
    """The codes of all systems that a binding allows, from its part of the schema."""
    while "anyOf" not in binding:
        binding = binding.get("not") or binding["items"]
    return frozenset(
        code for coding in binding["anyOf"] for code in coding["properties"]["code"]["enum"]
    )


def _is_under_value_set(coding: Any, value_set: str, codes: frozenset[str]) -> bool:
    """Whether it has one of the codes, with the address of the value set in place of a system."""
    match coding:
        case {"system": str(system), "code": str(code)}:
            return code in codes and system.partition("|")[0].endswith(f"/ValueSet/{value_set}")
        case _:
            return False
