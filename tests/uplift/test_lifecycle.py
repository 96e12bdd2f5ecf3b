"""The table of states, against the one in the design, spelled out here a second time."""

from itertools import product

import pytest

from uplift.lifecycle import DEAD_LETTERS, IN_PROGRESS, TRANSITIONS, UNFINISHED, State, allowed

_WAYS = {
    "queued": {"sending", "cancelled", "superseded", "parked", "expired", "refused"},
    "sending": {"delivered", "rejected", "refused", "queued", "parked", "expired", "cancelled"},
    "parked": {"queued", "cancelled", "superseded", "expired", "refused"},
    "delivered": set(),
    "rejected": {"queued", "superseded"},
    "refused": {"queued", "superseded"},
    "expired": {"queued", "superseded"},
    "cancelled": set(),
    "superseded": set(),
}


@pytest.mark.parametrize(("source", "target"), list(product(State, State)))
def test_an_upload_goes_only_where_the_design_says(source: State, target: State) -> None:
    assert allowed(source, target) is (target.value in _WAYS[source.value])


def test_every_state_has_its_row_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_state_can_be_reached_from_queued() -> None:
    reached, new = {State.QUEUED}, {State.QUEUED}
    while new:
        new = {target for source in new for target in TRANSITIONS[source]} - reached
        reached |= new
    assert reached == set(State)


def test_no_state_leads_to_itself() -> None:
    assert not any(allowed(state, state) for state in State)


def test_only_a_claim_leads_to_sending_and_only_sending_to_delivered() -> None:
    assert [source for source in State if allowed(source, State.SENDING)] == [State.QUEUED]
    assert [source for source in State if allowed(source, State.DELIVERED)] == [State.SENDING]


def test_from_a_final_state_only_a_redrive_leads_on() -> None:
    for state in State:
        if state.final:
            assert TRANSITIONS[state] in (set(), {State.QUEUED, State.SUPERSEDED})


def test_dead_letters_are_what_a_redrive_can_queue() -> None:
    assert {state for state in State if state.final and TRANSITIONS[state]} == DEAD_LETTERS


@pytest.mark.parametrize("state", State)
def test_only_what_waits_for_a_person_is_neither_in_progress_nor_final(state: State) -> None:
    assert state.final == (state not in UNFINISHED)
    assert state.in_progress == (state in IN_PROGRESS)
    assert (not state.in_progress and not state.final) == (state is State.PARKED)
