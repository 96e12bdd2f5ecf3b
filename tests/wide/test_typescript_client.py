"""clients/typescript: its types are those of our OpenAPI, and it works with a running API."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import factories
from tests.system.conftest import Running
from tests.wide.programs import NPM, npm_tools
from tests.wide.typescript_types import CLIENT, TYPES, generate

_SECONDS = 120


def test_the_types_are_those_of_our_openapi() -> None:
    assert TYPES.read_text(encoding="utf-8") == generate(), "run `make types`"


def _run(*words: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed, as npm does it."""
    npm_tools()
    folder = tmp_path_factory.mktemp("typescript")
    package = folder / "node_modules" / "uplift-client"
    package.mkdir(parents=True)
    shutil.copy(CLIENT / "package.json", package)
    _run(NPM / "node_modules/.bin/tsc", "-p", CLIENT, "--outDir", package / "dist", cwd=folder)
    return folder


def _client(built: Path) -> str:
    return (built / "node_modules/uplift-client/dist/index.js").as_uri()


def test_its_rules_hold(built: Path) -> None:
    _run("node", "--test", CLIENT / "test/rules.test.mjs", cwd=built, UPLIFT_CLIENT=_client(built))


def test_it_works_with_a_running_api(built: Path, running: Running) -> None:
    _run(
        "node",
        "--test",
        CLIENT / "test/api.test.mjs",
        cwd=built,
        UPLIFT_CLIENT=_client(built),
        UPLIFT_API_URL=running.system.api_url,
        UPLIFT_API_KEY=running.key,
        UPLIFT_USER="typescript",
    )
    [stored] = running.sandbox.stored_bytes(id="sent-by-typescript")
    assert stored.startswith(b'{ "resourceType": "Observation",\n "id"')
    assert b'"value": 72.50,' in stored


def test_the_example_of_its_readme_runs(built: Path, running: Running) -> None:
    [example] = re.findall(r"```ts\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    resource = json.dumps(factories.resource(id="readme-single"))
    lines = [json.dumps(factories.resource(id=f"readme-{each}")) for each in range(3)]
    given = f"const key = {json.dumps(running.key)}, resource = {json.dumps(resource)};\n"
    given += f"const lines: string[] = {json.dumps(lines)};\n"
    (built / "example.ts").write_text(
        example.replace("\n\n", f"\n\n{given}", 1)
        .replace("http://127.0.0.1:8080", running.system.api_url)
        .replace('"alice"', '"readme"')
    )
    (built / "package.json").write_text('{"type": "module"}')
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"]
    _run(NPM / "node_modules/.bin/tsc", *options, "example.ts", cwd=built)
    told = _run("node", "example.js", cwd=built)
    assert told.startswith("delivered null 0\n")
    assert told.count(" false undefined\n") == 3
