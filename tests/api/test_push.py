"""`uplift push` of the example export, to an API whose destination takes one FHIR version."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.api.calls import make_keys
from tests.api.serving import ApiServer
from uplift.cli.push.command import push
from uplift.ledger.database import Database
from uplift.sandbox.export.make_export import write_export
from uplift.settings import Settings
from uplift.wiring import open_relay

app = typer.Typer()
app.command()(push)


@pytest.fixture
def r4_only(settings: Settings) -> Settings:
    """Nothing is sent to it: no worker runs."""
    return settings.model_copy(
        update={
            "destination": "hapi",
            "destination_r4": "http://127.0.0.1:9/r4",
            "oneup_client_id": "",
        }
    )


@pytest.fixture
async def key(database: Database, r4_only: Settings) -> str:
    """A backend's key, in a ledger that knows alice."""
    async with open_relay(r4_only) as relay:
        await relay.provisioner.provision("alice")
    return (await make_keys(database)).backend


def test_versions_that_are_not_taken_are_said_once_with_their_counts(
    key: str, r4_only: Settings, tmp_path: Path
) -> None:
    export = tmp_path / "export.zip"
    manifest = write_export(export)
    not_taken = sum(each.fhir_version == "1.0.2" for each in manifest.records)
    assert not_taken > 100
    with ApiServer(r4_only) as api:
        arguments = [str(export), "--user", "alice", "--api", api.url, "--key", key, "--no-wait"]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    said = (
        f"{not_taken} were not accepted, because the user's destination does not take their FHIR"
        f" version: {not_taken} of DSTU2."
    )
    assert result.stdout.count(said) == 1, result.stdout
    # And not once a record.
    assert result.stdout.count("does not take") == 1
