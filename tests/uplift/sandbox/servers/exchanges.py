"""Requests, and what HAPI FHIR JPA answers. The sandbox and the real server are held to one table.

A story is a list of steps on resources of its own: `~` in a path or body becomes the story's own
word, so that stories do not meet. What a response says is written as words, in this order: the
status, HAPI's codes, the version of the ETag, the headers that give a place, and `source` when
the body has `meta.source`, or `empty` without a body. An entry of a Bundle is in brackets.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

_CODE = re.compile(r"HAPI-\d{4}")


@dataclass(frozen=True)
class Step:
    method: str
    path: str
    expected: str
    body: dict[str, Any] | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    dstu2: str | None = None
    """What DSTU2's base answers, where it differs."""

    def request(self, word: str) -> dict[str, Any]:
        """For httpx."""
        body = self.body if isinstance(self.body, bytes) else orjson.dumps(self.body)
        headers = {name: value.replace("~", word) for name, value in self.headers.items()}
        return {
            "method": self.method,
            "url": self.path.replace("~", word),
            "content": None if self.body is None else body.replace(b"~", word.encode()),
            "headers": {"Content-Type": "application/fhir+json", **headers},
        }

    def expected_of(self, version: str) -> str:
        return self.dstu2 if version == "dstu2" and self.dstu2 is not None else self.expected


def patient(**fields: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "p~", **fields}


def about(reference: str, **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": "o~",
        "status": "final",
        "code": {"text": "pulse"},
        "subject": {"reference": reference},
        **fields,
    }


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(resource: dict[str, Any], **request: str) -> dict[str, Any]:
    url = f"{resource['resourceType']}/{resource['id']}"
    return {"resource": resource, "request": {"method": "PUT", "url": url, **request}}


P, OB = "Patient/p~", "Observation/o~"
OWN = {"identifier": [{"system": "urn:s", "value": "~"}]}
NONE = {key: value for key, value in patient(**OWN).items() if key != "id"}
BY_IDENTIFIER = "Patient?identifier=urn:s%7C~"
CREATED = "201 v1 content-location"

