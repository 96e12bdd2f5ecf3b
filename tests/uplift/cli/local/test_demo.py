"""What the demo expects of the example export at each kind of server."""

from pathlib import Path

import pytest

from uplift.cli.local.demo import Expected
from uplift.cli.local.system import Like
from uplift.sandbox.export.make_export import Manifest, write_export


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    path = tmp_path_factory.mktemp("demo") / "export.zip"
    return write_export(path), path


@pytest.mark.parametrize(
    ("like", "delivered", "refused", "broken", "others", "patients"),
    [
        ("oneup", 336, 0, 8, 0, 0),
        ("hapi", 336, 0, 8, 0, 2),
        ("azure", 180, 0, 7, 157, 0),
        ("google", 336, 0, 8, 0, 2),
        ("healthlake", 178, 2, 7, 157, 1),
        ("aidbox", 180, 0, 7, 157, 1),
        ("firely", 180, 0, 7, 157, 0),
        ("medplum", 180, 0, 7, 157, 1),
    ],
)
def test_each_server_takes_what_it_can(
    export: tuple[Manifest, Path],
    like: Like,
    delivered: int,
    refused: int,
    broken: int,
    others: int,
    patients: int,
) -> None:
    manifest, path = export
    expected = Expected.of(manifest, path, like)
    assert (expected.delivered, expected.refused, len(expected.broken)) == (
        delivered,
        refused,
        broken,
    )
    assert (expected.others, expected.patients) == (others, patients)
    said = expected.not_taken()
    assert ("beyond its limits" in said) is bool(refused)
    assert ("does not take" in said) is bool(others)
