"""What other people's tools make of our files."""

import json
import os
import subprocess
from pathlib import Path

import yaml

from tests.wide.programs import NPM, ROOT, TOOLS, npm_tools
from uplift.api.app import create_app


def test_a_linter_finds_nothing_in_our_openapi(tmp_path: Path) -> None:
    npm_tools()
    (tmp_path / "openapi.json").write_text(json.dumps(create_app().openapi()))
    (tmp_path / "redocly.yaml").write_text("extends: [recommended-strict]\n")
    done = subprocess.run(
        [NPM / "node_modules" / ".bin" / "redocly", "lint", "openapi.json"],
        cwd=tmp_path,
        env={**os.environ, "REDOCLY_TELEMETRY": "off"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout


def test_the_bill_of_materials_lists_every_package_of_the_lock(tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    done = subprocess.run(["make", "sbom", f"SBOM={out}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    bill = json.loads(out.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    lock = (ROOT / "requirements.lock").read_text()
    locked = {line.partition("==")[0] for line in lock.splitlines() if line[:1].isalnum()}
    assert {component["name"] for component in bill["components"]} == locked


def test_compose_accepts_its_file() -> None:
    # Merged here (`<<`), as Compose does first.
    compose = json.dumps(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))
    check = (
        "import sys, compose_spec; compose_spec.PyCompose.from_json(sys.stdin.read()).validate()"
    )
    done = subprocess.run(
        [TOOLS / "python", "-c", check], input=compose, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