STORIES: dict[str, list[Step]] = {
    "a put of a new id creates, and has no Location": [
        Step("PUT", P, f"{CREATED} source", patient(), dstu2=CREATED),
        Step("GET", P, "200 v1 content-location source", dstu2="200 v1 content-location"),
    ],
    "an equal put makes no version, and its answer has no source": [
        Step("PUT", P, f"{CREATED} source", patient(), dstu2=CREATED),
        Step("PUT", P, "200 v1 content-location", patient()),
        Step(
            "PUT",
            P,
            "200 v2 content-location source",
            patient(gender="male"),
            dstu2="200 v2 content-location",
        ),
        Step(
            "PUT",
            P,
            "200 v3 content-location source",
            patient(),
            dstu2="200 v3 content-location",
        ),
    ],
    "return=minimal answers without a body": [
        Step("PUT", P, f"{CREATED} empty", patient(), {"Prefer": "return=minimal"}),
        Step("PUT", P, "200 v1 content-location empty", patient(), {"Prefer": "return=minimal"}),
    ],
    "return=OperationOutcome answers with what was done": [
        Step("PUT", P, CREATED, patient(), {"Prefer": "return=OperationOutcome"}),
    ],
    "a stale If-Match is a 409, which DSTU2 does not look at": [
        Step("PUT", P, CREATED + " empty", patient(), {"Prefer": "return=minimal"}),
        Step(
            "PUT",
            P,
            "200 v2 content-location source",
            patient(gender="male"),
            {"If-Match": 'W/"1"'},
            dstu2="200 v2 content-location",
        ),
        Step(
            "PUT",
            P,
            "409 HAPI-0550 HAPI-0989",
            patient(gender="male"),
            {"If-Match": 'W/"1"'},
            dstu2="200 v2 content-location",
        ),
        Step(
            "PUT",
            P,
            "409 HAPI-0550 HAPI-0989",
            patient(gender="female"),
            {"If-Match": 'W/"1"'},
            dstu2="200 v3 content-location",
        ),
    ],
    "If-Match on an id that is not there creates it": [
        Step("PUT", P, f"{CREATED} source", patient(), {"If-Match": 'W/"1"'}, dstu2=CREATED),
    ],
    "If-None-Match is ignored": [
        Step("PUT", P, f"{CREATED} source", patient(), {"If-None-Match": "*"}, dstu2=CREATED),
        Step(
            "PUT",
            P,
            "200 v2 content-location source",
            patient(gender="male"),
            {"If-None-Match": "*"},
            dstu2="200 v2 content-location",
        ),
    ],
    "a delete leaves a 410, and a put brings it back": [
        Step("DELETE", P, "200 content-location"),
        Step("PUT", P, f"{CREATED} empty", patient(), {"Prefer": "return=minimal"}),
        Step("DELETE", P, "200 content-location"),
        Step("DELETE", P, "200 content-location"),
        Step("GET", P, "410"),
        Step(
            "GET",
            f"{P}/_history/1",
            "200 v1 content-location source",
            dstu2="200 v1 content-location",
        ),
        Step(
            "PUT",
            P,
            "409 HAPI-0550 HAPI-0989",
            patient(),
            {"If-Match": 'W/"1"'},
            dstu2="201 v3 content-location",
        ),
        Step(
            "PUT",
            P,
            "201 v3 content-location source",
            patient(),
            dstu2="200 v3 content-location",
        ),
    ],
    "what was never there is a 404": [
        Step("GET", P, "404 HAPI-2001"),
        Step("GET", "Patient/p~/_history/9", "404 HAPI-2001"),
    ],
    "ids of a put": [
        Step("PUT", P, "400 HAPI-0419", {"resourceType": "Patient"}),
        Step("PUT", P, "400 HAPI-0420", patient(id="other")),
        Step("PUT", "Patient/77", "400 HAPI-0960", patient(id="77")),
        Step("PUT", "Patient/a_b", "400 HAPI-0521", patient(id="a_b")),
        Step("PUT", f"Patient/{'x' * 80}", "400 HAPI-0521", patient(id="x" * 80)),
    ],
    "an id in the body of a post": [
        Step(
            "POST",
            "Patient",
            "201 v1 location content-location source",
            patient(),
            dstu2="400 HAPI-0366",
        ),
        Step("POST", P, "400 HAPI-0365", patient()),
    ],
    "a reference must lead to something": [
        Step("PUT", OB, "400 HAPI-1094", about("Patient/none~")),
        Step("PUT", OB, "400 HAPI-0507", about("https://other.example/Patient/1")),
        Step("PUT", OB, "400 HAPI-0505", about("urn:uuid:0b2d9f8e-6b3b-4e0c-8d5f-1b1f7a0b1c11")),
        Step("PUT", OB, "404 HAPI-1091", about(BY_IDENTIFIER.replace("%7C", "|"))),
        Step("PUT", P, f"{CREATED} empty", patient(), {"Prefer": "return=minimal"}),
        Step("PUT", OB, f"{CREATED} source", about(P), dstu2=CREATED),
        Step("DELETE", P, "409"),
    ],
    "a deleted target is none": [
        Step("PUT", P, f"{CREATED} empty", patient(), {"Prefer": "return=minimal"}),
        Step("DELETE", P, "200 content-location"),
        Step("PUT", OB, "400 HAPI-1096", about(P)),
    ],
    "a target of another type": [
        Step("PUT", P, f"{CREATED} empty", patient(), {"Prefer": "return=minimal"}),
        Step("PUT", OB, "422 HAPI-0931", about(P, encounter={"reference": P})),
    ],
    "references in contained resources and extensions are not looked at": [
        Step(
            "PUT",
            OB,
            f"{CREATED} empty",
            about(
                "#c",
                contained=[
                    {
                        "resourceType": "Observation",
                        "id": "c",
                        "subject": {"reference": "Patient/no"},
                    }
                ],
                extension=[{"url": "urn:x", "valueReference": {"reference": "Patient/no"}}],
            ),
            {"Prefer": "return=minimal"},
        ),
    ],
    "a display alone is taken": [
        Step(
            "PUT",
            OB,
            f"{CREATED} empty",
            {**about(""), "subject": {"display": "Somebody"}},
            {"Prefer": "return=minimal"},
        ),
    ],
    "what the parser does not take": [
        Step("PUT", P, "400 HAPI-0450 HAPI-1861", b"not JSON"),
        Step("PUT", P, "400 HAPI-0450 HAPI-1814", about(P)),
        Step(
            "PUT",
            P,
            "400 HAPI-0450 HAPI-1821",
            patient(gender="nonsense"),
            dstu2=CREATED,
        ),
        Step("PUT", P, "400 HAPI-0450 HAPI-1821", patient(birthDate="yesterday")),
        Step("PUT", "Foo/f~", "404 HAPI-0302", {"resourceType": "Foo", "id": "f~"}),
    ],
    "a conditional create": [
        Step(
            "POST",
            "Patient",
            "201 v1 location content-location source",
            NONE,
            {"If-None-Exist": "identifier=urn:s|~"},
            dstu2="201 v1 location content-location",
        ),
        Step(
            "POST",
            "Patient",
            "200 v1 location content-location source",
            {**NONE, "gender": "male"},
            {"If-None-Exist": "identifier=urn:s|~"},
            dstu2="200 v1 location content-location",
        ),
        Step(
            "POST",
            "Patient",
            "400 HAPI-0929",
            NONE,
            {"If-None-Exist": "identifier=urn:s|other~"},
        ),
        Step(
            "POST",
            "Patient",
            "201 v1 location content-location empty",
            NONE,
            {"Prefer": "return=minimal"},
        ),
        Step(
            "POST",
            "Patient",
            "412 HAPI-0958",
            NONE,
            {"If-None-Exist": "identifier=urn:s|~"},
        ),
        Step("PUT", BY_IDENTIFIER, "412 HAPI-0988", NONE),
    ],
    "a conditional update": [
        Step("PUT", BY_IDENTIFIER, f"{CREATED} source", NONE, dstu2=CREATED),
        Step("PUT", BY_IDENTIFIER, "200 v1 content-location", NONE),
        Step(
            "PUT",
            BY_IDENTIFIER,
            "200 v2 content-location source",
            {**NONE, "gender": "male"},
            dstu2="200 v2 content-location",
        ),
    ],
    "a search keeps what it found": [
        Step("GET", BY_IDENTIFIER, "200 total 0"),
        Step("PUT", P, f"{CREATED} empty", patient(**OWN), {"Prefer": "return=minimal"}),
        Step("GET", BY_IDENTIFIER, "200 total 0"),
        Step("GET", BY_IDENTIFIER, "200 total 1", headers={"Cache-Control": "no-cache"}),
        Step("GET", BY_IDENTIFIER, "200 total 0"),
        Step(
            "GET",
            f"{BY_IDENTIFIER}&_summary=count",
            "200 total 1",
            headers={"Cache-Control": "no-cache"},
        ),
    ],
    "a search of its own parameters": [Step("GET", "Patient?nonsense=1", "400 HAPI-0524")],
    "a batch": [
        Step(
            "POST",
            "",
            "200 location content-location [201 etag 1] [201 etag 1] [400 HAPI-1094]",
            bundle(
                "batch",
                entry(patient()),
                entry(about(P)),
                entry(about("Patient/none~", id="x~")),
            ),
        ),
        Step(
            "POST",
            "",
            "200 location content-location [409 HAPI-0550 HAPI-0989] [200 etag 1] [200 etag 2]",
            bundle(
                "batch",
                entry(patient(gender="male"), ifMatch='W/"7"'),
                entry(patient()),
                entry(patient(gender="female")),
            ),
        ),
        Step(
            "POST",
            "",
            "200 location content-location [409 HAPI-0550 HAPI-0515] [204 etag 2]",
            bundle(
                "batch",
                {"request": {"method": "DELETE", "url": P}},
                {"request": {"method": "DELETE", "url": OB}},
            ),
        ),
    ],
    "an entry shows its resource when that is preferred, and never in DSTU2": [
        Step(
            "POST",
            "",
            "200 location content-location [201 etag 1 source]",
            bundle("batch", entry(patient())),
            {"Prefer": "return=representation"},
            dstu2="200 location content-location [201 etag 1]",
        ),
    ],
    "a transaction takes any order": [
        Step(
            "POST",
            "",
            "200 location content-location [201 etag 1] [201 etag 1]",
            bundle("transaction", entry(about(P)), entry(patient())),
        ),
    ],
    "a transaction is refused as a whole": [
        Step(
            "POST",
            "",
            "400 HAPI-1094",
            bundle("transaction", entry(patient()), entry(about("Patient/none~"))),
        ),
        Step(
            "POST",
            "",
            "400 HAPI-0535",
            bundle("transaction", entry(patient()), entry(patient(gender="male"))),
        ),
        Step("GET", P, "404 HAPI-2001"),
    ],
    "an entry that does not parse spoils the whole Bundle": [
        *(
            Step("POST", "", expected, bundle(kind, entry(patient()), entry(bad)))
            for kind in ("batch", "transaction")
            for bad, expected in (
                (patient(id="q~", birthDate="yesterday"), "400 HAPI-0450 HAPI-1821"),
                ({"resourceType": "Foo", "id": "f"}, "400 HAPI-0450 HAPI-1684"),
            )
        ),
        Step("GET", P, "404 HAPI-2001"),
    ],
    "a Bundle of another kind": [
        Step("POST", "", "400 HAPI-0527", bundle("document")),
        Step("POST", "", "400 HAPI-0450 HAPI-1814", patient()),
    ],
    "the capability statement": [
        Step("GET", "metadata", "200 content-location 4.0.1", dstu2="200 1.0.2")
    ],
}


