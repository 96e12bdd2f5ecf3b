"""An Uplift API over real loopback HTTP that does what docs/api.md says and remembers the bytes."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "uplift_test_key"
USER = "alice"


@dataclass
class Upload:
    """One accepted upload."""

    id: str
    body: bytes
    query: dict[str, str]
    status: str = "queued"
    looks_left: int = 0
    issues: dict[str, Any] = field(default_factory=lambda: {"total": 0, "issue": []})
    reason: str | None = None

    def to_json(self, *, duplicate: bool = False) -> dict[str, Any]:
        """The status of docs/api.md."""
        return {
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "final": self.status not in ("queued", "sending", "parked"),
            "user": USER,
            "fhirVersion": self.query["fhirVersion"],
            "resourceType": json.loads(self.body).get("resourceType"),
            "attempts": 1,
            "duplicate": duplicate,
            "issues": self.issues,
            "lastAnswer": None,
            "statusUrl": f"/v1/uploads/{self.id}",
        }


class FakeUplift:
    """Settles each upload with `judge` after it was listed `looks` times."""

    def __init__(self) -> None:
        self.url = ""
        self.uploads: list[Upload] = []
        self.requests: list[tuple[str, str, str]] = []
        self.content_types: set[str] = set()
        self.looks = 0
        self.page_size = 500
        self.listed = True
        self.judge: Callable[[Upload], None] = deliver
        self.before: Callable[[Request], Response | None] = lambda _: None
        self._known: dict[tuple[str, ...], Upload] = {}

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/uploads", self._submit, methods=["POST"]),
                Route("/v1/uploads", self._list, methods=["GET"]),
                Route("/v1/uploads/{id}", self._one, methods=["GET"]),
            ]
        )

    def _refuses(self, request: Request) -> Response | None:
        self.requests.append((request.method, request.url.path, request.url.query))
        if (answer := self.before(request)) is not None:
            return answer
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(401, "Unauthorized")
        if request.query_params.get("user", USER) != USER:
            return problem(404, "Not Found")
        return None

    async def _submit(self, request: Request) -> Response:
        body = await request.body()
        if (answer := self._refuses(request)) is not None:
            return answer
        self.content_types.add(request.headers["Content-Type"])
        query = dict(request.query_params)
        resource_id = str(json.loads(body).get("id"))
        identity = (
            query["fhirVersion"],
            query.get("source", ""),
            query.get("recordId", resource_id),
            json.loads(body)["resourceType"],
        )
        known = self._known.get((*identity, body.decode()))
        if known is not None:
            return self._answer(202, known.to_json(duplicate=True))
        upload = Upload(f"u-{len(self.uploads):06}", body, query, looks_left=self.looks)
        self.uploads.append(upload)
        self._known[(*identity, body.decode())] = upload
        return self._answer(202, upload.to_json())

    async def _list(self, request: Request) -> Response:
        if (answer := self._refuses(request)) is not None:
            return answer
        start = int(request.query_params.get("after", "0"))
        limit = min(int(request.query_params.get("limit", "100")), self.page_size)
        page = self.uploads[start : start + limit] if self.listed else []
        for upload in page:
            self._age(upload)
        more = start + limit < len(self.uploads) and self.listed
        link = f"/v1/uploads?user={USER}&limit={limit}&after={start + limit}" if more else None
        return self._answer(200, {"uploads": [each.to_json() for each in page], "next": link})

    async def _one(self, request: Request) -> Response:
        if (answer := self._refuses(request)) is not None:
            return answer
        for upload in self.uploads:
            if upload.id == request.path_params["id"]:
                self._age(upload)
                return self._answer(200, upload.to_json())
        return problem(404, "Not Found")

    def _age(self, upload: Upload) -> None:
        if upload.status == "queued":
            if upload.looks_left <= 0:
                self.judge(upload)
            upload.looks_left -= 1

    @staticmethod
    def _answer(status: int, content: dict[str, Any]) -> Response:
        return JSONResponse(content, status_code=status)


def deliver(upload: Upload) -> None:
    """Every upload arrives."""
    upload.status = "delivered"


def problem(status: int, title: str, headers: dict[str, str] | None = None) -> Response:
    """An RFC 9457 answer."""
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": f"{title} (detail)"},
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


@contextmanager
def serving(fake: FakeUplift) -> Iterator[FakeUplift]:
    """`fake` listens on a free port of loopback, in a thread, until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(fake.app(), log_config=None, lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield fake
        finally:
            server.should_exit = True
            thread.join(timeout=10)
