"""What is asked about an upload that may be there, and what each finding means."""

from itertools import product
from typing import Any

import pytest

from uplift.delivery.reconcile import (
    ById,
    ByIdentifier,
    Case,
    Conclusion,
    Finding,
    LookUp,
    case_of,
    identifier_token,
    needs_equal_content,
    next_step,
)
from uplift.destinations.receipts import Receipt

TARGET, OWN, SEARCH = ById("target"), ById("own"), ByIdentifier("system|value")
OURS, OTHER, NEWER = Finding.OURS, Finding.OTHER, Finding.NEWER
NOTHING, FAILED = Finding.NOTHING, Finding.FAILED

Seen = list[tuple[LookUp, Finding]]


def case(**known: Any) -> Case:
    """A create that can only be looked up by its own id, which may not be kept."""
    return Case(
        **{
            "target": None,
            "own_id": "own",
            "identifier": None,
            "keeps_ids": False,
            "empty_searches": 0,
            **known,
        }
    )


CREATE = case()
KEPT = case(keeps_ids=True)
SEARCHED = case(identifier="system|value")
SEARCHED_BEFORE = case(identifier="system|value", empty_searches=1)
UPDATE = case(target="target")
UPDATE_KEPT = case(target="own", keeps_ids=True)
UPDATE_SEARCHED = case(target="target", identifier="system|value")
NO_ID = case(own_id=None)
NO_ID_SEARCHED = case(own_id=None, identifier="system|value")


@pytest.mark.parametrize(
    ("known", "seen", "step"),
    [
        # A create is looked up under its own id first.
        (CREATE, [], OWN),
        (CREATE, [(OWN, OURS)], Conclusion.STORED),
        (CREATE, [(OWN, FAILED)], Conclusion.LOOK_UP_AGAIN),
        (CREATE, [(OWN, NEWER)], Conclusion.NEWER),
        # An absent id proves nothing unless ids are kept.
        (CREATE, [(OWN, NOTHING)], Conclusion.CANNOT_TELL),
        (CREATE, [(OWN, OTHER)], Conclusion.CANNOT_TELL),
        (KEPT, [(OWN, NOTHING)], Conclusion.NOT_STORED),
        (KEPT, [(OWN, OTHER)], Conclusion.NOT_STORED),
        (KEPT, [(OWN, OURS)], Conclusion.STORED),
        (KEPT, [(OWN, FAILED)], Conclusion.LOOK_UP_AGAIN),
        # A kept id needs no search.
        (case(keeps_ids=True, identifier="system|value"), [(OWN, NOTHING)], Conclusion.NOT_STORED),
        # Otherwise its identifier is searched, twice if nothing is found.
        (SEARCHED, [(OWN, NOTHING)], SEARCH),
        (SEARCHED, [(OWN, OTHER)], SEARCH),
        (SEARCHED, [(OWN, FAILED)], Conclusion.LOOK_UP_AGAIN),
        (SEARCHED, [(OWN, NOTHING), (SEARCH, OURS)], Conclusion.STORED),
        (SEARCHED, [(OWN, NOTHING), (SEARCH, FAILED)], Conclusion.LOOK_UP_AGAIN),
        (SEARCHED, [(OWN, NOTHING), (SEARCH, NOTHING)], Conclusion.SEARCH_AGAIN),
        (SEARCHED_BEFORE, [(OWN, NOTHING), (SEARCH, NOTHING)], Conclusion.NOT_STORED),
        (SEARCHED_BEFORE, [(OWN, NOTHING), (SEARCH, OURS)], Conclusion.STORED),
        (SEARCHED_BEFORE, [(OWN, NOTHING), (SEARCH, FAILED)], Conclusion.LOOK_UP_AGAIN),
        # An update is where it was sent; its target is still there, so nothing was created.
        (UPDATE, [], TARGET),
        (UPDATE, [(TARGET, OURS)], Conclusion.STORED),
        (UPDATE, [(TARGET, OTHER)], Conclusion.NOT_STORED),
        (UPDATE, [(TARGET, FAILED)], Conclusion.LOOK_UP_AGAIN),
        # A target that vanished was created again.
        (UPDATE, [(TARGET, NOTHING)], OWN),
        (UPDATE, [(TARGET, NOTHING), (OWN, OURS)], Conclusion.STORED),
        (UPDATE, [(TARGET, NOTHING), (OWN, NOTHING)], Conclusion.CANNOT_TELL),
        (UPDATE_SEARCHED, [(TARGET, NOTHING), (OWN, NOTHING)], SEARCH),
        (UPDATE_KEPT, [], OWN),
        (UPDATE_KEPT, [(OWN, NOTHING)], Conclusion.NOT_STORED),
        (UPDATE_KEPT, [(OWN, OTHER)], Conclusion.NOT_STORED),
        # Without an id there is the identifier, or nothing.
        (NO_ID, [], Conclusion.CANNOT_TELL),
        (NO_ID_SEARCHED, [], SEARCH),
        (NO_ID_SEARCHED, [(SEARCH, NOTHING)], Conclusion.SEARCH_AGAIN),
        (case(own_id=None, keeps_ids=True), [], Conclusion.CANNOT_TELL),
        (
            case(own_id=None, keeps_ids=True, identifier="system|value", empty_searches=3),
            [(SEARCH, NOTHING)],
            Conclusion.NOT_STORED,
        ),
    ],
)
def test_each_case_has_its_next_step(known: Case, seen: Seen, step: LookUp | Conclusion) -> None:
    assert next_step(known, seen) == step


