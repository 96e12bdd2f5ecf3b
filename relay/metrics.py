"""What a process counts, by Prometheus' names and units. Labels are bounded, and never an id."""

from prometheus_client import Counter

library_disagreements = Counter(
    "uplift_library_disagreements_total",
    "Records that the schemas accept and fhir.resources does not.",
    ["fhir_version"],
)

user_calls = Counter(
    "uplift_user_calls_total",
    "User-management calls: made, refused by 1upHealth's limit, or withheld because of it.",
    ["outcome"],
)

tokens_renewed = Counter(
    "uplift_tokens_renewed_total",
    "Tokens that replaced older ones, by what they were traded for: refresh or code.",
    ["by"],
)

grants_ended = Counter(
    "uplift_grants_ended_total",
    "Grants that 1upHealth no longer accepts: each needs the person. By who obtained them.",
    ["origin"],
)

uploads_parked = Counter(
    "uplift_uploads_parked_total",
    "Uploads that began to wait for a person's grant.",
)
