"""What a process counts, by Prometheus' names and units. Labels are bounded, and never an id."""

from prometheus_client import Counter

library_disagreements = Counter(
    "uplift_library_disagreements_total",
    "Records that the schemas accept and fhir.resources does not.",
    ["fhir_version"],
)
