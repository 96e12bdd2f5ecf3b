"""How the deployment logs in at a sandbox that is like HAPI."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import httpx

from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

SECRET = ("sandbox-client", "sandbox-secret")


@contextmanager
def asking(auth: Literal["basic", "bearer", "client_credentials"]) -> Iterator[httpx.Client]:
    with (
        SandboxServer(SandboxConfig(like="hapi", auth=auth)) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield client


def test_a_name_and_a_secret_are_asked_for() -> None:
    with asking("basic") as client:
        refused = client.get("/r4/Patient")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Basic")
        assert client.get("/r4/Patient", auth=("sandbox-client", "wrong")).status_code == 401
        assert client.get("/r4/Patient", auth=SECRET).status_code == 200
        assert client.get("/r4/metadata").status_code == 200


def test_a_fixed_token_is_asked_for() -> None:
    with asking("bearer") as client:
        for token, status in (("wrong", 401), ("sandbox-secret", 200)):
            headers = {"Authorization": f"Bearer {token}"}
            assert client.get("/dstu2/Patient", headers=headers).status_code == status


def test_a_token_is_given_for_the_secret_in_the_header_or_in_the_form() -> None:
    form = {"grant_type": "client_credentials"}
    post = {"client_id": SECRET[0], "client_secret": SECRET[1]}
    with asking("client_credentials") as client:
        for answer in (
            client.post("/oauth2/token", data=form, auth=SECRET),
            client.post("/oauth2/token", data=form | post),
        ):
            assert answer.json()["expires_in"] == 7200
            headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            assert client.get("/r4/Patient", headers=headers).status_code == 200
        assert client.get("/r4/Patient").status_code == 401
        wrong = client.post("/oauth2/token", data=form, auth=("sandbox-client", "wrong"))
        assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
        other = client.post("/oauth2/token", data={"grant_type": "code"}, auth=SECRET)
        assert other.json()["error"] == "unsupported_grant_type"
