"""The logins of a deployment: none, basic, a token from a file, and what a 401 does."""

import os
from pathlib import Path
from typing import cast

import pytest
from pydantic import SecretStr

from uplift.destinations.destination import BasicLogin
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import LoginFailed
from uplift.tokens.logins import DeploymentAccess, FileLogin, FixedLogin
from uplift.tokens.person import AccessToken, Person

STORED = Response(ResponseKind.STORED, "http_201", 201)
REFUSED = Response(ResponseKind.UNAUTHORIZED, "http_401", 401)
NOBODY = cast("Person", None)  # no login of a deployment asks who it is


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Rotating:
    """Gives another token after each refusal, up to the last."""

    def __init__(self, *values: str) -> None:
        self._values = list(values)

    async def token(self, *, refused: AccessToken | None = None) -> AccessToken:
        if refused is not None and len(self._values) > 1:
            self._values.pop(0)
        return AccessToken(self._values[0], 0)

    async def close(self) -> None: ...


async def asked_with(access: DeploymentAccess, *responses: Response) -> tuple[list[str], Response]:
    """The headers that it asked with, and the response in the end."""
    waiting, headers = list(responses), []

    async def ask(token: AccessToken) -> Response:
        headers.append(token.authorization)
        return waiting.pop(0)

    return headers, await access.with_token(NOBODY, ask)


async def test_no_login_sends_no_header() -> None:
    assert await asked_with(DeploymentAccess(FixedLogin()), STORED) == ([""], STORED)


async def test_basic_sends_the_name_and_the_password() -> None:
    # RFC 7617, 2
    login = BasicLogin("Aladdin", SecretStr("open sesame"))
    access = DeploymentAccess(FixedLogin.basic(login))
    assert await asked_with(access, STORED) == (["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="], STORED)


async def test_after_a_401_it_asks_once_more_with_another_token() -> None:
    access = DeploymentAccess(Rotating("old", "new"))
    assert await asked_with(access, REFUSED, STORED) == (["Bearer old", "Bearer new"], STORED)


async def test_a_second_401_stands() -> None:
    headers, response = await asked_with(
        DeploymentAccess(Rotating("old", "new", "newer")), REFUSED, REFUSED
    )
    assert (len(headers), response) == (2, REFUSED)


async def test_with_the_same_token_it_does_not_ask_again() -> None:
    headers, response = await asked_with(DeploymentAccess(Rotating("only")), REFUSED)
    assert (headers, response) == (["Bearer only"], REFUSED)


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file, clock = tmp_path / "token", Clock()
    file.write_text("first\n")
    login = FileLogin(file, now=clock)
    assert (await login.token()).value == "first"
    file.write_text("another")
    assert (await login.token()).value == "first", "it looks once a second"
    clock.now = 1.0
    assert (await login.token()).value == "another"


async def test_a_replaced_file_is_seen_though_it_has_the_same_time_and_size(
    tmp_path: Path,
) -> None:
    file, clock = tmp_path / "token", Clock()
    file.write_text("old")
    login = FileLogin(file, now=clock)
    await login.token()
    (tmp_path / "next").write_text("new")
    os.utime(tmp_path / "next", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    (tmp_path / "next").replace(file)
    clock.now = 2.0
    assert (await login.token()).value == "new"


async def test_a_refused_token_has_the_file_looked_at_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    login = FileLogin(file, now=Clock())
    old = await login.token()
    file.write_text("newer")
    assert (await login.token(refused=old)).value == "newer"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "token_file_unreadable"),
        (b"\xff", "token_file_unreadable"),
        (b" \n", "token_file_empty"),
    ],
)
async def test_a_file_without_a_token_is_the_deployments_fault(
    tmp_path: Path, content: bytes | None, code: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LoginFailed) as raised:
        await FileLogin(file).token()
    assert raised.value.code == code
