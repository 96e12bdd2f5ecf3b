"""Starts a sandbox inside a test process, and talks to any sandbox's control API."""

import base64
import threading
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import httpx

from uplift.sandbox.app import create_app
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.server import SandboxProcess, listen, url_of


class SandboxControl:
    """The control API of a running sandbox, by its URL and its control token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(
            base_url=f"{url}/_sandbox", headers=self.headers, trust_env=False, timeout=30
        )

    @property
    def fhir_url(self) -> str:
        """The FHIR base address for Uplift."""
        return self.url

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.url}/oauth2/token"

    @property
    def users_url(self) -> str:
        """User management."""
        return f"{self.url}/user-management/v1/user"

    def faults(self, *rules: dict[str, Any]) -> None:
        """Replace the rules in force by these. Raises ValueError for an unknown one."""
        self._ask("PUT", "/faults", json=list(rules))

    def add_faults(self, *rules: dict[str, Any]) -> None:
        """Add rules after those in force."""
        self._ask("POST", "/faults", json=list(rules))

    def fault_rules(self) -> list[dict[str, Any]]:
        """The rules in force, with how often each `matched` and `fired`."""
        return list(self._ask("GET", "/faults")["faults"])

    def clear_faults(self) -> None:
        """End every rule."""
        self._ask("DELETE", "/faults")

    def resources(self, **filters: str) -> list[dict[str, Any]]:
        """What is stored. Filters: `user`, `version`, `type`, `id`."""
        return list(self._ask("GET", "/resources", params=filters)["resources"])

    def stored_bytes(self, **filters: str) -> list[bytes]:
        """The bytes of every stored version, as they were received."""
        found = self._ask("GET", "/resources", params={**filters, "bytes": "1"})["resources"]
        return [base64.b64decode(one["bytes"]) for each in found for one in each["versions"]]

    def counts(self, **filters: str) -> dict[str, Any]:
        """`total` and `by`: resources, versions, duplicates. Filters: `user`, `version`, `type`."""
        return self._ask("GET", "/counts", params=filters)

    def requests(self, *, after: int = 0, api: str | None = None) -> list[dict[str, Any]]:
        """The request log, oldest first. `api`: `fhir`, `token`, `user-management`, `none`."""
        params = {"after": str(after)} | ({"api": api} if api else {})
        return list(self._ask("GET", "/requests", params=params)["requests"])

    def grant(self, app_user_id: str) -> dict[str, Any]:
        """A fresh `oneup_user_id`, `access_token`, `refresh_token`, `expires_in`, by consent."""
        return self._ask("POST", "/grants", json={"app_user_id": app_user_id})

    def reset(self) -> None:
        """Forget users, tokens, resources, rules and requests."""
        self._ask("POST", "/reset")

    def close(self) -> None:
        """Close the control connection."""
        self._http.close()

    def _ask(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        response = self._http.request(method, path, **how)
        if response.status_code == httpx.codes.BAD_REQUEST:
            raise ValueError(response.text)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found


class SandboxServer(SandboxControl):
    """A sandbox on a free loopback port, in a thread of its own, for one `with` block.

    >>> with SandboxServer(SandboxConfig(ids="assigned")) as sandbox:
    ...     uplift.sandbox.faults({"kind": "cut", "commit": True, "count": 1})
    """

    def __init__(self, config: SandboxConfig | None = None) -> None:
        # Only this process can have its token.
        self.config = replace(config or SandboxConfig(), show_bytes=True)
        self._listener = listen()
        super().__init__(url_of(self._listener), self.config.control_token)
        self._started = threading.Event()
        self._server = SandboxProcess(create_app(self.config), self._started.set)
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])

    def start(self) -> None:
        """Start the thread and wait until it listens. Raises RuntimeError after 10 s."""
        self._thread.start()
        if not self._started.wait(10):
            self.stop()
            raise RuntimeError(f"The sandbox did not start on {self.url} within 10 s")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server, cut what is open, and wait for its thread."""
        self.close()
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(15)
        self._listener.close()
        if self._thread.is_alive():
            raise RuntimeError(f"The sandbox on {self.url} did not stop within 15 s")
