"""Validates a resource by the rules of its FHIR version. It never changes the bytes."""

from collections.abc import Generator, Iterator, Mapping

from uplift.errors import TooComplex, UnreadableDocument
from uplift.fhir.compiled import resource_types, validator
from uplift.fhir.constraints import RULES
from uplift.fhir.document import MAX_VALUES, JsonObject, read, resources_in
from uplift.fhir.empties import Empties, says_nothing
from uplift.fhir.expressions import below
from uplift.fhir.findings import Finding, Kind
from uplift.fhir.invariants import invariant_findings
from uplift.fhir.issues import Code, Issue, Report
from uplift.fhir.schema_findings import schema_findings
from uplift.fhir.second_opinion import Objection, objection
from uplift.fhir.tolerances import DEFAULT_TOLERANCES, Tolerances
from uplift.fhir.types import NO_RECORDS, RELAYED_TYPES
from uplift.fhir.versions import FhirVersion
from uplift.json_values import has_more_values

DESCRIBED_FINDINGS = 300
"""So many findings are described. A document with more is refused. One can take 2 ms."""

SECOND_OPINION_BYTES = 512 * 1024
SECOND_OPINION_VALUES = 10_000
"""fhir.resources gets no larger body: of a megabyte or 40,000 values, it can take 2 s."""

# The library does not check these. So after such a finding its opinion is still useful.
_OUTSIDE_THE_LIBRARY = frozenset(
    {Kind.REFERENCE_TARGET, Kind.PERIOD_REVERSED, Kind.BAD_NARRATIVE, *RULES}
)


def validate(
    body: bytes,
    version: str,
    *,
    tolerances: Tolerances = DEFAULT_TOLERANCES,
    second_opinion: bool = True,
    max_values: int = MAX_VALUES,
    taken: Mapping[FhirVersion, frozenset[str]] = RELAYED_TYPES,
) -> Report:
    """The report on one resource, whatever the bytes are.

    `taken` are the types that its destination takes, by version.

    The schema that is generated from HL7's definitions decides. With `second_opinion`, the library
    fhir.resources checks what passes. Its objection is only a warning, because it refuses some
    valid records and misses many errors. Without it, validation takes about a third of the time.

    Whatever the body is, this takes less than 200 MB and 2 s while `max_values` is the usual limit.
    The limits count values and findings, so a body gets the same report on any machine.
    """
    fhir_version = FhirVersion.parse(version)
    if fhir_version is None:
        return _fatal("not-supported", "The fhirVersion is not DSTU2, STU3 or R4.")
    resource = readable(body, fhir_version, max_values, taken)
    if isinstance(resource, Report):
        return resource
    ask_library = (
        second_opinion
        and len(body) <= SECOND_OPINION_BYTES
        and not has_more_values(body, SECOND_OPINION_VALUES)
    )
    return Report.of(_issues(body, resource, fhir_version, tolerances, ask_library=ask_library))


def readable(
    body: bytes,
    version: FhirVersion,
    max_values: int = MAX_VALUES,
    taken: Mapping[FhirVersion, frozenset[str]] = RELAYED_TYPES,
) -> JsonObject | Report:
    """The resource in the bytes, or the report on bytes in which no rule can look for findings."""
    try:
        resource = read(body, max_values)
    except UnreadableDocument as error:
        return _fatal("structure", str(error))
    except TooComplex as error:
        return _fatal("too-costly", str(error))
    resource_type = resource.get("resourceType")
    if not isinstance(resource_type, str) or not resource_type:
        return _fatal("structure", "The object has no resourceType.")
    if (why := _not_relayed(resource_type, version, taken[version])) is not None:
        return _fatal("not-supported", why)
    return resource


def _not_relayed(resource_type: str, version: FhirVersion, taken: frozenset[str]) -> str | None:
    """Why a resource of that type is not relayed; None if it is."""
    if resource_type in NO_RECORDS:
        return (
            "This resourceType is what an operation takes or answers, and no record of a person. "
            "Uplift does not relay it."
        )
    if resource_type not in RELAYED_TYPES[version]:
        return f"This is not a resource type of {version}. Check the spelling and the fhirVersion."
    if resource_type not in taken:
        return f"The destination takes no resource of this type in {version}. Another one may."
    return None


def _issues(
    body: bytes,
    resource: JsonObject,
    version: FhirVersion,
    tolerances: Tolerances,
    *,
    ask_library: bool,
) -> Iterator[tuple[Issue, int]]:
    for finding in findings(resource, version):
        ask_library &= finding.kind in _OUTSIDE_THE_LIBRARY
        yield _issue(finding, version, tolerances), finding.times
    if ask_library:
        resource_type: str = resource["resourceType"]
        if disagreement := objection(body, version, resource_type):
            yield _disagreement_issue(disagreement, resource_type), 1


def findings(resource: JsonObject, version: FhirVersion) -> Iterator[Finding]:
    """Everything that is wrong with a readable resource, whatever is tolerated."""
    resource_type: str = resource["resourceType"]
    if says_nothing(resource):
        yield Finding(
            Kind.NO_CONTENT,
            "required",
            resource_type,
            f"This {resource_type} has no content: nothing beyond an id, identifiers, meta, text "
            "and extensions.",
        )
    if (yield from _schema_findings(resource, version)):
        yield from invariant_findings(resource, resource_type, version)


def _schema_findings(resource: JsonObject, version: FhirVersion) -> Generator[Finding, None, bool]:
    """What the schemas find. Returns whether all of it was found, or it is too much."""
    left = DESCRIBED_FINDINGS
    empties: Empties | None = None
    for each, where in _known_resources(resource, version):
        inner_type = each["resourceType"]
        if validator(version, inner_type).is_valid({inner_type: each}):
            continue
        if empties is None:  # found at once: they are cheap, and do not count as described
            empties = Empties.of(resource)
            yield from empties.findings(resource, resource["resourceType"])
        for finding in schema_findings(each, where, version, empties):
            if left == 0:
                yield Finding(
                    Kind.STRUCTURE,
                    "too-costly",
                    where,
                    f"There are more than {DESCRIBED_FINDINGS} findings. The rest is not checked. "
                    "Fix the elements listed above, or split the record.",
                )
                return False
            left -= 1
            yield finding
    return True


def _known_resources(
    resource: JsonObject, version: FhirVersion
) -> Iterator[tuple[JsonObject, str]]:
    """The resource and those inside it. The outer schema refuses unknown types."""
    types = resource_types(version)
    for each, where in resources_in(resource, resource["resourceType"]):
        inner_type = each.get("resourceType")
        if isinstance(inner_type, str) and inner_type in types:
            yield each, where


def _issue(finding: Finding, version: FhirVersion, tolerances: Tolerances) -> Issue:
    return Issue(
        "warning" if tolerances.tolerates(finding.kind, version) else "error",
        finding.code,
        finding.expression,
        finding.diagnostics,
    )


def _disagreement_issue(disagreement: Objection, resource_type: str) -> Issue:
    return Issue(
        "warning",
        "library-disagreement",
        below(resource_type, *disagreement.path),
        "HL7's definitions accept this, but the library fhir.resources does not "
        f"({disagreement.kind}). It is sent all the same.",
    )


def _fatal(code: Code, diagnostics: str) -> Report:
    return Report.of([(Issue("fatal", code, "Resource", diagnostics), 1)])
