"""Writes the catalogue of docs/validation.md: `python -m uplift.cli.pages.deviations`.

A test keeps the page equal to the catalogue.
"""

import sys
from collections.abc import Set

from uplift.fhir.deviations import CATALOGUE, Deviation
from uplift.fhir.versions import FhirVersion


def table() -> str:
    """A row of Markdown for each deviation, in the order of the catalogue."""
    rows = [
        f"| `{each.kind}` | {each.what} | {each.sender} | {_listed(each.versions)} |"
        f" {_default(each)} |"
        for each in CATALOGUE
    ]
    head = ["| kind | what | who sends it | versions | default |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _listed(versions: Set[FhirVersion]) -> str:
    if versions == set(FhirVersion):
        return "all"
    return ", ".join(each for each in FhirVersion if each in versions)


def _default(deviation: Deviation) -> str:
    tolerated = deviation.tolerated & deviation.versions
    if not tolerated:
        return "error"
    if tolerated == deviation.versions:
        return "warning"
    return f"warning in {_listed(tolerated)}, else error"


if __name__ == "__main__":
    sys.stdout.write(table())
