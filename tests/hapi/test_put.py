"""Every record of the example export arrives at HAPI once, though every third answer is spoiled."""

from pathlib import Path

import pytest

from tests.cutting_proxy import CuttingProxy
from tests.hapi.conftest import Hapi
from tests.real_server import (
    LATE,
    Exports,
    counted,
    held_by,
    is_changed,
    is_person,
    literal_references,
    run_uplift,
    write_exports,
)
from uplift.cli.push.result import ResponseKind

pytestmark = pytest.mark.timeout(1200)  # seconds: HAPI's first requests are slow


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return write_exports(tmp_path_factory.mktemp("exports"))


def test_each_record_is_there_once_in_its_last_version(
    hapi: Hapi, exports: Exports, tmp_path: Path
) -> None:
    relayed = exports.valid(hapi.version)
    names = {f"{each.resource_type}/{each.record_id}" for each in relayed}
    types = {each.resource_type for each in relayed} | {"Patient"}
    with CuttingProxy(hapi.base, late_seconds=LATE) as proxy:
        settings = {
            "UPLIFT_DESTINATION": "hapi",
            f"UPLIFT_DESTINATION_{hapi.version.upper()}": proxy.url,
        }
        with run_uplift(tmp_path, settings) as uplift:
            for export in (exports.first, exports.changed):
                totals = uplift.push(export, "alice").totals()
                assert totals[ResponseKind.DELIVERED] == len(relayed)
            assert set(proxy.spoiled) == {"cut", "gateway_timeout", "stall", "late"}
    held = [each for each in held_by(hapi.base, types, {}) if "language" in each or is_person(each)]
    (person,) = [each for each in held if is_person(each)]
    records = [each for each in held if each is not person]
    assert counted(records) == dict.fromkeys(names, 1)
    assert len(records) == len(relayed)
    assert all(is_changed(each) for each in records)
    # Whom a record is about is a Patient that is there.
    patients = {
        reference
        for each in records
        for reference in literal_references(each)
        if reference.startswith("Patient/")
    }
    assert patients <= {f"Patient/{each['id']}" for each in held}
