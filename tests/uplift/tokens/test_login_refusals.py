"""Why a token endpoint gave no token: the deployment's fault, or a matter of time."""

from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest

from uplift.errors import LoginFailed
from uplift.tokens.login_refusals import login_refusal

NOW = 1_790_000_000.0


def refusal_code(
    status: int, said: dict[str, str], *, signed: bool = True, ahead: float = 0
) -> str:
    date = format_datetime(datetime.fromtimestamp(NOW + ahead, UTC), usegmt=True)
    error = login_refusal(status, said, httpx.Headers({"Date": date}), signed=signed, now=NOW)
    return error.code if isinstance(error, LoginFailed) else f"later: {error.code}"


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (401, {"error": "invalid_client"}, "invalid_client"),
        (400, {"error": "invalid_scope"}, "invalid_scope"),
        (400, {"error": "invalid_scope", "error_description": "no key"}, "invalid_scope"),
        (400, {"error": "unauthorized_client"}, "unauthorized_client"),
        (400, {"error": "unsupported_grant_type"}, "unsupported_grant_type"),
        (400, {"error": "invalid_grant"}, "invalid_grant"),
        (400, {"error": "<b>invented</b>"}, "http_400"),
        (400, {}, "http_400"),
        (403, {}, "http_403"),
        (404, {}, "http_404"),
        (422, {}, "http_422"),
        (302, {}, "http_302"),
        (200, {}, "later: http_200"),
        (408, {}, "later: http_408"),
        (429, {}, "later: http_429"),
        (500, {"error": "invalid_client"}, "later: http_500"),
        (503, {}, "later: http_503"),
        (400, {"error": "temporarily_unavailable"}, "later: http_400"),
    ],
)
def test_a_status_and_an_error_say_who_must_do_something(
    status: int, said: dict[str, str], code: str
) -> None:
    assert refusal_code(status, said) == code


@pytest.mark.parametrize(
    ("description", "code"),
    [
        # sekmet, Google, Keycloak, Medplum, Aidbox: their words, or like them.
        ("client_assertion verification failed: Signature verification failed", "unknown_key"),
        ("Invalid JWT Signature.", "unknown_key"),
        ("Unable to load public key", "unknown_key"),
        ("no applicable key found in the JSON Web Key Set", "unknown_key"),
        ("Unknown kid: abc", "unknown_key"),
        ("JWKS has no such key", "unknown_key"),
        ("exp must be no more than 5 minutes in the future", "clock_skew"),
        ("Token must be in a reasonable timeframe. Check your iat and exp", "clock_skew"),
        ("The client has expired", "invalid_client"),
        ("Unknown client_id 'uplift'", "invalid_client"),
        ("monkey business", "invalid_client"),
        ("", "invalid_client"),
    ],
)
def test_words_of_a_description_tell_more_where_something_was_signed(
    description: str, code: str
) -> None:
    said = {"error": "invalid_client", "error_description": description}
    assert refusal_code(401, said) == code
    assert refusal_code(401, said, signed=False) == "invalid_client"


@pytest.mark.parametrize(("ahead", "code"), [(600, "clock_skew"), (-600, "clock_skew"), (20, "")])
def test_the_servers_time_tells_a_wrong_clock(ahead: float, code: str) -> None:
    said = {"error": "invalid_grant"}
    assert refusal_code(400, said, ahead=ahead) == (code or "invalid_grant")


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Nov 99999 00:00:00 GMT"])
def test_a_server_without_a_time_says_nothing_of_the_clock(date: str) -> None:
    headers = httpx.Headers({"Date": date})
    error = login_refusal(401, {"error": "invalid_client"}, headers, signed=True, now=NOW)
    assert error.code == "invalid_client"


def test_the_time_that_a_busy_endpoint_names_is_kept() -> None:
    headers = httpx.Headers({"Retry-After": "7"})
    assert login_refusal(429, {}, headers, signed=True, now=NOW).retry_after == 7
