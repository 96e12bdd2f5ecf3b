"""The results of lines as JSON are what the models say."""

from uuid import uuid4

import orjson

from uplift.api.batch_schemas import BatchLine, dump_lines, dump_queued, line_of
from uplift.ledger.batches import LineRow
from uplift.lifecycle import State


def test_lines_are_dumped_as_their_models_are() -> None:
    rows = [
        LineRow(1, uuid4(), State.DELIVERED, False, None, None),
        LineRow(2, uuid4(), None, True, None, None),
        LineRow(4, None, None, False, "not_json", "Send JSON."),
    ]
    shown = [
        line_of(row).model_dump(mode="json", by_alias=True, exclude_unset=True) for row in rows
    ]
    assert b"[" + dump_lines(rows) + b"]" == orjson.dumps(shown)


def test_new_lines_are_dumped_as_those_of_the_ledger() -> None:
    ids = [uuid4(), uuid4()]
    rows = [LineRow(each, id_, State.QUEUED, False, None, None) for each, id_ in enumerate(ids)]
    queued = dump_queued([(each, str(id_)) for each, id_ in enumerate(ids)])
    assert queued == dump_lines(rows)
    assert BatchLine.model_validate(orjson.loads(b"[" + queued + b"]")[0]).id == ids[0]
