"""Kinds of one-defect mutants of HL7's examples.

A kind finds the sites of a document where its defect can be made; one of them is chosen by a seed
made of the kind and the file's name, so that a run repeats itself.
"""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tests.uplift.fhir.elements import Path, Site, elements, sites
from uplift.fhir.versions import FhirVersion

Document = dict[str, Any]


@dataclass(frozen=True)
class Mutant:
    """An example with one defect."""

    kind: str
    file: str
    resource_type: str
    body: bytes


@dataclass(frozen=True)
class _Kind:
    """`make` edits the document at the site, or returns other bytes in its place."""

    name: str
    where: Callable[[Site], bool]
    make: Callable[[Document, Site, FhirVersion], bytes | None]


_KINDS: list[_Kind] = []


def _parent(document: Any, path: Path) -> Any:
    for step in path[:-1]:
        document = document[step]
    return document


def _replaced(name: str, where: Callable[[Site], bool], value: Any) -> None:
    """A kind that puts a value, or what a function makes of the old one, in the site's place."""

    def make(document: Document, site: Site, _: FhirVersion) -> None:
        new = value(site.value) if callable(value) else value
        _parent(document, site.path)[site.path[-1]] = copy.deepcopy(new)

    _KINDS.append(_Kind(name, where, make))


def _edited(
    name: str, where: Callable[[Site], bool]
) -> Callable[[Callable[[Document, Site, FhirVersion], bytes | None]], None]:
    """A kind that edits the object around the site."""

    def register(make: Callable[[Document, Site, FhirVersion], bytes | None]) -> None:
        _KINDS.append(_Kind(name, where, make))

    return register


# --- where ----------------------------------------------------------------------------------------


def _of(*types: str) -> Callable[[Site], bool]:
    return lambda site: site.element.type in types and not isinstance(site.value, list | None)


def _single(site: Site) -> bool:
    return not isinstance(site.value, list)


def _array(site: Site) -> bool:
    return isinstance(site.value, list)


def _complex(site: Site) -> bool:
    return isinstance(site.value, dict) and site.element.type != "Resource"


def _text(site: Site) -> bool:
    return site.element.primitive and isinstance(site.value, str)


def _root(site: Site) -> bool:
    return len(site.path) == 1


def _resource_id(site: Site) -> bool:
    return site.element.name == "id" and "resourceType" in site.holder


def _without_twin(site: Site) -> bool:
    return f"_{site.element.name}" not in site.holder


def _required(site: Site) -> bool:
    alone = site.element.choice is None or site.value is not None
    of_record = site.holder_type != "Narrative"  # a kind of its own
    return site.element.required and not site.item and _without_twin(site) and alone and of_record


# --- presence and names ---------------------------------------------------------------------------


@_edited("required element left out, at the top", lambda site: _required(site) and _root(site))
def _(document: Document, site: Site, _: FhirVersion) -> None:
    del document[str(site.path[0])]


@_edited("required element left out, inside", lambda site: _required(site) and not _root(site))
def _(document: Document, site: Site, _: FhirVersion) -> None:
    holder = _parent(document, site.path)
    del holder[site.path[-1]]
    holder.setdefault("id", "keeps-this-from-being-empty")


@_edited("unknown element at the top", _root)
def _(document: Document, _site: Site, _: FhirVersion) -> None:
    document["favouriteColour"] = "blue"


@_edited("unknown element inside", _complex)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, (*site.path, ""))["favouriteColour"] = "blue"


@_edited("element's name in the wrong case", lambda site: not site.item)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    holder, name = _parent(document, site.path), str(site.path[-1])
    holder[name[0].upper() + name[1:]] = holder.pop(name)


@_edited("two types of a choice", lambda site: site.element.choice is not None)
def _(document: Document, site: Site, version: FhirVersion) -> None:
    choice = site.element.choice
    values = {"boolean": True, "integer": 1, "decimal": 1.5, "dateTime": "2020-01-01"}
    values |= {"string": "text", "CodeableConcept": {"text": "text"}, "Period": {"start": "2020"}}
    values |= {"Reference": {"display": "text"}, "Range": {"low": {"value": 1}}, "uri": "urn:x:y"}
    values |= {"Quantity": {"value": 1}, "Age": {"value": 1, "code": "a"}, "date": "2020-01-01"}
    for name, element in elements(version, site.holder_type).items():
        if element.choice == choice and name != site.element.name and element.type in values:
            _parent(document, site.path)[name] = values[element.type]
            return


