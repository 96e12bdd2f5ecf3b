"""Whether a narrative is the plain XHTML of FHIR."""

import re
from html.entities import name2codepoint
from xml.parsers import expat

_XHTML = "http://www.w3.org/1999/xhtml"
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);", re.ASCII)
# https://hl7.org/fhir/R4/narrative.html: no active content, and no content from other places.
_FORBIDDEN_ELEMENTS = frozenset(
    {"script", "form", "input", "button", "select", "textarea", "object", "embed", "applet"}
    | {"iframe", "frame", "frameset", "head", "body", "html", "base", "link", "meta"}
)

_MAX_NARRATIVE_DEPTH = 100  # each open tag costs the parser memory


def narrative_objection(div: str) -> str | None:
    """What is wrong with a narrative, or None."""
    if not div.strip():
        return "The narrative is empty: leave the text out."
    try:
        return _Narrative().objection_to(div)
    except expat.ExpatError:
        return "The narrative is not well-formed XHTML."


class _Narrative:
    """One pass over a narrative."""

    def __init__(self) -> None:
        self._objection: str | None = None
        self._depth = 0
        self._has_content = False

    def objection_to(self, div: str) -> str | None:
        parser = self._parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        try:
            parser.Parse(_ENTITY.sub(_numeric, div), True)
        finally:
            del self._parser  # the two would keep each other alive until a garbage collection
        if self._objection is None and not self._has_content:
            return "The narrative has neither text nor an image."
        return self._objection

    def _object(self, words: str) -> None:
        self._objection = self._objection or words

    def _doctype(self, *_: object) -> None:
        # So no entity can be declared, and none can grow.
        raise expat.ExpatError("doctype")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        # HL7's own DSTU2 examples leave the namespace out.
        if self._depth == 0 and (local != "div" or namespace not in ("", _XHTML)):
            self._object(f'The narrative must be one <div xmlns="{_XHTML}">.')
        if local in _FORBIDDEN_ELEMENTS or (
            attributes and any(each.startswith("on") for each in attributes)
        ):
            self._object("The narrative contains active or foreign content.")
        self._has_content |= local == "img"
        self._depth += 1
        if self._depth > _MAX_NARRATIVE_DEPTH:
            raise expat.ExpatError("too deep")

    def _end(self, _: str) -> None:
        self._depth -= 1

    def _text(self, text: str) -> None:
        if text.strip():
            self._has_content = True
            self._parser.CharacterDataHandler = None  # the rest need not be seen


def _numeric(entity: re.Match[str]) -> str:
    """XHTML's named entities as numbers: XML knows only five by name."""
    name = entity[1]
    if name in _XML_ENTITIES or name not in name2codepoint:
        return entity[0]
    return f"&#{name2codepoint[name]};"
