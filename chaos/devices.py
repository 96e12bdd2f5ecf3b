"""The devices of a storm: they send over HTTP until they are told 202, and write down each one."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from chaos.records import Version
from chaos.scenario import Step

_PATIENCE = 6.0  # seconds without an answer; less than a process stays frozen
_MAX_PAUSE = 2.0
_LATER = {408, 409, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Told:
    """One 202, as its device wrote it down. `at` is Unix time."""

    upload_id: str
    version: Version
    at: float
    duplicate: bool
    in_batch: bool


@dataclass(slots=True)
class Diary:
    """What the devices know: the 202s, what they met besides, and what they could not send."""

    told: list[Told] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Devices(threading.Thread):
    """All devices, each its steps in order, on one event loop in a thread of its own.

    A request that got no answer in time may be taken up later, by a process that was frozen.
    A changed version that overtook it would be undone by it; so without an Idempotency-Key a
    device changes such a record only once `calm` says that nothing is frozen any more.
    """

    def __init__(
        self, urls: Sequence[str], key: str, scripts: Sequence[Sequence[Step]], seed: int
    ) -> None:
        super().__init__(name="devices", daemon=True)
        self.diary = Diary()
        self._urls = list(urls)
        self._key = key
        self._scripts = scripts
        self._dice = random.Random(seed)  # noqa: S311
        self._uncertain: set[tuple[str, str]] = set()
        self._calm = threading.Event()
        self._leave = threading.Event()
        self.failure: BaseException | None = None

    def calm(self) -> None:
        """Nothing is frozen any more."""
        self._calm.set()

    def leave(self) -> None:
        """Give up what is not sent."""
        self._leave.set()

    def run(self) -> None:
        """Send everything."""
        try:
            asyncio.run(self._send_all())
        except BaseException as failure:  # noqa: BLE001  told by the main thread
            self.failure = failure

    async def _send_all(self) -> None:
        began = time.monotonic()
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=httpx.Timeout(_PATIENCE, connect=2.0),
            trust_env=False,
        ) as http:
            await asyncio.gather(*(self._act(http, script, began) for script in self._scripts))

    async def _act(self, http: httpx.AsyncClient, script: Sequence[Step], began: float) -> None:
        put_off: list[Step] = []
        for step in script:
            await asyncio.sleep(began + step.at - time.monotonic())
            if self._must_wait(step):
                put_off.append(step)
            else:
                await self._take(http, step)
        while not self._calm.is_set() and not self._leave.is_set():  # noqa: ASYNC110  another thread's
            await asyncio.sleep(0.1)
        for step in put_off:
            await self._take(http, step)

    def _must_wait(self, step: Step) -> bool:
        waits = any((each.user, each.record) in self._uncertain for each in step.versions)
        if waits:
            # What comes after these in the order of versions waits as well.
            self._uncertain |= {(each.user, each.record) for each in step.versions}
            self.diary.met["step put off"] += 1
        return waits

    async def _take(self, http: httpx.AsyncClient, step: Step) -> None:
        await asyncio.gather(*(self._until_told(http, step) for _ in range(1 + step.twin)))
        if step.again:
            await self._until_told(http, step)

    async def _until_told(self, http: httpx.AsyncClient, step: Step) -> None:
        send = self._send_batch if len(step.versions) > 1 else self._send_single
        tries = 0
        while not self._leave.is_set():
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
                self.diary.wrong.append(f"{step.versions[0].record}: {error!r}")
                return
            else:
                self._count(f"http_{response.status_code}")
                if response.status_code not in _LATER:
                    problem = (
                        f"{step.versions[0].record}: {response.status_code} {response.text[:300]}"
                    )
                    self.diary.wrong.append(problem)
                    return
                asked = response.headers.get("retry-after", "")
                pause += float(asked) if asked.isdigit() else 0.0
            await asyncio.sleep(pause)
        self.diary.wrong.append(f"{step.versions[0].record}: never accepted")

    def _count(self, what: str) -> None:
        self.diary.met[what] += 1

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
        """Write it down; False if a batch was not taken whole, so that it must be sent again."""
        now, body = time.time(), response.json()
        if len(step.versions) == 1:
            told = [(step.versions[0], body)]
        else:
            lines: dict[int, dict[str, Any]] = {line["line"]: line for line in body["lines"]}
            told = [
                (version, lines[number])
                for number, version in enumerate(step.versions, start=1)
                if number in lines and "id" in lines[number]
            ]
        self.diary.told += [
            Told(line["id"], version, now, line["duplicate"], len(step.versions) > 1)
            for version, line in told
        ]
        return len(told) == len(step.versions)


def _labels(version: Version) -> dict[str, str]:
    return {
        "user": version.user,
        "fhirVersion": "R4",
        "source": f"org.example.{version.user}",
    }
