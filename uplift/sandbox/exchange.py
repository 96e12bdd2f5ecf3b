"""One request as the sandbox sees it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from urllib.parse import parse_qs

import orjson
from starlette.requests import Request

from uplift.sandbox.accounts import Account

Api = Literal["fhir", "token", "user-management", "none"]
"""Which part of 1upHealth a path belongs to."""


@dataclass
class Exchange:
    """A request that has been read whole."""

    number: int
    request: Request
    api: Api
    body: bytes
    account: Account | None = None
    """The owner of its credentials, if known."""
    stored: str | None = None
    """`Type/id/_history/version` of what handling it committed."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.request.method

    @property
    def path(self) -> str:
        """The path, without the query."""
        return str(self.request.scope["path"])

    @property
    def version(self) -> str | None:
        """The FHIR version segment of the path."""
        return self.request.path_params.get("version") if self.api == "fhir" else None

    @property
    def resource_type(self) -> str | None:
        """The resource type in the path."""
        return self.request.path_params.get("type") if self.api == "fhir" else None

    @cached_property
    def resource_id(self) -> str | None:
        """The id in the path, else the one in the body."""
        if self.api != "fhir":
            return None
        if (in_path := self.request.path_params.get("id")) is not None:
            return str(in_path)
        sent = self.json.get("id") if isinstance(self.json, dict) else None
        return sent if isinstance(sent, str) else None

    @cached_property
    def json(self) -> Any:
        """The body's JSON; None when it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @cached_property
    def params(self) -> dict[str, str]:
        """Query and form fields together; the form wins."""
        fields = dict(self.request.query_params)
        if self.request.headers.get("content-type", "").startswith(
            "application/x-www-form-urlencoded"
        ):
            form = parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)
            fields.update({name: values[-1] for name, values in form.items()})
        return fields

    @property
    def base(self) -> str:
        """The FHIR base that the client used, with the version: for links."""
        host = self.request.headers.get("host", "localhost")
        prefix = "/fhir" if self.path.startswith("/fhir/") else ""
        return f"{self.request.scope['scheme']}://{host}{prefix}/{self.version}"
