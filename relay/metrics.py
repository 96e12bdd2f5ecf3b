"""What a process counts, by Prometheus' names and units. Labels are bounded, and never an id."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, start_http_server

from relay.errors import ConfigurationError
from relay.settings import Settings

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


@contextmanager
def served(settings: Settings) -> Iterator[None]:
    """Within, operators can read this process's counts at `/metrics` of UPLIFT_METRICS_PORT.

    Does nothing if no port is set. Raises ConfigurationError if the port cannot be had.
    """
    if settings.metrics_port is None:
        yield
        return
    try:
        server, thread = start_http_server(settings.metrics_port, addr=settings.metrics_host)
    except OSError as error:
        raise ConfigurationError(
            f"UPLIFT_METRICS_PORT {settings.metrics_port} cannot be listened on"
            f" ({error.strerror}). Each process needs one of its own."
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
