"""Two records with what a client may lose: elements of every shape that FHIR has."""

from typing import Any

R4: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "full-r4",
    "meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/bp"]},
    "language": "de",
    "text": {
        "status": "generated",
        "div": '<div xmlns="http://www.w3.org/1999/xhtml">Blutdruck: 107/60 — „normal“</div>',
    },
    "contained": [
        {"resourceType": "Practitioner", "id": "p", "name": [{"family": "Müller", "given": ["Ä"]}]}
    ],
    "extension": [
        {"url": "http://example.org/device", "valueBoolean": False},
        {
            "url": "http://example.org/nested",
            "extension": [{"url": "deep", "valueDecimal": 0.000001}],
        },
    ],
    "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:187e0c12"}],
    "status": "final",
    "category": [
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                    "code": "vital-signs",
                }
            ]
        }
    ],
    "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}], "text": "Blutdruck"},
    "subject": {"reference": "Patient/p1", "display": "Zoë 🩺"},
    "effectivePeriod": {
        "start": "2012-09-17T08:00:00+02:00",
        "_end": {"extension": [{"url": "http://example.org/unknown", "valueCode": "unknown"}]},
    },
    "performer": [{"reference": "#p"}],
    "component": [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
            "valueQuantity": {
                "value": 107.25,
                "unit": "mmHg",
                "system": "http://unitsofmeasure.org",
                "code": "mm[Hg]",
            },
        },
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": "8462-4"}]},
            "dataAbsentReason": {"text": "null, true & <false>"},
        },
    ],
}

DSTU2: dict[str, Any] = {
    "resourceType": "MedicationOrder",
    "id": "full-dstu2",
    "text": {
        "status": "generated",
        "div": '<div xmlns="http://www.w3.org/1999/xhtml">Amoxicillin</div>',
    },
    "extension": [{"url": "http://example.org/note", "valueString": 'a\\b "c" \u2028'}],
    "identifier": [{"system": "http://example.org/orders", "value": "12-345"}],
    "dateWritten": "2015-01-15",
    "status": "active",
    "patient": {"reference": "Patient/p1", "display": "Ana"},
    "prescriber": {"reference": "Practitioner/f007"},
    "note": "with food",
    "medicationCodeableConcept": {
        "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "308182"}]
    },
    "dosageInstruction": [
        {
            "text": "1 tablet, every 8 hours",
            "asNeededBoolean": False,
            "timing": {"repeat": {"frequency": 1, "period": 8.5, "periodUnits": "h"}},
            "doseQuantity": {"value": 1, "unit": "tablet"},
        }
    ],
    "dispenseRequest": {
        "numberOfRepeatsAllowed": 2,
        "quantity": {"value": 21.5, "unit": "tablet"},
        "validityPeriod": {"start": "2015-01-15", "end": "2016-01-15"},
    },
}

BY_VERSION = {"R4": R4, "DSTU2": DSTU2}
