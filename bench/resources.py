"""Synthetic resources of about 2 KB, valid FHIR R4, each with an id of its own."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import orjson

from uplift.sandbox.export import hospital_a, hospital_b
from uplift.sandbox.export.make_export import SEED

BYTES = 2048
ID_LENGTH = 24
_PLACE = "0" * ID_LENGTH

_OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": _PLACE,
    "status": "final",
    "category": [
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                    "code": "vital-signs",
                    "display": "Vital Signs",
                }
            ]
        }
    ],
    "code": {
        "coding": [{"system": "http://loinc.org", "code": "85354-9", "display": "Blood pressure"}],
        "text": "Blood pressure",
    },
    "subject": {"reference": "Patient/p-1"},
    "effectiveDateTime": "2024-05-06T07:08:09+02:00",
    "issued": "2024-05-06T07:09:00.000+02:00",
    "performer": [{"reference": "Practitioner/dr-1", "display": "Dr. Example"}],
    "component": [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": name}]},
            "valueQuantity": {
                "value": value,
                "unit": "mm[Hg]",
                "system": "http://unitsofmeasure.org",
                "code": "mm[Hg]",
            },
        }
        for code, name, value in (
            ("8480-6", "Systolic blood pressure", 118),
            ("8462-4", "Diastolic blood pressure", 76.5),
        )
    ],
}

_CONDITION: dict[str, Any] = {
    "resourceType": "Condition",
    "id": _PLACE,
    "clinicalStatus": {
        "coding": [
            {
                "system": "http://terminology.hl7.org/CodeSystem/condition-clinical",
                "code": "active",
            }
        ]
    },
    "verificationStatus": {
        "coding": [
            {
                "system": "http://terminology.hl7.org/CodeSystem/condition-ver-status",
                "code": "confirmed",
            }
        ]
    },
    "category": [
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/condition-category",
                    "code": "problem-list-item",
                    "display": "Problem List Item",
                }
            ]
        }
    ],
    "code": {
        "coding": [
            {"system": "http://snomed.info/sct", "code": "195967001", "display": "Asthma"},
            {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "J45.909"},
        ],
        "text": "Asthma",
    },
    "subject": {"reference": "Patient/p-1"},
    "onsetDateTime": "2019-03-02",
    "recordedDate": "2019-03-04T10:11:12+01:00",
    "recorder": {"reference": "Practitioner/dr-1"},
}


def _template(resource: dict[str, Any]) -> tuple[str, bytes, bytes]:
    """The type, and the bytes before and after the id; a note makes it `BYTES` long."""
    sentence = "Seen in the clinic; no change since the last visit. "
    with_note = {**resource, "note": [{"text": ""}]}
    missing = BYTES - len(json.dumps(with_note))
    with_note["note"] = [{"text": (sentence * (missing // len(sentence) + 1))[: max(missing, 1)]}]
    before, _, after = json.dumps(with_note).partition(_PLACE)
    return resource["resourceType"], before.encode(), after.encode()


_TEMPLATES = [_template(_OBSERVATION), _template(_CONDITION)]


def body(label: str, number: int) -> tuple[str, bytes]:
    """One resource, Observation and Condition in turn: its type, and its bytes.

    `label`, of at most 12 letters and digits, and `number` make its id.
    """
    resource_type, before, after = _TEMPLATES[number % len(_TEMPLATES)]
    resource_id = f"{label}-{number:0{ID_LENGTH - len(label) - 1}d}"
    return resource_type, before + resource_id.encode() + after


def bodies(label: str, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` resources."""
    return (body(label, number) for number in range(count))


def of_all_types(label: str, count: int) -> Iterator[tuple[str, str, bytes]]:
    """`count` resources of HealthKit's types, DSTU2 and R4 in turn, of about 2 KB.

    Yields FHIR version, type and bytes.
    """
    entries = [*hospital_a.entries(SEED), *hospital_b.entries(SEED)]
    # The smallest of each: documents hold megabytes.
    entries.sort(key=lambda entry: len(entry.body), reverse=True)
    one_each = {(entry.hospital.fhir_version, entry.type): entry for entry in entries}
    chosen = itertools.islice(itertools.cycle(one_each.values()), count)
    for number, entry in enumerate(chosen):
        resource = {**entry.resource, "id": f"{label}-{number}"}
        missing = BYTES - len(orjson.dumps(resource))
        if missing > 0:
            text = "Seen in the clinic. " * (missing // 20)
            div = f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>'
            resource["text"] = {"status": "generated", "div": div}
        yield entry.hospital.fhir_version, entry.type, orjson.dumps(resource)
