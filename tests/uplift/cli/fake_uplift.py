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
    labels: dict[str, str]
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
            "fhirVersion": self.labels["fhirVersion"],
            "resourceType": json.loads(self.body).get("resourceType"),
            "attempts": 1,
            "duplicate": duplicate,
            "issues": self.issues,
            "lastResponse": None,
            "createdAt": "2026-11-23T10:00:00Z",
            "updatedAt": "2026-11-23T10:00:01Z",
            "statusUrl": f"/v1/uploads/{self.id}",
        }


class FakeUplift:
    """Settles each upload with `judge` after it was listed `looks` times."""

    def __init__(self) -> None:
        self.url = ""
        self.uploads: list[Upload] = []
        self.requests: list[tuple[str, str, str]] = []
        self.content_types: set[str] = set()
        self.empty_searches = 0
        self.page_size = 500
        self.listed = True
        self.judge: Callable[[Upload], None] = deliver
        self.judge_line: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: None
        self.before: Callable[[Request], Response | None] = lambda _: None
        self._known: dict[tuple[str, ...], Upload] = {}

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/batches", self._submit, methods=["POST"]),
                Route("/v1/uploads", self._list, methods=["GET"]),
                Route("/v1/uploads/{id}", self._one, methods=["GET"]),
            ]
        )

    def _refuses(self, request: Request) -> Response | None:
        self.requests.append((request.method, request.url.path, request.url.query))
        if (response := self.before(request)) is not None:
            return response
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(401, "Unauthorized")
        if request.query_params.get("user", USER) != USER:
            return problem(404, "Not Found")
        return None

    async def _submit(self, request: Request) -> Response:
        lines = (await request.body()).splitlines()
        if (response := self._refuses(request)) is not None:
            return response
        self.content_types.add(request.headers["Content-Type"])
        outcomes = [self._take(number, line) for number, line in enumerate(lines, start=1)]
        return self._answer(202, {"id": "b-1", "user": USER, "lines": outcomes})

    def _take(self, number: int, line: bytes) -> dict[str, Any]:
        envelope = json.loads(line)
        if (problem := self.judge_line(envelope)) is not None:
            return {"line": number, "problem": problem}
        upload, duplicate = self._accept(line, envelope)
        return {
            "line": number, "id": upload.id, "status": upload.status, "duplicate": duplicate,
        }  # fmt: skip

    def _accept(self, line: bytes, envelope: dict[str, Any]) -> tuple[Upload, bool]:
        # What stands in the line, to the byte.
        body = line[line.index(b',"resource":') + len(b',"resource":') : -1]
        resource = envelope.pop("resource")
        identity = (
            envelope["fhirVersion"],
            envelope.get("source", ""),
            envelope.get("recordId", str(resource.get("id"))),
            resource["resourceType"],
            body.decode(),
        )
        if (known := self._known.get(identity)) is not None:
            return known, True
        upload = Upload(f"u-{len(self.uploads):06}", body, envelope, looks_left=self.empty_searches)
        self.uploads.append(upload)
        self._known[identity] = upload
        return upload, False

    async def _list(self, request: Request) -> Response:
        if (response := self._refuses(request)) is not None:
            return response
        start = int(request.query_params.get("after", "0"))
        limit = min(int(request.query_params.get("limit", "100")), self.page_size)
        page = self.uploads[start : start + limit] if self.listed else []
        for upload in page:
            self._age(upload)
        more = start + limit < len(self.uploads) and self.listed
        link = f"/v1/uploads?user={USER}&limit={limit}&after={start + limit}" if more else None
        return self._answer(200, {"uploads": [each.to_json() for each in page], "next": link})

    async def _one(self, request: Request) -> Response:
        if (response := self._refuses(request)) is not None:
            return response
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
