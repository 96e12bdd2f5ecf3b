"""Two records under one type and id, with different labels: one or two?"""

import pytest

from uplift.same_record import Origin, Verdict, judge

A, B, S, T = b"a", b"b", b"s", b"t"
NOBODY = Origin(None, None)


@pytest.mark.parametrize(
    ("one", "other", "equal", "different"),
    [
        # Labels alone: equal content says that they are names of one source.
        (Origin(A, None), Origin(B, None), Verdict.SAME_SOURCE, Verdict.COLLIDE),
        (Origin(A, S), Origin(B, None), Verdict.SAME_SOURCE, Verdict.COLLIDE),
        # Two servers are never one source, whatever the labels.
        (Origin(A, S), Origin(B, T), Verdict.SAME_CONTENT, Verdict.COLLIDE),
        (Origin(A, S), Origin(A, T), Verdict.SAME_CONTENT, Verdict.COLLIDE),
        # One server has one record of a type and id.
        (Origin(A, S), Origin(B, S), Verdict.SAME_SOURCE, Verdict.SAME_RECORD),
        # Without a label, only equal content joins.
        (NOBODY, Origin(A, None), Verdict.SAME_RECORD, Verdict.COLLIDE),
        (NOBODY, Origin(A, S), Verdict.SAME_RECORD, Verdict.COLLIDE),
        (Origin(A, None), NOBODY, Verdict.SAME_RECORD, Verdict.COLLIDE),
        (NOBODY, NOBODY, Verdict.SAME_RECORD, Verdict.COLLIDE),
        # One source with two record ids.
        (Origin(A, None), Origin(A, None), Verdict.SAME_RECORD, Verdict.COLLIDE),
    ],
)
def test_what_labels_servers_and_content_say(
    one: Origin, other: Origin, equal: Verdict, different: Verdict
) -> None:
    for pair in ((one, other), (other, one)):
        assert judge(*pair, same_content=True, same_source=False) is equal
        assert judge(*pair, same_content=False, same_source=False) is different


def test_names_of_one_source_have_one_record_unless_their_servers_differ() -> None:
    assert (
        judge(Origin(A, S), Origin(B, None), same_content=False, same_source=True)
        is Verdict.SAME_RECORD
    )
    assert (
        judge(Origin(A, S), Origin(B, T), same_content=False, same_source=True) is Verdict.COLLIDE
    )
