"""Every record of the example export arrives at HAPI once, though every third answer is spoiled. A
person who is erased there is found nowhere, and everything is there once when they are back."""

from pathlib import Path

import pytest

from tests.cutting_proxy import SPOILINGS, CuttingProxy
from tests.hapi.conftest import Hapi
from tests.real_server import (
    LATE,
    Exports,
    assert_each_is_there_once,
    assert_nothing_is_there,
    ids_at,
    push_both,
    run_uplift,
    write_exports,
)

pytestmark = pytest.mark.timeout(1200)  # seconds: HAPI's first requests are slow


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return write_exports(tmp_path_factory.mktemp("exports"))


def test_each_record_is_there_once_and_after_an_erasure_none(
    hapi: Hapi, exports: Exports, tmp_path: Path
) -> None:
    with CuttingProxy(hapi.base, late_seconds=LATE) as proxy:
        settings = {
            "UPLIFT_DESTINATION": "hapi",
            f"UPLIFT_DESTINATION_{hapi.version.upper()}": proxy.url,
        }
        with run_uplift(tmp_path, settings) as uplift:
            push_both(uplift, exports, hapi.version)
            assert set(proxy.spoiled) == set(SPOILINGS)
            assert_each_is_there_once(hapi.base, exports, hapi.version)
            there = ids_at(hapi.base, exports, hapi.version)
            uplift.erase_upstream("alice", hapi.version)
            assert_nothing_is_there(hapi.base, there)
            uplift.push(exports.changed, "alice")
    assert_each_is_there_once(hapi.base, exports, hapi.version)
