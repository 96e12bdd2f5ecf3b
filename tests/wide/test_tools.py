"""What other people's tools make of our files."""

import json
import subprocess
from pathlib import Path

import yaml

from tests.wide.programs import ROOT, TOOLS
from uplift.api.app import create_app

# What the generator should take our media types for.
_MEDIA_TYPES = {
    "application/fhir+json": "application/json",
    "application/x-ndjson": "application/octet-stream",
}


def test_a_generator_makes_a_client_from_our_openapi(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"content_type_overrides": _MEDIA_TYPES}))
    (tmp_path / "openapi.json").write_text(json.dumps(create_app().openapi()))
    done = subprocess.run(
        [
            TOOLS / "openapi-python-client",
            "generate",
            "--path=openapi.json",
            "--output-path=client",
            "--meta=none",
            "--config=config.json",
        ],
        cwd=tmp_path,
        env={"PATH": f"{TOOLS}:/usr/bin:/bin"},  # it runs its own ruff
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    generated = {path.name for path in (tmp_path / "client" / "api").iterdir()}
    assert generated >= {"uploads", "batches", "users"}


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
