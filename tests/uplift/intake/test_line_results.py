"""What a batch keeps of its lines for its answer."""

from uuid import uuid4

from uplift.intake.line_results import LineResults


def test_new_lines_are_kept_in_groups_with_their_numbers_and_ids() -> None:
    results, ids = LineResults(), [uuid4() for _ in range(3)]
    results.note([1, 4], ids[:2])
    results.note([50_000], ids[2:])

    assert results.complete
    assert list(results.queued()) == [
        [(1, str(ids[0])), (4, str(ids[1]))],
        [(50_000, str(ids[2]))],
    ]


def test_after_anything_else_the_ledger_is_asked_for_all_lines() -> None:
    results = LineResults()
    results.note([1], [uuid4()])
    results.note_others()
    results.note([3], [uuid4()])

    assert not results.complete
    assert list(results.queued()) == []
