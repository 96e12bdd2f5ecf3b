"""The whole story of people whose records go to a real HAPI, though every third answer is spoiled:
they move there, push, change everything, and push again; the ledger goes back to an older backup;
they are erased, and come back. Each record is there once, in its last version, and as it was sent.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cutting_proxy import SPOILINGS
from tests.differences import told
from tests.hapi.conftest import Hapi
from tests.hapi.story import ALICE, BOB, Story
from tests.real_server import Exports, push_both, write_exports
from uplift.cli.push.result import ResponseKind

pytestmark = pytest.mark.timeout(1200)  # seconds: HAPI's first requests are slow

_PAGE = Path(__file__).parents[2] / "docs" / "destinations" / "hapi.md"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return write_exports(tmp_path_factory.mktemp("exports"))


def test_each_record_is_there_once_as_it_was_sent_whatever_happens(
    hapi: Hapi, exports: Exports, tmp_path: Path
) -> None:
    known = told(_PAGE.read_text(encoding="utf-8"), hapi.version)
    with ExitStack() as stack:
        story = Story(hapi, exports, tmp_path, stack)
        uplift = story.uplift

        at_oneup = uplift.push(exports.first, ALICE).totals()
        assert at_oneup[ResponseKind.DELIVERED] == len(exports.manifest.valid)
        remembered = story.sync_token(ALICE)
        story.move(ALICE)
        assert story.sync_token(ALICE) != remembered

        push_both(uplift, exports, hapi.version, between=story.back_up)
        assert set(story.proxy.spoiled) == set(SPOILINGS)
        story.assert_as_sent(story.assert_alices_are_there_once(), known)
        story.send_bobs()
        remembered = story.sync_token(ALICE)

        story.restore()
        assert story.sync_token(BOB) is None
        assert story.sync_token(ALICE) != remembered
        story.send_bobs()
        again = uplift.push(exports.changed, ALICE)
        assert again.totals()[ResponseKind.DELIVERED] == len(exports.valid(hapi.version))
        story.assert_receipts_are_of_what_was_sent(again)
        stored = [*story.assert_alices_are_there_once(), *story.assert_bobs_are_there_once()]
        story.assert_as_sent(stored, known)
        # The move took everything along once: nothing of it came to the old server again.
        counted = story.oneup.counts()["total"]
        assert counted["resources"] == counted["versions"] == len(exports.manifest.valid)

        story.erase()
        story.move(ALICE)
        uplift.push(exports.changed, ALICE)
        story.assert_alices_are_there_once()
