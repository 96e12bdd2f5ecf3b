"""The person who leaves: erased, at the destination too, while they send and all else goes on.

Nobody else is erased in a run. What is the person's is kept out of the other checks, and looked at
here: nothing of it may be at the destination in the end.
"""

import base64
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from typing import Any

import httpx

from chaos.records import Version

NAME = "person-who-leaves"
RECORD = "leaving-"
"""How the names of their records begin."""

_EVERY = 0.7  # seconds between two of their uploads
_TIMEOUT = 6.0
_PAUSE = 1.0
_NO_ANSWER = 0
_OK, _ACCEPTED, _GONE = httpx.codes.OK, httpx.codes.ACCEPTED, httpx.codes.NOT_FOUND

Resource = Mapping[str, Any]
"""As the sandbox's control API lists it, with bytes."""


class Leaver(threading.Thread):
    """Sends the person's records, and erases the person `after` so many seconds."""

    def __init__(self, urls: Sequence[str], key: str, *, after: float) -> None:
        super().__init__(name="leaver", daemon=True)
        self._urls = cycle(urls)
        self._key = key
        self._after = after
        self._give_up = threading.Event()
        self.sent: list[Version] = []
        self.findings: list[str] = []

    def give_up(self) -> None:
        """Send nothing more, and wait for nothing more."""
        self._give_up.set()

    def run(self) -> None:
        """Send until the time to leave, then erase the person and see them gone."""
        headers = {"Authorization": f"Bearer {self._key}"}
        until = time.monotonic() + self._after
        with httpx.Client(headers=headers, timeout=_TIMEOUT, trust_env=False) as api:
            while time.monotonic() < until and not self._give_up.wait(_EVERY):
                self._send(api)
            self._send_all_again(api)
            while not self._give_up.is_set() and self._erase(api) not in (_OK, _ACCEPTED):
                self._give_up.wait(_PAUSE)
            # An app does not know, and goes on.
            while not self._give_up.is_set():
                if self._send(api) == _ACCEPTED:
                    self.findings.append("a record was accepted of a person who is erased")
                if self._erase(api) in (_OK, _GONE):
                    return
                self._give_up.wait(_PAUSE)
        self.findings.append("the person who left was not erased in the end")

    def _send_all_again(self, api: httpx.Client) -> None:
        """Of what a restored ledger lacks nobody knows: an app sends it again, and then it does.

        Once more, if the ledger is restored meanwhile: a busy machine is late with its faults.
        """
        before, after = "", self._sync_token(api)
        while before != after and not self._give_up.is_set():
            before = after
            for version in list(self.sent):
                while not self._give_up.is_set() and self._post(api, version) != _ACCEPTED:
                    self._give_up.wait(_EVERY)
            after = self._sync_token(api)

    def _sync_token(self, api: httpx.Client) -> str:
        """The person's, as soon as the API tells it; none if the run is given up."""
        while not self._give_up.is_set():
            with suppress(httpx.HTTPError):
                response = api.get(f"{next(self._urls)}/v1/users/{NAME}")
                return str(response.raise_for_status().json()["syncToken"])
            self._give_up.wait(_EVERY)
        return ""

    def _send(self, api: httpx.Client) -> int:
        version = Version(NAME, f"{RECORD}{len(self.sent)}", 1)
        self.sent.append(version)
        return self._post(api, version)

    def _post(self, api: httpx.Client, version: Version) -> int:
        return self._ask(
            api,
            "POST",
            "/v1/uploads",
            params={"user": NAME, "fhirVersion": "R4", "source": "org.example.leaver"},
            content=version.body,
            headers={"Content-Type": "application/fhir+json"},
        )

    def _erase(self, api: httpx.Client) -> int:
        erasure = {"upstream": "delete", "wait": "0"}
        return self._ask(api, "DELETE", f"/v1/users/{NAME}", params=erasure)

    def _ask(self, api: httpx.Client, method: str, path: str, **how: Any) -> int:
        """The status of the answer."""
        try:
            return api.request(method, next(self._urls) + path, **how).status_code
        except httpx.TransportError:
            return _NO_ANSWER


def told_apart(resources: Sequence[Resource]) -> tuple[list[Resource], list[str]]:
    """What is there of the others, and the names of what is there of the leaver."""
    there = [each for each in resources if not each["versions"][-1]["deleted"]]
    theirs = [each for each in there if _is_leavers(each)]
    names = [f"{each['type']}/{each['id']}" for each in theirs]
    return [each for each in there if each not in theirs], names


def _is_leavers(resource: Resource) -> bool:
    return any(NAME.encode() in base64.b64decode(one["bytes"]) for one in resource["versions"])
