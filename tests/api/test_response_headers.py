"""Headers that every answer has, who may read answers in a browser, and the page /docs."""

import re

import httpx
import pytest
from fastapi import FastAPI

from tests.api.calls import NOBODYS_ID, submit
from uplift.api.app import create_app
from uplift.settings import Settings

_ORIGIN = "https://app.example.org"
_FILES = ("docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css")


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://uplift")


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/openapi.json", "/docs", "/v1/uploads", "/nowhere", f"/v1/uploads/{NOBODYS_ID}",
     "/v1/users/a%2Fb", "/v1/users/alice/fhir/R4/Patient"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_no_answer_is_sniffed_or_stored(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, path: str, method: str
) -> None:
    for caller in (client, anybody):
        response = await caller.request(method, path)
        assert response.headers.get_list("X-Content-Type-Options") == ["nosniff"]
        assert response.headers.get_list("Cache-Control") == ["no-store"]


async def test_a_status_is_not_stored_and_its_etag_works_all_the_same(
    client: httpx.AsyncClient, alice: str
) -> None:
    made = await submit(client, alice)
    shown = await client.get(made["statusUrl"])
    same = await client.get(made["statusUrl"], headers={"If-None-Match": shown.headers["ETag"]})
    assert (shown.status_code, same.status_code) == (200, 304)
    assert {each.headers["Cache-Control"] for each in (shown, same)} == {"no-store"}


async def test_a_device_token_is_not_stored(client: httpx.AsyncClient, alice: str) -> None:
    response = await client.post(f"/v1/users/{alice}/device-tokens", json={"expiresIn": 60})
    assert response.headers["Cache-Control"] == "no-store"


async def test_the_page_and_its_files_name_no_other_host(anybody: httpx.AsyncClient) -> None:
    page = await anybody.get("/docs")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert loaded == ["data:,", "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"]
    assert "//" not in page.text
    assert "//" not in (await anybody.get("/docs/start.js")).text
    style = (await anybody.get("/docs/swagger-ui.css")).text
    assert set(re.findall(r"(?:url\(|@import)\s*[\"']?(\w*)", style)) <= {"data"}


async def test_the_policy_of_the_page_allows_no_other_host(anybody: httpx.AsyncClient) -> None:
    policy = (await anybody.get("/docs")).headers["Content-Security-Policy"]
    named = dict(each.split(maxsplit=1) for each in policy.split("; "))
    assert named["default-src"] == "'none'"
    assert named["script-src"] == named["connect-src"] == "'self'"
    assert named["frame-ancestors"] == "'none'"
    assert not re.search(r"https?:|\*", policy)


async def test_the_files_of_the_page_are_there_and_may_be_kept(anybody: httpx.AsyncClient) -> None:
    for path in _FILES:
        response = await anybody.get(f"/{path}")
        assert response.status_code == 200
        assert response.headers["Content-Type"].split(";")[0] in ("text/javascript", "text/css")
        assert response.headers["Cache-Control"] == "public, max-age=86400"


async def test_fastapis_own_pages_are_gone(anybody: httpx.AsyncClient) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert (await anybody.get(path)).status_code == 404


async def test_by_default_no_other_page_may_call_the_api(anybody: httpx.AsyncClient) -> None:
    response = await anybody.get("/healthz", headers={"Origin": _ORIGIN})
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_a_page_of_a_listed_origin_may_call_the_api_and_no_other_page(
    settings: Settings,
) -> None:
    allowing = settings.model_copy(update={"cors_origins": f"http://localhost:3000,{_ORIGIN}"})
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    async with client_of(create_app(allowing)) as client:
        asked = await client.options("/v1/uploads", headers={"Origin": _ORIGIN, **preflight})
        answered = await client.get("/healthz", headers={"Origin": _ORIGIN})
        other = await client.get("/healthz", headers={"Origin": "https://app.example.org.evil.net"})
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == _ORIGIN
    assert "X-Request-ID" in asked.headers
    assert asked.headers["X-Content-Type-Options"] == "nosniff"
    assert answered.headers["Access-Control-Allow-Origin"] == _ORIGIN
    assert "Location" in answered.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answered.headers
    assert "Access-Control-Allow-Origin" not in other.headers
