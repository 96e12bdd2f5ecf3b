"""What a destination calls what it stored: only what can be asked for again."""

import httpx
import pytest

from uplift.destinations.receipts import receipt_in, receipt_of

UNUSABLE = ["", "é", 'a"b', "a\r\nX-Other: b", "a b", "1" * 257]


@pytest.mark.parametrize("version", UNUSABLE)
def test_a_version_that_no_if_match_can_name_counts_as_not_said(version: str) -> None:
    stored = {"resourceType": "Basic", "id": "a", "meta": {"versionId": version}}
    assert receipt_of(httpx.Headers(), stored).version is None
    assert receipt_of(httpx.Headers({"ETag": 'W/"3"'}), stored).version == "3"


def test_an_etag_that_no_if_match_can_name_counts_as_not_said() -> None:
    headers = httpx.Headers([(b"etag", 'W/"é"'.encode())])
    assert receipt_in(headers, "Basic").version is None


@pytest.mark.parametrize("version", ["1", "9000000000000", "a-B.3", "a_b:c/+=~"])
def test_a_version_that_an_if_match_can_name_is_kept(version: str) -> None:
    stored = {"resourceType": "Basic", "id": "a", "meta": {"versionId": version}}
    assert receipt_of(httpx.Headers(), stored).version == version
