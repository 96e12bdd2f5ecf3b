"""The time in an id. Uplift's ids are UUIDv7, made by the machine that accepted what they name."""

from uuid import UUID

VERSION = 7


def seconds_of(id_: UUID) -> float:
    """When a UUIDv7 was made, in seconds since 1970, to the millisecond (RFC 9562, 5.7)."""
    return (id_.int >> 80) / 1000
