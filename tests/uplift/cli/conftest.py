"""The command line over the servers of the run."""

from pathlib import Path

import pytest

from tests.uplift.cli.command import Cli
from uplift.ledger.database import Database
from uplift.settings import Settings


@pytest.fixture
def cli(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """The command line over an empty ledger."""
    monkeypatch.chdir(tmp_path)
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        shown = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        monkeypatch.setenv(f"UPLIFT_{name.upper()}", shown)
    return Cli(settings)
