"""Validation per record, with and without the second opinion, against fhir.resources alone.

`python -m bench.validation` prints microseconds. The rounds of all judges alternate in one run.
"""

import statistics
import time
from collections.abc import Callable

from tests.uplift.fhir.published import EXAMPLES, examples
from uplift.fhir.second_opinion import objection
from uplift.fhir.types import HEALTHKIT_TYPES
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion

ROUNDS = 5
Judge = Callable[[bytes, FhirVersion, str], object]

JUDGES: dict[str, Judge] = {
    "schema alone": lambda body, version, _: validate(body, version, second_opinion=False),
    "schema and second opinion": lambda body, version, _: validate(body, version),
    "fhir.resources alone": objection,
}


def measure(version: FhirVersion) -> dict[str, dict[str, float]]:
    """Median, 99th percentile and spread of the medians over the rounds, in µs per record."""
    documents = [
        (body, name.partition("-")[0])
        for name, body in examples(version).items()
        if name.partition("-")[0] in HEALTHKIT_TYPES
    ]
    judges = {
        name: judge
        for name, judge in JUDGES.items()
        # It does not know DSTU2.
        if judge is not objection or version is not FhirVersion.DSTU2
    }
    for judge in judges.values():  # compile and import before anything is timed
        for body, resource_type in documents:
            judge(body, version, resource_type)
    times: dict[str, list[list[float]]] = {name: [] for name in judges}
    for _ in range(ROUNDS):
        for name, judge in judges.items():
            taken = []
            for body, resource_type in documents:
                start = time.perf_counter_ns()
                judge(body, version, resource_type)
                taken.append((time.perf_counter_ns() - start) / 1000)
            times[name].append(taken)
    return {name: _summary(rounds) for name, rounds in times.items()}


def _summary(rounds: list[list[float]]) -> dict[str, float]:
    medians = [statistics.median(taken) for taken in rounds]
    return {
        "records": len(rounds[0]),
        "median": statistics.median(medians),
        "p99": statistics.median(statistics.quantiles(taken, n=100)[98] for taken in rounds),
        "spread": max(medians) - min(medians),
    }


def main() -> dict[str, dict[str, dict[str, float]]]:
    """Measure every version, print a table, return the figures."""
    if not EXAMPLES.is_dir():
        print(f"Skipped: HL7's examples are not in {EXAMPLES} (UPLIFT_FHIR_DIR says where).")
        return {}
    print("Validation, µs per record (HL7's examples of the HealthKit types)")
    print(f"{'':8}{'':28}{'records':>8}{'median':>9}{'p99':>9}{'spread':>8}{'ratio':>8}")
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for version in FhirVersion:
        figures[version] = found = measure(version)
        unit = found.get("fhir.resources alone", found["schema alone"])
        for name, row in found.items():
            print(
                f"{version:8}{name:28}{row['records']:8.0f}{row['median']:9.1f}{row['p99']:9.0f}"
                f"{row['spread']:8.1f}{row['median'] / unit['median']:8.2f}"
            )
    print("ratio: to fhir.resources alone; for DSTU2, which it does not know, to the schema alone")
    return figures


if __name__ == "__main__":
    main()
