"""The devices of a chaos run: they send over HTTP until they get 202, and note each 202.

When a person's sync token changes, their devices send the latest version of each record again, as
docs/api.md asks of apps.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson

from chaos.records import Version
from chaos.scenario import Step

_TIMEOUT = 6.0  # seconds without a response; less than a process stays frozen
_MAX_PAUSE = 2.0
# 202: of a batch, lines may be missing in it that a promoted standby has lost.
_RETRY = {202, 408, 409, 429, 500, 502, 503, 504}
_NOBODY = 404  # the backend has not added the person yet, or not again
_LOOK_SECONDS = 1.0
_TOGETHER = 30


@dataclass(frozen=True, slots=True)
class Accepted:
    """One 202, as its device noted it. `at` is Unix time."""

    upload_id: str
    version: Version
    at: float
    duplicate: bool
    in_batch: bool


@dataclass(slots=True)
class DeviceLog:
    """What the devices know: their 202s, the errors they got, and responses nobody expects."""

    accepted: list[Accepted] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Device:
    """Whose it is, the latest version of each record that it sent, and how many changes of the
    sync token it has seen."""

    user: str
    sent: dict[str, Version] = field(default_factory=dict)
    changes: int = 0

    def note(self, step: Step) -> None:
        self.sent |= {version.record: version for version in step.versions}


class Devices(threading.Thread):
    """All devices, each its steps in order, on one event loop in a thread of its own.

    `late` are the people whom the backend adds later.

    A frozen process may process a request after the device's timeout. Then the older version would
    come after a newer one. So a device without an Idempotency-Key sends the newer version of such
    a record only after `nothing_is_frozen`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        key: str,
        plans: Sequence[Sequence[Step]],
        seed: int,
        late: Collection[str] = (),
    ) -> None:
        super().__init__(name="devices", daemon=True)
        self.log = DeviceLog()
        self._urls = list(urls)
        self._key = key
        self._plans = plans
        self._late = frozenset(late)
        self._dice = random.Random(seed)  # noqa: S311
        self._uncertain: set[tuple[str, str]] = set()
        self._people = sorted({_user_of(plan) for plan in plans if plan})
        self._tokens: dict[str, str] = {}
        self._changes: Counter[str] = Counter()  # of each person's sync token
        self._nothing_is_frozen = threading.Event()
        self._give_up = threading.Event()
        self.failure: BaseException | None = None

    def nothing_is_frozen(self) -> None:
        """No process is frozen any more: send the steps that were put off."""
        self._nothing_is_frozen.set()

    def give_up(self) -> None:
        """Send nothing more."""
        self._give_up.set()

    def run(self) -> None:
        """Send everything."""
        try:
            asyncio.run(self._send_all())
        except BaseException as failure:  # noqa: BLE001  reported by the main thread
            self.failure = failure

    async def _send_all(self) -> None:
        began = time.monotonic()
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=httpx.Timeout(_TIMEOUT, connect=2.0),
            trust_env=False,
        ) as http:
            watches = [asyncio.ensure_future(self._watch(http, user)) for user in self._people]
            await asyncio.gather(*(self._follow(http, plan, began) for plan in self._plans if plan))
            for watch in watches:
                watch.cancel()

    async def _follow(self, http: httpx.AsyncClient, plan: Sequence[Step], began: float) -> None:
        device = _Device(_user_of(plan))
        put_off: list[Step] = []
        for step in plan:
            await asyncio.sleep(began + step.at - time.monotonic())
            await self._send_again(http, device)
            if self._must_wait(step):
                put_off.append(step)
            else:
                await self._send(http, step)
                device.note(step)
        # The events belong to threads, so this loop polls them.
        while not self._nothing_is_frozen.is_set() and not self._give_up.is_set():
            await self._send_again(http, device)
            await asyncio.sleep(0.1)
        for step in put_off:
            await self._send(http, step)
            device.note(step)
        # It may have changed since somebody looked.
        while not self._give_up.is_set() and not await self._look(http, device.user):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        await self._send_again(http, device)

    async def _watch(self, http: httpx.AsyncClient, user: str) -> None:
        while True:
            await self._look(http, user)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, http: httpx.AsyncClient, user: str) -> bool:
        """Note the person's sync token; whether there was an answer."""
        try:
            url = f"{self._dice.choice(self._urls)}/v1/users/{user}/summary"
            response = await http.get(url)
        except httpx.TransportError:
            return False
        if response.status_code != httpx.codes.OK:
            return False
        token = response.json()["syncToken"]
        if self._tokens.setdefault(user, token) != token:
            self._tokens[user] = token
            self._changes[user] += 1
        return True

    async def _send_again(self, http: httpx.AsyncClient, device: "_Device") -> None:
        """The latest version of everything, if the person's sync token has changed."""
        while device.changes != self._changes[device.user] and not self._give_up.is_set():
            device.changes = self._changes[device.user]
            latest = list(device.sent.values())
            self.log.errors["sent again for a sync token"] += len(latest)
            for first in range(0, len(latest), _TOGETHER):
                versions = tuple(latest[first : first + _TOGETHER])
                await self._until_accepted(http, Step(at=0.0, versions=versions))

    def _must_wait(self, step: Step) -> bool:
        waits = any((each.user, each.record) in self._uncertain for each in step.versions)
        if waits:
            # Later versions of these records wait as well.
            self._uncertain |= {(each.user, each.record) for each in step.versions}
            self.log.errors["step put off"] += 1
        return waits

    async def _send(self, http: httpx.AsyncClient, step: Step) -> None:
        await asyncio.gather(*(self._until_accepted(http, step) for _ in range(1 + step.twin)))
        if step.again:
            await self._until_accepted(http, step)

    async def _until_accepted(self, http: httpx.AsyncClient, step: Step) -> None:
        send = self._send_batch if len(step.versions) > 1 else self._send_single
        tries = 0
        while not self._give_up.is_set():
            pause = min(_MAX_PAUSE, 0.2 * 2**tries) * self._dice.random()
            tries += 1
            try:
                response = await send(http, self._dice.choice(self._urls), step)
                if response.status_code == httpx.codes.ACCEPTED and self._note(response, step):
                    return
            except httpx.TimeoutException as error:
                self._count(type(error).__name__)
                if step.key is None and not isinstance(error, httpx.ConnectTimeout):
                    self._uncertain |= {(each.user, each.record) for each in step.versions}
            except httpx.TransportError as error:
                self._count(type(error).__name__)
            except (ValueError, KeyError) as error:
                self.log.unexpected.append(f"{step.versions[0].record}: {error!r}")
                return
            else:
                self._count(f"http_{response.status_code}")
                if response.status_code not in _RETRY and not self._is_unknown(response, step):
                    problem = (
                        f"{datetime.now(UTC):%H:%M:%S} {step.versions[0].user}"
                        f" {step.versions[0].record}: {response.status_code} {response.text[:300]}"
                    )
                    self.log.unexpected.append(problem)
                    return
                asked = response.headers.get("retry-after", "")
                pause += float(asked) if asked.isdigit() else 0.0
            await asyncio.sleep(pause)
        self.log.unexpected.append(f"{step.versions[0].record}: never accepted")

    def _is_unknown(self, response: httpx.Response, step: Step) -> bool:
        return response.status_code == _NOBODY and step.versions[0].user in self._late

    def _count(self, what: str) -> None:
        self.log.errors[what] += 1

    async def _send_single(self, http: httpx.AsyncClient, url: str, step: Step) -> httpx.Response:
        version = step.versions[0]
        return await http.post(
            f"{url}/v1/uploads",
            params=_labels(version) | {"recordId": version.record},
            content=version.body,
            headers={"Content-Type": "application/fhir+json"}
            | ({"Idempotency-Key": f'"{step.key}"'} if step.key else {}),
        )

    async def _send_batch(self, http: httpx.AsyncClient, url: str, step: Step) -> httpx.Response:
        return await http.post(
            f"{url}/v1/batches",
            params=_labels(step.versions[0]),
            content=b"".join(
                b'{"recordId":%b,"resource":%b}\n' % (orjson.dumps(each.record), each.body)
                for each in step.versions
            ),
            headers={"Content-Type": "application/x-ndjson"},
        )

    def _note(self, response: httpx.Response, step: Step) -> bool:
        """Note what was accepted; False if a line of a batch was not, so it must be sent again."""
        now, body = time.time(), response.json()
        if len(step.versions) == 1:
            accepted = [(step.versions[0], body)]
        else:
            lines: dict[int, dict[str, Any]] = {line["line"]: line for line in body["lines"]}
            accepted = [
                (version, lines[number])
                for number, version in enumerate(step.versions, start=1)
                if number in lines and "id" in lines[number]
            ]
        self.log.accepted += [
            Accepted(line["id"], version, now, line["duplicate"], len(step.versions) > 1)
            for version, line in accepted
        ]
        return len(accepted) == len(step.versions)


def _user_of(plan: Sequence[Step]) -> str:
    return plan[0].versions[0].user


def _labels(version: Version) -> dict[str, str]:
    return {
        "user": version.user,
        "fhirVersion": "R4",
        "source": f"org.example.{version.user}",
    }
