"""A request to redrive many uploads must say which ones."""

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.api.calls import NOBODYS_ID
from uplift.api.control_schemas import RedriveRequest


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, 'Give a filter, or send {"all": true} to select every dead letter.'),
        ({"after": NOBODYS_ID}, "Give a filter"),
        ({"status": []}, "Give a filter"),
        ({"all": False}, "Input should be True"),
        ({"all": True, "status": ["expired"]}, '"all" selects every dead letter.'),
        ({"all": True, "user": "alice"}, '"all" selects every dead letter.'),
        ({"status": ["queued"]}, "Only rejected, refused and expired uploads can be redriven."),
        ({"everything": True}, "Extra inputs are not permitted"),
        ({"updatedSince": "2026-11-23T10:00:00"}, "Input should have timezone info"),
        ({"updatedSince": "2026"}, "Send a date and time as in RFC 3339"),
        ({"updatedSince": 1}, "Send a date and time as in RFC 3339"),
        ([], "Input should be an object"),
    ],
)
def test_a_redrive_that_does_not_say_which_uploads_is_refused_with_the_reason(
    wanted: Any, message: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        RedriveRequest.model_validate_json(orjson.dumps(wanted))
    assert refused.value.errors()[0]["msg"].removeprefix("Value error, ").startswith(message)


@pytest.mark.parametrize(
    "wanted",
    [
        {"all": True},
        {"status": ["expired", "refused"]},
        {"user": "alice"},
        {"updatedBefore": "2026-11-23T10:00:00Z", "after": NOBODYS_ID},
    ],
)
def test_a_filter_or_all_is_accepted(wanted: dict[str, Any]) -> None:
    RedriveRequest.model_validate_json(orjson.dumps(wanted))
