"""Hospital A writes DSTU2 (1.0.2), with the habits of real DSTU2 servers: ids of more than 64
characters or with an underscore, `issued` without a zone, Conditions without `patient`, and
references to resources that Apple Health never gets (Patient, Practitioner, Encounter)."""

from collections.abc import Iterator

from uplift.sandbox.export.entry import (
    CVX,
    LOINC,
    RXNORM,
    SNOMED,
    UCUM,
    Entry,
    Hospital,
    Json,
    concept,
    decimal,
    digest,
)
from uplift.sandbox.export.notes import attachment, stay_note, visit_note
from uplift.sandbox.export.person import (
    A1C,
    DIASTOLIC,
    LIPIDS,
    METABOLIC,
    PULSE,
    SYSTOLIC,
    TEMPERATURE,
    WEIGHT,
    Measure,
)

HOSPITAL = Hospital(
    "Lindenhof Community Hospital", "https://fhir.lindenhof.example.org/api/DSTU2", "1.0.2", True
)
PATIENT = {"reference": "Patient/Tbt3KuCY0B5PSrJvCu2j-PlK.aiHsu2xUjUM8bWpetXoB"}
PHYSICIAN = {"reference": "Practitioner/TItWfhjChtlo0pFh9nzctSQB", "display": "Dr. Henrike Löwe"}

VISITS = (
    "2014-05-12",
    "2014-11-17",
    "2015-05-18",
    "2015-11-02",
    "2016-04-25",
    "2016-10-24",
    "2017-03-13",
    "2017-09-18",
    "2018-05-07",
    "2018-11-12",
)
_PANEL_VISITS = VISITS[1::2]


def entries(seed: int) -> Iterator[Entry]:
    """Everything hospital A has, all of it valid but for what its habits bend."""
    for date in VISITS:
        for vital in _vitals(date, seed):
            yield Entry(HOSPITAL, vital, date, vital_sign=True)
        yield _entry(_laboratory(A1C, date, seed), date)
        yield _entry(_visit_note(date, seed), date)
    for date in _PANEL_VISITS:
        yield from _panel("24323-8", "Comprehensive metabolic panel", METABOLIC, date, seed)
        yield from _panel("57698-3", "Lipid panel with direct LDL", LIPIDS, date, seed)
    for build in (
        _conditions,
        _allergies,
        _immunizations,
        _medicines,
        _procedures,
        _coverage,
        _stay,
    ):
        for resource, date in build(seed):
            yield _entry(resource, date)


def _entry(resource: Json, date: str) -> Entry:
    return Entry(HOSPITAL, resource, date)


def _long_id(seed: int, *parts: object) -> str:
    # Epic's ids of that time: more than the 64 characters FHIR allows.
    return "T" + digest(seed, "a", *parts) + digest(*parts)[:7]


def _short_id(seed: int, *parts: object) -> str:
    # Cerner's: an underscore, which FHIR does not allow either.
    return f"d_{int(digest(seed, 'a', *parts)[:10], 16)}"


def _quantity(measure: Measure, value: str) -> Json:
    return {
        "value": decimal(value),
        "unit": measure.unit,
        "system": UCUM,
        "code": measure.code,
    }


def _observation(measure: Measure, date: str, seed: int, category: str) -> Json:
    return {
        "resourceType": "Observation",
        "id": _long_id(seed, measure.loinc, date),
        "status": "final",
        "category": {
            "coding": [{"system": "http://hl7.org/fhir/observation-category", "code": category}]
        },
        "code": concept(LOINC, measure.loinc, measure.display),
        "subject": PATIENT,
        "encounter": {"reference": f"Encounter/{_short_id(seed, 'encounter', date)}"},
        "effectiveDateTime": f"{date}T08:15:00Z",
        "issued": f"{date}T11:42:00",
    }


def _laboratory(measure: Measure, date: str, seed: int) -> Json:
    value = measure.at(date, seed)
    found = _observation(measure, date, seed, "laboratory")
    found["valueQuantity"] = _quantity(measure, value)
    limits = {
        name: {"value": decimal(limit), "unit": measure.unit}
        for name, limit in (("low", measure.low), ("high", measure.high))
        if limit is not None
    }
    found["referenceRange"] = [limits]
    if flag := measure.flag(value):
        found["interpretation"] = concept(
            "http://hl7.org/fhir/v2/0078", flag, {"H": "High", "L": "Low"}[flag]
        )
    return found


def _vitals(date: str, seed: int) -> Iterator[Json]:
    pressure = Measure("55284-4", "Blood pressure systolic and diastolic", "", "", 0, 0, ())
    both = _observation(pressure, date, seed, "vital-signs")
    both["component"] = [
        {
            "code": concept(LOINC, measure.loinc, measure.display),
            "valueQuantity": _quantity(measure, measure.at(date, seed)),
        }
        for measure in (SYSTOLIC, DIASTOLIC)
    ]
    yield both
    for measure in (PULSE, WEIGHT, TEMPERATURE):
        found = _observation(measure, date, seed, "vital-signs")
        found["valueQuantity"] = _quantity(measure, measure.at(date, seed))
        yield found


