"""What one destination that stalls costs another: the waits of what goes elsewhere.

Two simulated HAPI servers. Two people bring uploads evenly, each for one of them. First both
answer. Then the first accepts connections and answers nothing, for an hour of test time: attempts
end after 2 s and not after 60, so two minutes are an hour.
"""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg

from bench.figures import Figure, Target, percentile
from bench.plan import Plan
from uplift.cli.local.system import System
from uplift.cli.local.up import add_api_key
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

_EVERY = 0.1  # seconds between two uploads of one person
_WARM_SECONDS = 20.0
_BASE_SECONDS = 60.0
_STALL_SECONDS = 120.0
_END_SECONDS = 60.0
_SETTINGS = {
    "UPLIFT_ATTEMPT_SECONDS": "2",
    "UPLIFT_LEASE_SECONDS": "4",
    "UPLIFT_SETTLE_SECONDS": "2",
    "UPLIFT_SWEEP_SECONDS": "1",
    "UPLIFT_BACKOFF_FIRST_SECONDS": "0.5",
    "UPLIFT_MAX_BACKOFF_SECONDS": "60",
}
_STALL = {"kind": "stall", "seconds": 3600, "match": {"api": "fhir"}}
_PEOPLE = {"alice": "a", "bob": "b"}
"""Each with their destination. The one of alice stalls."""


def main(folder: Path, plan: Plan) -> list[Figure]:
    """The waits of bob's uploads while the other destination stalls, and before that."""
    both = [_round(folder / f"round-{number}", plan) for number in range(plan.rounds)]
    return [
        Figure(
            section="stalled",
            what="p95 from accepted to delivered, while another destination stalls for an hour of"
            " test time",
            unit="s",
            against="while both answer",
            ours=tuple(stalled for stalled, _ in both),
            theirs=tuple(before for _, before in both),
            target=Target(1.5, bound="maximum"),
        )
    ]


def _round(folder: Path, plan: Plan) -> tuple[float, float]:
    folder.mkdir(parents=True)
    config = SandboxConfig(like="hapi")
    with SandboxServer(config) as first, SandboxServer(config) as second:
        file = folder / "destinations.toml"
        file.write_text(
            f'[a]\npreset = "hapi"\nr4 = "{first.url}/r4"\n'
            f'[b]\npreset = "hapi"\nr4 = "{second.url}/r4"\n'
        )
        settings = {
            **_SETTINGS,
            "UPLIFT_DESTINATIONS_FILE": str(file),
            "UPLIFT_DESTINATION": "a",
        }
        processes = ("api", "worker", "beat")
        with System(folder / "uplift", settings, processes=processes, any_port=True) as system:
            key = add_api_key(system)
            for name, destination in _PEOPLE.items():
                _add(system, key, name, destination)
            with _sending(system, key):
                time.sleep(_WARM_SECONDS * plan.scale)
                before = _waits(system, _BASE_SECONDS * plan.scale)
                first.faults(_STALL)
                stalled = _waits(system, _STALL_SECONDS * plan.scale)
                first.clear_faults()
    return percentile(stalled, 95), percentile(before, 95)


def _add(system: System, key: str, name: str, destination: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=system.api_url, headers=headers, trust_env=False) as client:
        client.post("/v1/users", json={"appUserId": name}).raise_for_status()
        client.put(
            f"/v1/users/{name}/destination", json={"destination": destination}
        ).raise_for_status()


@contextmanager
def _sending(system: System, key: str) -> Iterator[None]:
    """Within, each person brings an upload every `_EVERY` seconds."""
    over = threading.Event()
    threads = [
        threading.Thread(target=_bring, args=(system.api_url, key, name, over), daemon=True)
        for name in _PEOPLE
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _bring(url: str, key: str, name: str, over: threading.Event) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
        began = time.monotonic()
        for number in itertools.count():
            if over.wait(max(0.0, began + number * _EVERY - time.monotonic())):
                return
            client.post(
                "/v1/uploads",
                params={"user": name, "fhirVersion": "R4"},
                json={
                    "resourceType": "Observation",
                    "id": f"o-{number}",
                    "status": "final",
                    "code": {"text": "pulse"},
                    "valueInteger": number,
                },
            ).raise_for_status()


_WAITS = """
    SELECT extract(epoch FROM u.delivered_at - u.created_at)::float8
    FROM uploads AS u JOIN users AS p ON p.id = u.user_id
    WHERE p.app_user_id = 'bob'
        AND u.created_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)
"""


def _waits(system: System, seconds: float) -> list[float]:
    """The waits of what bob brings from now on for so long, once all of it is delivered."""
    began = time.time()
    time.sleep(seconds)
    ended = time.time()
    while True:
        with psycopg.connect(system.environment["UPLIFT_DATABASE_URL"]) as connection:
            waits = [wait for (wait,) in connection.execute(_WAITS, (began, ended))]
        if None not in waits:
            return waits
        if time.time() > ended + _END_SECONDS:
            # Still waiting: at least so long.
            return [time.time() - ended if wait is None else wait for wait in waits]
        time.sleep(0.2)
