"""The FHIR interactions that only read, as addresses: read, vread, search and `$everything`. Pure.

The parts of such an address come from a caller, or from a link of 1upHealth's. Nothing is passed on
as it came: a strict grammar parses it, and it is written again. So nobody who reads it next can
understand it as another place.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode

from uplift.errors import InvalidRead, NotFound
from uplift.fhir.types import READABLE_TYPES
from uplift.fhir.versions import FhirVersion
from uplift.problem_types import ProblemType

# FHIR's own ids have at most 64 characters and no underscore; Epic's are longer, Cerner's have it.
# All of these stand in a URL as they are (RFC 3986, 2.3).
_ID = r"[A-Za-z0-9\-._]{1,255}"
_PATH = re.compile(
    rf"(?P<type>[A-Za-z]{{1,64}})"
    rf"(?:/(?P<id>{_ID})(?:/(?P<operation>\$everything|_history/(?P<version>{_ID})))?)?",
    re.ASCII,
)
# Dots mean another place in a path (RFC 3986, 5.2.4), percent-encoded too. The others are names of
# interactions on a type (https://hl7.org/fhir/R4/http.html).
_NO_IDS = frozenset({".", "..", "_history", "_search"})

_MAX_QUERY = 8192
_MAX_PARAMETERS = 100
# Chains, modifiers and reverse chains: https://hl7.org/fhir/R4/search.html
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.:\-]{0,254}", re.ASCII)
# These would use somebody else's rights (RFC 6750, 2.3), or another method.
_NO_PARAMETERS = frozenset({"access_token", "client_id", "client_secret", "_method"})
# HAPI keeps what a search found, and links to its other pages at the base.
_KEPT_PAGES = b"_getpages="
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Interaction:
    """One read, in an address below a version's base."""

    version: FhirVersion
    path: str = field(repr=False)
    query: str = field(repr=False)
    """Percent-encoded; without the question mark."""
    response_type: str
    """The resourceType of the response."""
    paged: bool
    """Whether the response is a page of a search or an operation, with links to other pages."""

    @property
    def address(self) -> str:
        """The path, and the query if there is one."""
        return f"{self.path}?{self.query}" if self.query else self.path


def parse_interaction(version: FhirVersion, path: str, query: bytes) -> Interaction:
    """Parse a path (decoded, below the version's base) and a query (percent-encoded).

    Raises InvalidRead if it is not such an interaction, and NotFound if the version has no such
    type. The messages never quote the path or the query.
    """
    if not path and query.startswith(_KEPT_PAGES):
        return Interaction(
            version=version,
            path="",
            query=_written_again(query),
            response_type="Bundle",
            paged=True,
        )
    found = _PATH.fullmatch(path)
    if found is None or not _NO_IDS.isdisjoint({found["id"], found["version"]}):
        raise InvalidRead(
            ProblemType.INVALID_READ,
            "Uplift cannot read this address back. Use {Type}?{search}, {Type}/{id},"
            " {Type}/{id}/_history/{version} or Patient/{id}/$everything.",
        )
    resource_type, operation = found["type"], found["operation"]
    if resource_type not in READABLE_TYPES[version]:
        raise NotFound(
            ProblemType.NO_SUCH_TYPE,
            f"There is no such resource type in {version}. Check upper and lower case.",
        )
    everything = operation == "$everything"
    if everything and resource_type != "Patient":
        raise InvalidRead(
            ProblemType.INVALID_READ,
            "$everything works for a Patient only: Patient/{id}/$everything.",
        )
    paged = everything or found["id"] is None
    return Interaction(
        version=version,
        path=path,
        query=_written_again(query),
        response_type="Bundle" if paged else resource_type,
        paged=paged,
    )


def bases_of(base: str, version: FhirVersion) -> tuple[str, ...]:
    """The addresses below which a server that has this base may link.

    1upHealth serves `/fhir/r4` and `/r4`, and may link to either.
    """
    end = f"/{version.path}"
    if not base.endswith(end):
        return (base,)
    root = base.removesuffix(end)
    other = root.removesuffix("/fhir") if root.endswith("/fhir") else f"{root}/fhir"
    return base, f"{other}{end}"


def parse_link(version: FhirVersion, bases: tuple[str, ...], url: str) -> Interaction | None:
    """The interaction of an absolute link, if the link is below one of these FHIR bases."""
    for base in bases:
        if not url.startswith((f"{base}/", f"{base}?")):
            continue
        path, _, query = url.removeprefix(base).removeprefix("/").partition("?")
        try:
            return parse_interaction(version, unquote(path), query.encode())
        except (InvalidRead, NotFound):
            return None
    return None


def _written_again(query: bytes) -> str:
    """The same parameters. Every character that could end a value or the query is encoded."""
    if len(query) > _MAX_QUERY:
        raise InvalidRead(ProblemType.INVALID_READ, f"The query has more than {_MAX_QUERY} bytes.")
    try:
        parameters = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError:
        raise InvalidRead(
            ProblemType.INVALID_READ,
            f"The query is not percent-encoded UTF-8 of at most {_MAX_PARAMETERS} parameters.",
        ) from None
    for name, value in parameters:
        if not _PARAMETER.fullmatch(name) or name.lower() in _NO_PARAMETERS:
            raise InvalidRead(
                ProblemType.INVALID_READ,
                "The query has a name that is not a search parameter of FHIR.",
            )
        if _CONTROL.search(value):
            raise InvalidRead(
                ProblemType.INVALID_READ, "The query has a value with a control character."
            )
        if name == "_format" and "json" not in value.lower():
            raise InvalidRead(
                ProblemType.INVALID_READ,
                "Uplift reads JSON only. Leave _format out, or use _format=json.",
            )
    return urlencode(parameters, quote_via=quote, safe="")