@_edited("type that a choice does not have", lambda site: site.element.choice is not None)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    holder = _parent(document, site.path)
    del holder[site.path[-1]]
    # A Narrative is in no choice, not even the open ones.
    holder[f"{site.element.choice}Narrative"] = {"status": "empty", "div": "<div>text</div>"}


# --- shapes ---------------------------------------------------------------------------------------

_replaced("empty array", lambda site: _array(site), [])
_replaced("empty object", _complex, {})
_replaced("null", lambda site: not site.item and _without_twin(site), None)
_replaced("null item among objects", lambda site: site.item and _complex(site), None)
_replaced(
    "null item among primitives, without a twin",
    lambda site: site.item and site.element.primitive and _without_twin(site),
    None,
)
_replaced("one object where an array is due", _array, lambda value: value[0])
_replaced(
    "array where one value is due",
    lambda site: not site.element.many and not site.item,
    lambda value: [value],
)
_replaced("array in an array", _array, lambda value: [value])
_replaced("object for a primitive", _text, lambda value: {"value": value})
_replaced("text for an object", _complex, "text")
_replaced("number for an object", _complex, 7)


@_edited("twin that is no object", lambda site: _text(site) and not site.item)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, site.path)[f"_{site.path[-1]}"] = "text"


# --- primitives -----------------------------------------------------------------------------------

_replaced("empty string", _text, "")
_replaced("blank string", _text, "  ")
_replaced("number for a string", _text, 12)
_replaced("boolean for a string", _text, True)
_replaced("control character in a string", _of("string", "markdown"), lambda text: f"{text}\x07")
_replaced("U+0000 in a string", _of("string", "markdown"), lambda text: f"{text}\0")
_replaced('"true" for a boolean', _of("boolean"), lambda value: str(value).lower())
_replaced("1 for a boolean", _of("boolean"), 1)
_replaced('"1.50" for a decimal', _of("decimal"), lambda value: f"{value}0")
_replaced('"3" for an integer', _of("integer", "positiveInt", "unsignedInt"), str)
_replaced("1.5 for an integer", _of("integer", "positiveInt", "unsignedInt"), 1.5)
_replaced("integer beyond 32 bits", _of("integer", "positiveInt", "unsignedInt"), 2**31)
_replaced("negative count", _of("positiveInt", "unsignedInt"), -1)
_replaced("zero where 1 is the least", _of("positiveInt"), 0)
_replaced("code with a space at its end", _of("code"), lambda code: f"{code} ")
_replaced("code outside a required value set", lambda s: s.element.bound and _of("code")(s), "nope")
_replaced("month 13", _of("date", "dateTime", "instant"), lambda text: f"{text[:4]}-13{text[7:]}")
_replaced("date with a time", _of("date"), "2019-03-01T10:00:00Z")
_replaced("30 February", _of("date", "dateTime"), lambda text: f"{text[:4]}-02-30")
_replaced("29 February of a common year", _of("date", "dateTime"), "2019-02-29")
_replaced("date as 12/31/2019", _of("date", "dateTime"), "12/31/2019")
_replaced("hour 25", _of("dateTime", "instant"), "2019-03-01T25:00:00Z")
_replaced("dateTime without a zone", _of("dateTime"), "2019-03-01T10:00:00")
_replaced("instant without a zone", _of("instant"), lambda text: text[:19])
_replaced("instant that is a date", _of("instant"), lambda text: text[:10])
_replaced("URI with a space", _of("uri", "url", "canonical"), lambda uri: f"{uri} x")
_replaced("base64 with another character", _of("base64Binary"), lambda text: f"{text[:2]}~{text}")
_replaced("base64 cut short", _of("base64Binary"), lambda text: text.rstrip("=\n ")[:-3] + "A")
_replaced("id of 65 characters", _resource_id, "a" * 65)
_replaced("id with an underscore", _resource_id, lambda text: f"{text[:60]}_1")
_replaced("id with a slash", _resource_id, "a/b")


@_edited(
    "concept outside a required value set",
    lambda s: (
        s.element.type == "CodeableConcept"
        and s.element.bound
        and isinstance(s.value, dict)
        and "coding" in s.value
    ),
)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    for coding in _parent(document, (*site.path, ""))["coding"]:
        coding["code"] = "nope"


@_edited("attachment with data and without a type", lambda site: _data_of_attachment(site))
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, site.path).pop("contentType", None)


def _data_of_attachment(site: Site) -> bool:
    return site.holder_type == "Attachment" and site.element.name == "data"


