"""What a server refuses before it looks at the references: size, media type, narrative, notes."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from uplift.sandbox.servers.outcomes import Refusal
from uplift.sandbox.servers.profile import Profile

_MEDIA_TYPE = "application/fhir+json"
_XHTML = "{http://www.w3.org/1999/xhtml}"
# https://hl7.org/fhir/R4/narrative.html#rules: HTML 4.0's text elements, tables, lists and images.
_HTML = """
a abbr acronym address b big blockquote br caption cite code col colgroup dd dfn div dl dt em
h1 h2 h3 h4 h5 h6 hr i img li ol p pre q samp small span strong sub sup table tbody td tfoot th
thead tr tt ul var
"""
_ELEMENTS = frozenset(_HTML.split())


def check_media_type(content_type: str, profile: Profile) -> None:
    """Raise Refusal (415) for another media type than FHIR's JSON, where that is asked for."""
    if profile.needs_media_type and content_type.partition(";")[0].strip() != _MEDIA_TYPE:
        raise Refusal(415, f"Content-Type must be {_MEDIA_TYPE}")


def check_limits(resource: dict[str, Any], size: int, profile: Profile) -> None:
    """Raise Refusal for a resource of so many bytes that is too large, or not as it must be."""
    if profile.max_bytes is not None and size > profile.max_bytes:
        raise Refusal(413, f"The resource has more than {profile.max_bytes} bytes")
    if profile.max_note is not None and any(
        len(note) > profile.max_note for note in _notes(resource)
    ):
        raise Refusal(400, f"A note has more than {profile.max_note} characters")
    if profile.checks_narrative:
        for div in _narratives(resource):
            _check_narrative(div)


def is_within(resource: dict[str, Any], size: int, profile: Profile) -> bool:
    """Whether `check_limits` lets it pass."""
    try:
        check_limits(resource, size, profile)
    except Refusal:
        return False
    return True


def check_entries(number: int, profile: Profile) -> None:
    """Raise Refusal (400) for a Bundle of more entries than are taken."""
    if profile.max_entries is not None and number > profile.max_entries:
        raise Refusal(400, f"The Bundle has more than {profile.max_entries} entries")


def _notes(resource: dict[str, Any]) -> Iterator[bytes]:
    if resource["resourceType"] != "DocumentReference":
        return
    contents = resource.get("content")
    for content in contents if isinstance(contents, list) else []:
        attachment = content.get("attachment") if isinstance(content, dict) else None
        attachment = attachment if isinstance(attachment, dict) else {}
        if str(attachment.get("contentType")).startswith("text/"):
            try:
                yield base64.b64decode(str(attachment.get("data", "")), validate=True)
            except binascii.Error:
                raise Refusal(400, "The data of an attachment is not base64") from None


def _narratives(resource: dict[str, Any]) -> Iterator[str]:
    contained = resource.get("contained")
    for each in (resource, *(contained if isinstance(contained, list) else [])):
        text = each.get("text") if isinstance(each, dict) else None
        if isinstance(text, dict) and isinstance(text.get("div"), str):
            yield text["div"]


def _check_narrative(div: str) -> None:
    try:
        root = ElementTree.fromstring(div)  # noqa: S314  a simulated server, for tests
    except ElementTree.ParseError:
        raise Refusal(400, "The narrative is not XML") from None
    if root.tag not in ("div", f"{_XHTML}div"):
        raise Refusal(400, "The narrative is not a div")
    for element in root.iter():
        if element.tag.removeprefix(_XHTML) not in _ELEMENTS:
            raise Refusal(400, f"The narrative has an element that is not allowed: {element.tag}")
        if any(name.startswith("on") for name in element.attrib):
            raise Refusal(400, "The narrative has an attribute that is not allowed")
