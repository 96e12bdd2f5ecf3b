"""The example export arrives at a strict R4 server that wants a login, each record once, though
every third answer is spoiled. A person who is erased there is found nowhere."""

from pathlib import Path

import pytest

from tests.cutting_proxy import SPOILINGS, CuttingProxy
from tests.real_server import (
    LATE,
    assert_each_is_there_once,
    assert_nothing_is_there,
    ids_at,
    push_both,
    run_uplift,
    write_exports,
)
from tests.wide.sekmet import CLIENT_ID, SECRET, run_sekmet


@pytest.mark.timeout(900)  # seconds, for a machine that does much else
def test_each_record_is_there_once_and_after_an_erasure_none(tmp_path: Path) -> None:
    exports = write_exports(tmp_path)
    with run_sekmet(tmp_path) as sekmet:
        with CuttingProxy(sekmet.base, late_seconds=LATE) as proxy:
            settings = {
                "UPLIFT_DESTINATION": "sekmet",
                "UPLIFT_DESTINATION_PRESET": "hapi",
                "UPLIFT_DESTINATION_R4": proxy.url,
                "UPLIFT_DESTINATION_LOGIN": "client_credentials",
                "UPLIFT_DESTINATION_TOKEN_URL": sekmet.token_url,
                "UPLIFT_DESTINATION_CLIENT_ID": CLIENT_ID,
                "UPLIFT_DESTINATION_CLIENT_SECRET": SECRET,
            }
            with run_uplift(tmp_path / "uplift", settings) as uplift:
                push_both(uplift, exports, "r4")
                assert set(proxy.spoiled) == set(SPOILINGS)
                assert_each_is_there_once(sekmet.base, exports, "r4", sekmet.headers())
                there = ids_at(sekmet.base, exports, "r4", sekmet.headers())
                uplift.erase_upstream("alice", "r4")
                assert_nothing_is_there(sekmet.base, there, sekmet.headers())
                uplift.push(exports.changed, "alice")
        assert_each_is_there_once(sekmet.base, exports, "r4", sekmet.headers())