def seen(response: httpx.Response) -> str:
    """A response in words."""
    words = [str(response.status_code)]
    body = response.json() if response.content else {}
    kind = body.get("resourceType")
    if kind == "OperationOutcome":
        words += _codes(body)
    if tag := response.headers.get("etag"):
        words.append(f"v{tag.removeprefix('W/').strip(chr(34))}")
    if response.is_success:
        words += [name for name in ("location", "content-location") if name in response.headers]
    if not response.content:
        words.append("empty")
    elif "source" in body.get("meta", {}):
        words.append("source")
    elif "fhirVersion" in body:
        words.append(body["fhirVersion"])
    elif body.get("type") == "searchset":
        words.append(f"total {body['total']}")
    words += [f"[{_entry(each)}]" for each in body.get("entry", ()) if "response" in each]
    return " ".join(words)


def _entry(entry: dict[str, Any]) -> str:
    response, resource = entry["response"], entry.get("resource", {})
    words = [response["status"].split()[0]]
    if "etag" in response:
        words.append(f"etag {response['etag']}")
    outcome = response.get("outcome") or resource
    words += _codes(outcome)
    if "source" in resource.get("meta", {}):
        words.append("source")
    return " ".join(words)


def _codes(outcome: dict[str, Any]) -> list[str]:
    issue = outcome["issue"][0]
    return _CODE.findall(issue["diagnostics"])[:2] if issue["severity"] == "error" else []


def differences(client: httpx.Client, version: str, title: str, steps: list[Step]) -> list[str]:
    """What a server, by a client at its base, answers otherwise than the table says."""
    word = re.sub(r"[^a-z]", "", title)[:40]
    found = []
    for number, step in enumerate(steps, 1):
        response = client.request(**step.request(word))
        said, expected = seen(response), step.expected_of(version)
        if said != expected:
            found.append(f"step {number}: {step.method} {step.path}: {said}, and not {expected}")
    return found
