"""Clients that other people's generators make from our OpenAPI lose nothing on the way."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import factories
from tests.system.conftest import Running
from tests.wide.full_records import BY_VERSION
from tests.wide.programs import NPM, TOOLS, maven_jar, npm_tools
from tests.wide.recording_proxy import recorded
from uplift.api.app import create_app

_PROGRAMS = Path(__file__).parent / "generated"
_BATCH = 3
_SECONDS = 240  # Maven may have to fetch what the generated client needs

Command = list[str | Path]


def _run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _python(folder: Path) -> Command:
    # The one content type that the generator does not know.
    config = {"content_type_overrides": {"application/x-ndjson": "application/octet-stream"}}
    (folder / "config.json").write_text(json.dumps(config))
    told = _run(
        "/usr/bin/env",
        f"PATH={TOOLS}:/usr/bin:/bin",  # it runs its own ruff
        "openapi-python-client",
        "generate",
        "--path=openapi.json",
        "--output-path=generated",
        "--meta=none",
        "--config=config.json",
        "--fail-on-warning",
        cwd=folder,
    )
    assert "WARNING" not in told
    shutil.copy(_PROGRAMS / "use_python.py", folder)
    return [TOOLS / "python", "use_python.py"]


def _typescript(folder: Path) -> Command:
    npm_tools()
    (folder / "node_modules").symlink_to(NPM / "node_modules")
    plugins = '["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"]'
    output = '{path: "client", importFileExtension: ".js"}'
    (folder / "openapi-ts.config.mjs").write_text(
        f'export default {{input: "openapi.json", output: {output}, plugins: {plugins}}};'
    )
    _run("node_modules/.bin/openapi-ts", "-f", "openapi-ts.config.mjs", cwd=folder)
    shutil.copy(_PROGRAMS / "use_typescript.ts", folder)
    (folder / "package.json").write_text('{"type": "module"}')
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck"]
    _run("node_modules/.bin/tsc", *options, "--outDir", "out", "use_typescript.ts", cwd=folder)
    return ["node", "out/use_typescript.js"]


def _java(folder: Path) -> Command:
    generator = maven_jar("org.openapitools:openapi-generator-cli:7.14.0")
    _run(
        "java",
        "-jar",
        generator,
        "generate",
        *("-i", "openapi.json", "-g", "java", "--library", "native", "-o", "."),
        "--additional-properties=openApiNullable=false",
        "--global-property=apiTests=false,modelTests=false,apiDocs=false,modelDocs=false",
        cwd=folder,
    )
    shutil.copy(_PROGRAMS / "UseJava.java", folder / "src" / "main" / "java")
    _run(
        "mvn",
        *("--quiet", "--batch-mode", "-Dmaven.test.skip=true"),
        *("compile", "dependency:copy-dependencies"),
        cwd=folder,
    )
    return ["java", "-cp", "target/classes:target/dependency/*", "UseJava"]


@pytest.mark.timeout(2 * _SECONDS)
@pytest.mark.parametrize("make", [_python, _typescript, _java])
def test_a_generated_client_submits_polls_pages_and_reads_back(
    make: Callable[[Path], Command], running: Running, tmp_path: Path
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(create_app().openapi()))
    command = make(tmp_path)
    user = f"generated {make.__name__}"
    running.add_user(user)
    for version, record in BY_VERSION.items():
        (tmp_path / f"{version}.json").write_text(json.dumps(record))
    batch = [factories.resource(id=f"line-{number}") for number in range(_BATCH)]
    (tmp_path / "batch.ndjson").write_text("".join(f"{json.dumps(each)}\n" for each in batch))

    with recorded(running.system.api_url) as proxy:
        told = json.loads(_run(*command, proxy.url, running.key, user, tmp_path, cwd=tmp_path))

    assert told["statuses"] == ["delivered"] * (len(BY_VERSION) + _BATCH)
    assert told["pages"] == [2, 2, 1]
    assert told["lines"] == _BATCH
    sent = {record["id"]: record for record in (*BY_VERSION.values(), *batch)}
    for version, record in BY_VERSION.items():
        assert _without_server_meta(told["read"][version]) == _without_server_meta(record)
    stored = running.sandbox.stored_bytes(user=user)
    assert {json.loads(each)["id"]: json.loads(each) for each in stored} == sent
    for each in stored:
        assert any(each in body for body in proxy.bodies), "other bytes than the client sent"


def _without_server_meta(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource without what the server adds to its meta."""
    meta = {
        name: value
        for name, value in resource.get("meta", {}).items()
        if name not in ("versionId", "lastUpdated")
    }
    return {**resource, "meta": meta}