# --- resources inside, references, text -----------------------------------------------------------


def _contained(site: Site) -> bool:
    return site.element.type == "Resource" and isinstance(site.value, dict)


@_edited("unknown type of a contained resource", _contained)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, (*site.path, ""))["resourceType"] = "Appointmint"


@_edited("contained resource without a type", _contained)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    del _parent(document, (*site.path, ""))["resourceType"]


@_edited("unknown element of a contained resource", _contained)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, (*site.path, ""))["favouriteColour"] = "blue"


@_edited("blank string in a contained resource", _contained)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, (*site.path, ""))["language"] = " "


@_edited("unknown resource type", _root)
def _(document: Document, _site: Site, _: FhirVersion) -> None:
    document["resourceType"] = "Observashun"


@_edited("no resource type", _root)
def _(document: Document, _site: Site, _: FhirVersion) -> None:
    del document["resourceType"]


@_edited(
    "reference to a type that is not allowed",
    lambda site: (
        bool(site.element.targets) and isinstance(site.value, dict) and "reference" in site.value
    ),
)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, (*site.path, ""))["reference"] = "Slot/1"


@_edited("period that ends before it starts", _of("Period"))
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, (*site.path, "")).update(start="2019-03-01", end="2019-02-01")


_replaced(
    "narrative with an open tag", _of("xhtml"), lambda div: div.replace("</div>", "<p></div>")
)
_replaced("narrative with a script", _of("xhtml"), lambda d: d.replace("</div>", "<script/></div>"))
_replaced("narrative that is plain text", _of("xhtml"), "text")
_replaced("narrative that is empty", _of("xhtml"), "")


@_edited("narrative left out of its text", _of("xhtml"))
def _(document: Document, site: Site, _: FhirVersion) -> None:
    del _parent(document, site.path)[site.path[-1]]


# --- the document ---------------------------------------------------------------------------------


@_edited("nothing but a type and an id", _root)
def _(document: Document, _site: Site, _: FhirVersion) -> None:
    for name in document.keys() - {"resourceType", "id"}:
        del document[name]


@_edited("nested too deep", _root)
def _(document: Document, _site: Site, _: FhirVersion) -> None:
    extension: Document = {"url": "urn:x:y", "valueString": "text"}
    for _level in range(40):
        extension = {"url": "urn:x:y", "extension": [extension]}
    document.setdefault("extension", []).append(extension)


@_edited("cut short", _root)
def _(document: Document, _site: Site, _: FhirVersion) -> bytes:
    return orjson.dumps(document)[:-1]


@_edited("lone surrogate", lambda site: _root(site) and _text(site) and site.element.name != "id")
def _(document: Document, site: Site, _: FhirVersion) -> bytes:
    document[str(site.path[0])] = "@@"
    return orjson.dumps(document).replace(b'"@@"', b'"\\ud800"')


# --- what no schema sees --------------------------------------------------------------------------


@_edited(
    "value beside a reason for its absence",
    lambda site: site.element.choice == "value" and site.holder_type == "Observation",
)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, site.path)["dataAbsentReason"] = {"text": "text"}


@_edited(
    "reference to a contained resource that is not there",
    lambda site: (
        site.element.type == "Reference"
        and isinstance(site.value, dict)
        and "reference" in site.value
    ),
)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, (*site.path, ""))["reference"] = "#not-there"


@_edited(
    "extension with both a value and extensions",
    lambda site: (
        site.element.type == "Extension"
        and isinstance(site.value, dict)
        and "extension" not in site.value
    ),
)
def _(document: Document, site: Site, _: FhirVersion) -> None:
    _parent(document, (*site.path, ""))["extension"] = [{"url": "urn:x:y", "valueCode": "a"}]


KINDS = tuple(kind.name for kind in _KINDS)


def mutants(version: FhirVersion, file: str, body: bytes) -> Iterator[Mutant]:
    """One mutant of the example for each kind of defect that it has a place for."""
    document = orjson.loads(body)
    places = list(sites(version, document))
    for kind in _KINDS:
        fitting = [site for site in places if kind.where(site)]
        if not fitting:
            continue
        site = random.Random(f"{kind.name} {file}").choice(fitting)
        changed = copy.deepcopy(document)
        made = kind.make(changed, site, version)
        if made is None:
            if changed == document:
                continue
            made = orjson.dumps(changed)
        yield Mutant(kind.name, file, document["resourceType"], made)
