"""`uplift-client` as a wheel of its own, against the whole system."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests import factories
from tests.system.conftest import Running
from tests.uplift.cli.test_installed import ROOT, build
from uplift.client import AsyncUplift, Conflict, NotAuthenticated, NotFound, Record, Uplift

_SECONDS = 60


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds."""
    folder = tmp_path_factory.mktemp("client")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / "clients" / "python" / name, folder)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "uplift" / "client", folder / "uplift_client", ignore=ignore)
    (folder / "built").mkdir()
    with zipfile.ZipFile(build("wheel", folder, folder / "built")) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_the_wheel_is_one_package_that_needs_nothing_of_uplift(installed: Path) -> None:
    assert sorted(each.name.partition("-")[0] for each in installed.iterdir()) == [
        "uplift_client",
        "uplift_client",
    ]
    assert (installed / "uplift_client" / "py.typed").exists()
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, uplift_client as c; print(c.__file__, 'uplift' in sys.modules)",
        ],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.split() == [str(installed / "uplift_client" / "__init__.py"), "False"]


def test_the_example_of_its_readme_runs(installed: Path, running: Running, tmp_path: Path) -> None:
    [example] = re.findall(
        r"```python\n(.*?)```", (ROOT / "clients" / "python" / "README.md").read_text(), re.DOTALL
    )
    lines = [json.dumps(factories.resource(id=f"readme-{each}")) for each in range(3)]
    (tmp_path / "records.ndjson").write_text("\n".join(lines))
    resource = json.dumps(factories.resource(id="readme-single"))
    program = f"key, resource = {running.key!r}, {resource!r}\n{example}".replace(
        "http://127.0.0.1:8080", running.system.api_url
    ).replace('"alice"', '"readme"')
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("delivered")
    assert done.stdout.count(" False None") == 3


@pytest.fixture
def user(running: Running) -> str:
    name = f"client/{uuid4()}"  # with a slash, as in FHIR's references
    running.add_user(name)
    return name


def _resource(**elements: Any) -> bytes:
    """With line breaks and a number that a program which reads and writes it would change."""
    return json.dumps(factories.resource(**elements), indent=1).replace("72.5,", "72.50,").encode()


def test_bytes_arrive_as_they_were_sent(running: Running, user: str) -> None:
    resource = _resource(id=str(uuid4()))
    with Uplift(running.system.api_url, running.key) as uplift:
        first = uplift.submit(resource, fhir_version="R4", user=user, idempotency_key="k")
        again = uplift.submit(resource, fhir_version="R4", user=user, idempotency_key="k")
        done = uplift.wait_until_final(first.id, _SECONDS)
        assert (first.id, done.status) == (again.id, "delivered")
        [attempt] = uplift.attempts(first.id)
        assert attempt.status_code == 201
        with pytest.raises(Conflict):
            uplift.cancel(first.id)
        [found] = uplift.search(user, "R4", "Observation")
        assert found["id"] == json.loads(resource)["id"]
        assert json.loads(uplift.read_back(user, "R4", f"Observation/{found['id']}")) == found
    assert b"72.50" in resource
    assert running.sandbox.stored_bytes(id=found["id"]) == [resource]


def test_records_come_in_batches_and_each_has_its_result(running: Running, user: str) -> None:
    records = [
        Record(factories.resource(id=f"{uuid4()}"), "R4", "org.example.a", str(each))
        for each in range(450)
    ]
    records[7] = Record(b'{"no": "resource"}')
    with Uplift(running.system.api_url, running.key) as uplift:
        results = list(uplift.submit_batches(iter(records), user=user))
        assert [each.record for each in results] == records
        [problem] = [each for each in results if each.problem is not None]
        assert problem.record is records[7]
        assert problem.problem is not None
        assert problem.problem.status == 400
        listed = list(uplift.uploads(user=user, order="asc", limit=200))
        assert [each.id for each in listed] == [each.id for each in results if each.id]
        batches = list(uplift.batches(user=user))
        assert [each.total for each in batches] == [50, 200, 200]
        assert len(list(uplift.batch_lines(batches[-1].id, limit=150))) == 200
        assert uplift.batch(batches[-1].id).problems == 1
        assert uplift.user_summary(user).total == 449


def test_users_tokens_and_pauses(running: Running, user: str) -> None:
    with Uplift(running.system.api_url, running.key) as uplift:
        assert uplift.user(user).grant == "active"
        assert user in {each.app_user_id for each in uplift.users()}
        assert uplift.pause(user).user == user
        assert user in {each.user for each in uplift.pauses()}
        token = uplift.add_device_token(user, expires_in=60)
        with Uplift(running.system.api_url, token.token) as device:
            upload = device.submit(_resource(id=str(uuid4())), fhir_version="R4")
            assert device.cancel(upload.id).status == "cancelled"
            uplift.revoke_device_token(user, token.id)
            with pytest.raises(NotAuthenticated) as failure:
                device.upload(upload.id)
        assert failure.value.request_id
        uplift.revoke_device_tokens(user)
        uplift.resume(user)
        stored = uplift.store_grant(user, access_token="a", expires_in=60, refresh_token="r")
        assert stored.grant_origin == "backend"
        assert uplift.erase_user(user).status == "erased"
        with pytest.raises(NotFound):
            uplift.user(user)


async def test_the_async_client_does_the_same(running: Running, user: str) -> None:
    async with AsyncUplift(running.system.api_url, running.key) as uplift:
        uploads = await asyncio.gather(
            *(
                uplift.submit(_resource(id=str(uuid4())), fhir_version="R4", user=user)
                for _ in range(10)
            )
        )
        done = await asyncio.gather(
            *(uplift.wait_until_final(each.id, _SECONDS) for each in uploads)
        )
        assert {each.status for each in done} == {"delivered"}
        results = [
            each.id
            async for each in uplift.submit_batches(
                (Record(_resource(id=str(uuid4()))) for _ in range(3)),
                user=user,
                fhir_version="R4",
            )
        ]
        listed = {each.id async for each in uplift.uploads(user=user)}
        assert listed == {each.id for each in uploads} | set(results)


def test_a_dead_letter_is_redriven(running: Running, user: str) -> None:
    broken = factories.resource(id=str(uuid4()), status=7)
    with Uplift(running.system.api_url, running.key) as uplift:
        upload = uplift.submit(broken, fhir_version="R4", user=user)
        done = uplift.wait_until_final(upload.id, _SECONDS)
        assert (done.status, done.issues.issue[0].expression) == (
            "rejected",
            ["Observation.status"],
        )
        assert uplift.redrive(upload.id).status == "queued"
        uplift.wait_until_final(upload.id, _SECONDS)
        assert uplift.redrive_many(user=user, status=["rejected"]).queued == 1
        assert uplift.redrive_many(user=user, status=["expired"]).queued == 0
