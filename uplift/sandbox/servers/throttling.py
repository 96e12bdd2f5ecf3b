"""What a response says about how many requests are left.

https://www.rfc-editor.org/rfc/rfc6585#section-4 and
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from uplift.sandbox.servers.profile import Profile

_LEFT = 49_000
_PERIOD = 60


def throttle_headers(profile: Profile, status: int, wait: float | None = None) -> dict[str, str]:
    """The headers of a response with that status. `wait` is how long a 429 lasts, in seconds."""
    too_many = status == 429
    match profile.throttle:
        case "retry_after" if too_many:
            return {"Retry-After": f"{wait if wait is not None else 1:g}"}
        case "rate_limit":
            left = 0 if too_many else _LEFT
            until = wait if too_many and wait is not None else _PERIOD
            return {"RateLimit": f'"fhirInteractions";r={left};t={until:g}'}
    return {}
