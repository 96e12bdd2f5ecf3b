"""What happens to two people whose records go to HAPI, and what is there then."""

import hashlib
import secrets
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx

from chaos.restores import Restores
from tests.cutting_proxy import CuttingProxy
from tests.differences import Difference, differences
from tests.hapi.conftest import Hapi
from tests.held import (
    assert_each_is_there_once,
    assert_nothing_is_there,
    held_by,
    ids_at,
    literal_references,
    name_of,
    original_names,
    types_of,
)
from tests.real_server import LATE, PROCESSES, Exports, Resource, pulse, run_uplift
from uplift.cli.push.result import PushResult
from uplift.destinations.derived_ids import patient_id, read_id_key
from uplift.destinations.references import parse
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings

ALICE = "alice"
"""She has the example export."""
BOB = "bob"
"""He comes after the backup, with `BOBS`."""
BOBS = [pulse(f"late-{number}", number) for number in range(3)]

_WAIT_SECONDS = 60.0


class Story:
    """A system that knows 1upHealth and HAPI, and a proxy before HAPI that spoils answers."""

    def __init__(self, hapi: Hapi, exports: Exports, folder: Path, stack: ExitStack) -> None:
        self._hapi, self._exports = hapi, exports
        self._types = types_of(exports, hapi.version)
        # Other tests have left something there.
        self._others = {name_of(each) for each in held_by(hapi.base, self._types, {})}
        config = SandboxConfig(client_secret=secrets.token_urlsafe(8))
        self.oneup = stack.enter_context(SandboxServer(config))
        self.proxy = stack.enter_context(CuttingProxy(hapi.base, late_seconds=LATE))
        file = folder / "destinations.toml"
        file.write_text(f'[oneup]\n[hapi]\n{hapi.version} = "{self.proxy.url}"\n')
        settings = {
            "UPLIFT_DESTINATIONS_FILE": str(file),
            "UPLIFT_DESTINATION": "oneup",
            "UPLIFT_ONEUP_FHIR_URL": self.oneup.fhir_url,
            "UPLIFT_ONEUP_TOKEN_URL": self.oneup.token_url,
            "UPLIFT_ONEUP_USERS_URL": self.oneup.users_url,
            "UPLIFT_ONEUP_CLIENT_ID": config.client_id,
            "UPLIFT_ONEUP_CLIENT_SECRET": config.client_secret,
            "UPLIFT_ONEUP_KEEPS_IDS": "true",
        }
        self.uplift = stack.enter_context(run_uplift(folder / "uplift", settings))
        system = self.uplift.system
        assert system.postgres is not None
        self._backups = Restores(folder, system.postgres, system.environment)
        id_key = read_id_key(
            Settings.model_validate({"id_key": system.environment["UPLIFT_ID_KEY"]})
        )
        assert id_key is not None
        self._bob = f"Patient/{patient_id(id_key, app_user_id=BOB)}"

    def sync_token(self, user: str) -> str | None:
        """What the user's app remembers; None if there is no such user."""
        answer = self.uplift.api.get(f"/v1/users/{user}/summary")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        return str(answer.raise_for_status().json()["syncToken"])

    def move(self, user: str) -> None:
        """Let the user's records go to HAPI from now on. New people are at 1upHealth."""
        self.uplift.api.post("/v1/users", json={"appUserId": user}).raise_for_status()
        url = f"/v1/users/{user}/destination"
        self.uplift.api.put(url, json={"destination": "hapi"}).raise_for_status()

    def back_up(self) -> None:
        """Keep the ledger as it is now."""
        self._backups.back_up("older")

    def restore(self) -> None:
        """Restore what was kept by docs/operations.md: meanwhile no process runs."""
        system = self.uplift.system
        for name in PROCESSES:
            system.processes[name].stop()
        self._backups.restore("older")
        for name in PROCESSES:
            system.restart(name)
        self.uplift.until_ready()

    def send_bobs(self) -> None:
        """Add Bob, and send his records to HAPI until they are there."""
        api = self.uplift.api
        self.move(BOB)
        params = {"user": BOB, "fhirVersion": self._hapi.version.upper(), "source": "late"}
        for body in BOBS:
            api.post("/v1/uploads", params=params, json=body).raise_for_status()
        ends = time.monotonic() + _WAIT_SECONDS
        while not (told := api.get(f"/v1/users/{BOB}/summary").json())["complete"]:
            assert time.monotonic() < ends, told
            time.sleep(0.2)
        assert told["byStatus"]["delivered"] == len(BOBS), told

    def assert_alices_are_there_once(self) -> list[Resource]:
        """In their last version. Returns them, with her Patient."""
        but = self._others | {name_of(each) for each in self._bobs()}
        return assert_each_is_there_once(
            self._hapi.base, self._exports, self._hapi.version, but=but
        )

    def assert_bobs_are_there_once(self) -> list[Resource]:
        """Returns them, with his Patient."""
        found = self._bobs()
        names = Counter(name for each in found for name in original_names(each))
        assert names == {f"Observation/{each['id']}": 1 for each in BOBS}
        assert len(found) == len(BOBS) + 1
        return found

    def assert_as_sent(self, stored: list[Resource], known: set[Difference]) -> None:
        """Each resource is what was sent last, but for the known kinds of differences. Each of
        these occurs."""
        found: dict[Difference, str] = {}
        for each in stored:
            sent = parse(self.proxy.put[f"/{name_of(each)}"])
            found |= dict.fromkeys(differences(sent, each), name_of(each))
        unknown = {kind: name for kind, name in found.items() if kind not in known}
        assert not unknown, unknown
        assert not known - found.keys(), f"no more: {known - found.keys()}"

    def assert_receipts_are_of_what_was_sent(self, pushed: PushResult) -> None:
        """Each receipt has the SHA-256 of the body that was sent last to its id."""
        for record in pushed.records:
            if not record.outcome.arrived:
                continue
            upload = self.uplift.api.get(f"/v1/uploads/{record.upload_id}").json()
            receipt = upload["receipt"]
            sent = self.proxy.put[f"/{record.resource_type}/{receipt['id']}"]
            assert receipt["sentSha256"] == hashlib.sha256(sent).hexdigest(), upload

    def erase(self) -> None:
        """Erase both at their destinations too. Then nothing of them is found at HAPI."""
        there = ids_at(self._hapi.base, self._exports, self._hapi.version, but=self._others)
        self.uplift.begin_to_erase(BOB)
        self.uplift.erase_upstream(ALICE, self._hapi.version)
        self.uplift.until_erased(BOB)
        assert_nothing_is_there(self._hapi.base, there, but=self._others)

    def _bobs(self) -> list[Resource]:
        return [
            each
            for each in held_by(self._hapi.base, {"Observation", "Patient"}, {}, but=self._others)
            if self._bob == name_of(each) or self._bob in literal_references(each)
        ]
