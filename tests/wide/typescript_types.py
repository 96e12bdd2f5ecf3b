"""The types of clients/typescript, generated from our OpenAPI. `make types` writes them."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from tests.wide.programs import NPM, ROOT, npm_tools
from uplift.api.app import create_app
from uplift.settings import Settings

CLIENT = ROOT / "clients" / "typescript"
TYPES = CLIENT / "src" / "types.gen.ts"


def generate() -> str:
    """The types as they should be."""
    npm_tools()
    with tempfile.TemporaryDirectory() as folder:
        openapi = Path(folder) / "openapi.json"
        openapi.write_text(json.dumps(create_app(Settings()).openapi()))
        subprocess.run(
            [NPM / "node_modules/.bin/openapi-ts", "-f", CLIENT / "openapi-ts.config.mjs"],
            cwd=folder,
            env={**os.environ, "UPLIFT_OPENAPI": str(openapi), "UPLIFT_TYPES": f"{folder}/types"},
            check=True,
            capture_output=True,
        )
        return (Path(folder) / "types" / TYPES.name).read_text(encoding="utf-8")


if __name__ == "__main__":
    TYPES.write_text(generate(), encoding="utf-8")