def _walks(known: Case) -> list[tuple[Seen, Conclusion]]:
    """Every sequence of findings that this case can have, with its conclusion."""
    ends: list[tuple[Seen, Conclusion]] = []
    open_: list[Seen] = [[]]
    while open_:
        seen = open_.pop()
        step = next_step(known, seen)
        if isinstance(step, Conclusion):
            ends.append((seen, step))
        else:
            assert step not in dict(seen)
            open_ += [[*seen, (step, finding)] for finding in Finding]
    return ends


@pytest.mark.parametrize(
    "known",
    [
        Case(
            target=target, own_id=own, identifier=identifier, keeps_ids=kept, empty_searches=before
        )
        for target, own, identifier, kept, before in product(
            (None, "own", "target"), (None, "own"), (None, "system|value"), (False, True), (0, 1, 5)
        )
    ],
)
def test_whatever_is_found_nothing_is_sent_without_a_proof_or_a_mark(known: Case) -> None:
    for seen, conclusion in _walks(known):
        findings = [finding for _, finding in seen]
        assert (conclusion is Conclusion.STORED) == (OURS in findings)
        assert (conclusion is Conclusion.LOOK_UP_AGAIN) == (FAILED in findings)
        assert (conclusion is Conclusion.NEWER) == (NEWER in findings)
        if conclusion is Conclusion.NOT_STORED:
            own_id_proves = known.keeps_ids and ById(known.own_id or "") in dict(seen)
            target_is_there = dict(seen).get(ById(known.target or "")) is OTHER
            searched_twice = known.empty_searches >= 1 and SEARCH in dict(seen)
            assert own_id_proves or target_is_there or searched_twice
        if conclusion is Conclusion.CANNOT_TELL:
            assert known.identifier is None
        if conclusion is Conclusion.SEARCH_AGAIN:
            assert known.empty_searches == 0