def _panel(
    loinc: str, display: str, measures: tuple[Measure, ...], date: str, seed: int
) -> Iterator[Entry]:
    results = [_laboratory(measure, date, seed) for measure in measures]
    yield from (_entry(result, date) for result in results)
    yield _entry(
        {
            "resourceType": "DiagnosticReport",
            "id": _long_id(seed, loinc, date),
            "status": "final",
            "category": concept("http://hl7.org/fhir/v2/0074", "LAB", "Laboratory"),
            "code": concept(LOINC, loinc, display),
            "subject": PATIENT,
            "effectiveDateTime": f"{date}T08:15:00Z",
            "issued": f"{date}T11:45:00",
            "performer": {"reference": "Organization/lab_7", "display": "Lindenhof Laboratory"},
            "result": [{"reference": f"Observation/{result['id']}"} for result in results],
        },
        date,
    )


def _conditions(seed: int) -> Iterator[tuple[Json, str]]:
    for code, icd, display, onset, ended in (
        ("59621000", "I10", "Essential hypertension", "2014-05-12", None),
        ("55822004", "E78.5", "Hyperlipidemia", "2014-11-17", None),
        ("44054006", "E11.9", "Diabetes mellitus type 2", "2015-11-02", None),
        ("162864005", "E66.9", "Body mass index 30+ - obesity", "2015-11-02", None),
        ("10509002", "J20.9", "Acute bronchitis", "2017-02-20", "2017-03-13"),
    ):
        condition: Json = {
            "resourceType": "Condition",
            "id": _short_id(seed, code),
            "asserter": PHYSICIAN,
            "dateRecorded": onset,
            "code": {
                "coding": [
                    {"system": SNOMED, "code": code, "display": display},
                    {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": icd},
                ],
                "text": display,
            },
            "category": concept("http://hl7.org/fhir/condition-category", "diagnosis", "Diagnosis"),
            "clinicalStatus": "resolved" if ended else "active",
            "verificationStatus": "confirmed",
            "onsetDateTime": onset,
        }
        if ended:
            condition["abatementDateTime"] = ended
        # Apple's own sample of a Condition has no patient either, though DSTU2 requires one.
        if code not in ("162864005", "10509002"):
            condition["patient"] = PATIENT
        yield condition, onset


def _allergies(seed: int) -> Iterator[tuple[Json, str]]:
    for system, code, display, category, reaction, severity in (
        (RXNORM, "7980", "penicillin G", "medication", ("247472004", "Weal"), "moderate"),
        (SNOMED, "256277009", "Grass pollen", "environment", ("70076002", "Rhinitis"), "mild"),
    ):
        yield (
            {
                "resourceType": "AllergyIntolerance",
                "id": _short_id(seed, code),
                "recordedDate": "2014-05-12T08:40:00Z",
                "patient": PATIENT,
                "substance": concept(system, code, display),
                "status": "active",
                "criticality": "CRITL",
                "type": "allergy",
                "category": category,
                "reaction": [{"manifestation": [concept(SNOMED, *reaction)], "severity": severity}],
            },
            "2014-05-12",
        )


def _immunizations(seed: int) -> Iterator[tuple[Json, str]]:
    for code, display, date in (
        ("140", "Influenza, seasonal, injectable, preservative free", "2014-11-17"),
        ("33", "pneumococcal polysaccharide vaccine, 23 valent", "2015-11-02"),
        ("150", "Influenza, injectable, quadrivalent, preservative free", "2015-11-02"),
        ("115", "tetanus toxoid, reduced diphtheria toxoid, and acellular pertussis", "2016-04-25"),
        ("150", "Influenza, injectable, quadrivalent, preservative free", "2017-09-18"),
    ):
        yield (
            {
                "resourceType": "Immunization",
                "id": _short_id(seed, code, date),
                "status": "completed",
                "date": date,
                "vaccineCode": concept(CVX, code, display),
                "patient": PATIENT,
                "wasNotGiven": False,
                "reported": False,
                "performer": PHYSICIAN,
                "lotNumber": digest(seed, code, date)[:7].upper(),
                "site": concept("http://hl7.org/fhir/v3/ActSite", "LA", "left arm"),
                "doseQuantity": {
                    "value": decimal("0.50"),
                    "unit": "mL",
                    "system": UCUM,
                    "code": "mL",
                },
            },
            date,
        )


def _medicines(seed: int) -> Iterator[tuple[Json, str]]:
    for code, display, date, text in (
        ("314076", "lisinopril 10 MG Oral Tablet", "2014-05-12", "1 tablet every morning"),
        ("617310", "atorvastatin 20 MG Oral Tablet", "2014-11-17", "1 tablet at bedtime"),
        (
            "861007",
            "metformin hydrochloride 500 MG Oral Tablet",
            "2015-11-02",
            "1 tablet twice daily",
        ),
        (
            "308191",
            "amoxicillin 500 MG Oral Capsule",
            "2017-02-20",
            "1 capsule 3 times a day, 7 days",
        ),
    ):
        medicine = concept(RXNORM, code, display)
        order = _short_id(seed, "order", code)
        yield (
            {
                "resourceType": "MedicationOrder",
                "id": order,
                "dateWritten": date,
                "status": "completed" if code == "308191" else "active",
                "patient": PATIENT,
                "prescriber": PHYSICIAN,
                "medicationCodeableConcept": medicine,
                "dosageInstruction": [
                    {
                        "text": text,
                        "route": concept(SNOMED, "26643006", "Oral route"),
                        "doseQuantity": {"value": 1, "unit": "tablet"},
                    }
                ],
                "dispenseRequest": {
                    "numberOfRepeatsAllowed": 3,
                    "quantity": {"value": decimal("90.0"), "unit": "tablet"},
                },
            },
            date,
        )
        yield (
            {
                "resourceType": "MedicationDispense",
                "id": _short_id(seed, "dispense", code),
                "status": "completed",
                "patient": PATIENT,
                "authorizingPrescription": [{"reference": f"MedicationOrder/{order}"}],
                "quantity": {"value": decimal("90.0"), "unit": "tablet"},
                "daysSupply": {"value": 90, "unit": "d", "system": UCUM, "code": "d"},
                "medicationCodeableConcept": medicine,
                "whenHandedOver": f"{date}T16:05:00+01:00",
            },
            date,
        )
    yield (
        {
            "resourceType": "MedicationStatement",
            "id": _short_id(seed, "statement", "243670"),
            "patient": PATIENT,
            "dateAsserted": "2016-04-25",
            "status": "active",
            "wasNotTaken": False,
            "effectivePeriod": {"start": "2016-01"},
            "medicationCodeableConcept": concept(RXNORM, "243670", "aspirin 81 MG Oral Tablet"),
            "dosage": [{"text": "1 tablet daily, bought without prescription"}],
        },
        "2016-04-25",
    )


def _procedures(seed: int) -> Iterator[tuple[Json, str]]:
    for code, display, date in (
        ("80146002", "Appendectomy", "1984-08"),
        ("29303009", "Electrocardiographic procedure", "2014-05-12"),
        ("73761001", "Colonoscopy", "2016-06-08"),
        ("24623002", "Screening mammography", "2018-05-07"),
    ):
        yield (
            {
                "resourceType": "Procedure",
                "id": _short_id(seed, code),
                "subject": PATIENT,
                "status": "completed",
                "code": concept(SNOMED, code, display),
                "performedDateTime": date,
                "performer": [{"actor": PHYSICIAN}],
            },
            "2014-05-12" if len(date) < 10 else date,
        )


def _coverage(seed: int) -> Iterator[tuple[Json, str]]:
    yield (
        {
            "resourceType": "Coverage",
            "id": _short_id(seed, "coverage"),
            "issuer": {"display": "Harbor Mutual Health Plan (invented)"},
            "period": {"start": "2013-01-01", "end": "2018-12-31"},
            "type": {"system": "http://hl7.org/fhir/v3/ActCode", "code": "EHCPOL"},
            "subscriberId": {"value": "HM-0042-7719"},
            "group": "CAFÉ-OWNERS",
            "plan": "B37FC",
            "sequence": 1,
            "subscriber": PATIENT,
        },
        "2014-05-12",
    )


def _document(identifier: str, loinc: str, title: str, date: str, text: str) -> Json:
    return {
        "resourceType": "DocumentReference",
        "id": identifier,
        "subject": PATIENT,
        "type": concept(LOINC, loinc, title),
        "author": [PHYSICIAN],
        "created": date,
        "indexed": f"{date}T17:30:00Z",
        "status": "current",
        "description": title,
        "content": [{"attachment": attachment(title, text)}],
        "context": {"period": {"start": date, "end": date}},
    }


def _visit_note(date: str, seed: int) -> Json:
    text = visit_note(date, HOSPITAL.name, seed)
    return _document(_long_id(seed, "note", date), "11506-3", "Progress note", date, text)


def _stay(seed: int) -> Iterator[tuple[Json, str]]:
    date = "2017-02-23"
    text = stay_note(date, HOSPITAL.name, "acute bronchitis with dyspnoea", 3 * 24 * 60, seed)
    yield (
        _document(_long_id(seed, "stay", date), "18842-5", "Discharge summary", date, text),
        date,
    )