@pytest.mark.parametrize(
    ("identifier", "token"),
    [
        (None, None),
        ("text", None),
        ([], None),
        ([None, "text", 7], None),
        ([{}], None),
        ([{"value": ""}], None),
        ([{"value": 7}], None),
        ([{"system": "urn:s"}], None),
        ([{"value": "A-1"}], "A-1"),
        ([{"system": "", "value": "A-1"}], "A-1"),
        ([{"system": 7, "value": "A-1"}], "A-1"),
        ([{"system": "urn:s", "value": "A 1"}], "urn:s|A 1"),
        # A single one is no array in R4's Bundle, Composition and QuestionnaireResponse.
        ({"system": "urn:s", "value": "A-1"}, "urn:s|A-1"),
        ([{"value": "A-1"}, {"system": "urn:s", "value": "B-2"}], "urn:s|B-2"),
        ([{"system": "urn:s", "value": "B-2"}, {"system": "urn:t", "value": "C"}], "urn:s|B-2"),
        # These characters have a meaning in a search.
        ([{"system": "urn:s", "value": "A,1"}], None),
        ([{"system": "urn:s", "value": "A|1"}], None),
        ([{"system": "urn:s", "value": "A$1"}], None),
        ([{"system": "urn:s", "value": "A\\1"}], None),
        ([{"system": "urn:s,t", "value": "A"}], None),
        ([{"system": "urn:s", "value": " A"}], None),
        ([{"system": "urn:s", "value": "A\n"}], None),
        ([{"system": "urn:s", "value": "A\x00"}], None),
        ([{"system": "urn:s", "value": "A,1"}, {"value": "B-2"}], "B-2"),
        ([{"system": "urn:s", "value": "x" * 2000}], None),
        ([{"system": "urn:s", "value": "Größe"}], "urn:s|Größe"),
    ],
)
def test_an_identifier_is_searched_by_a_token_that_cannot_be_misread(
    identifier: Any, token: str | None
) -> None:
    assert identifier_token({"resourceType": "Observation", "identifier": identifier}) == token


IDENTIFIED = {"id": "own", "identifier": [{"system": "system", "value": "value"}]}


@pytest.mark.parametrize(
    ("resource", "version", "expected"),
    [
        ({"resourceType": "Observation", **IDENTIFIED}, "R4", SEARCHED),
        ({"resourceType": "Observation", **IDENTIFIED}, "DSTU2", SEARCHED),
        ({"resourceType": "Binary", **IDENTIFIED}, "DSTU2", SEARCHED),
        # 1upHealth cannot search these.
        ({"resourceType": "ObservationDefinition", **IDENTIFIED}, "R4", CREATE),
        ({"resourceType": "Observation", **IDENTIFIED}, "R5", CREATE),
        # These are no path segments, so they cannot be looked up.
        ({"resourceType": "Observation", "id": "."}, "R4", NO_ID),
        ({"resourceType": "Observation", "id": ".."}, "R4", NO_ID),
        ({"resourceType": "Observation", "id": ""}, "R4", NO_ID),
        ({"resourceType": "Observation", "id": 7}, "R4", NO_ID),
        ({"resourceType": "Observation"}, "R4", NO_ID),
    ],
)
def test_a_resource_is_looked_up_by_what_1uphealth_can_be_asked(
    resource: dict[str, Any], version: str, expected: Case
) -> None:
    found = case_of(resource, fhir_version=version, target=None, keeps_ids=False, empty_searches=0)
    assert found == expected


def test_a_target_that_no_url_can_address_is_not_looked_up() -> None:
    found = case_of(
        {"resourceType": "Observation", "id": "own"},
        fhir_version="R4",
        target="..",
        keeps_ids=False,
        empty_searches=2,
    )
    assert (found.target, found.empty_searches) == (None, 2)


@pytest.mark.parametrize(
    ("found", "delivered_id", "delivered_version", "older_without_receipt", "equal"),
    [
        # Nothing of the record was there: what looks like ours with additions is ours.
        (Receipt("9f", "1"), None, None, False, False),
        (None, None, None, False, False),
        # An update that arrived made another version.
        (Receipt("9f", "2"), "9f", "1", False, False),
        # A lost update leaves the version of the receipt, and no version tells nothing.
        (Receipt("9f", "1"), "9f", "1", False, True),
        (Receipt("9f", None), "9f", "1", False, True),
        (Receipt("9f", "2"), "9f", None, False, True),
        (None, "9f", "1", False, True),
        # Under another id, its versions say nothing of the one that was delivered.
        (Receipt("7e", "2"), "9f", "1", False, True),
        # An older version without a receipt may be what was found.
        (Receipt("9f", "2"), "9f", "1", True, True),
        (Receipt("9f", "1"), None, None, True, True),
    ],
)
def test_what_may_be_an_older_version_is_ours_only_if_it_is_equal(
    found: Receipt | None,
    delivered_id: str | None,
    delivered_version: str | None,
    older_without_receipt: bool,
    equal: bool,
) -> None:
    assert equal is needs_equal_content(
        found,
        delivered_id=delivered_id,
        delivered_version=delivered_version,
        older_without_receipt=older_without_receipt,
    )
