"""Hospital B writes R4 (4.0.1): indented JSON, letters of any alphabet, offsets in its times, and
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
    uuid_of,
)
from uplift.sandbox.export.notes import attachment, stay_note, visit_note
from uplift.sandbox.export.person import (
    A1C,
    BLOOD_COUNT,
    DIASTOLIC,
    HOME_GLUCOSE,
    LIPIDS,
    METABOLIC,
    OXYGEN,
    PATIENT_NAME,
    PULSE,
    SYSTOLIC,
    WEIGHT,
    Measure,
)

HOSPITAL = Hospital(
    "Clínica São Rafael & Partners", "https://api.saorafael.example.com/fhir/R4", "4.0.1", False
)
PATIENT = {"reference": "Patient/eJzlzKuMCbSU.tCNJG-hJmQ3", "display": PATIENT_NAME}
PHYSICIAN = {"reference": "Practitioner/e9s-IdXQOUVywHOVoisd6xQ3", "display": "Dra. Inês Araújo"}
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"

VISITS = (
    "2019-06-17",
    "2019-12-09",
    "2020-06-22",
    "2020-12-14",
    "2021-06-21",
    "2021-12-13",
    "2022-06-20",
    "2022-12-12",
    "2023-06-19",
    "2023-12-11",
    "2024-06-17",
    "2024-12-09",
)


def entries(seed: int) -> Iterator[Entry]:
    """Everything hospital B has, all of it valid."""
    for date in VISITS:
        for vital in _vitals(date, seed):
            yield Entry(HOSPITAL, vital, date, vital_sign=True)
        yield _entry(laboratory(A1C, date, seed), date)
    for date in VISITS[::2]:
        yield _entry(_visit_note(date, seed), date)
        yield from _panel("57698-3", "Lipid panel with direct LDL", LIPIDS, date, seed)
    for date in VISITS[1::4]:
        yield from _panel("24323-8", "Comprehensive metabolic panel", METABOLIC, date, seed)
        yield from _panel("58410-2", "CBC panel by Automated count", BLOOD_COUNT, date, seed)
    for build in (
        _conditions,
        _allergies,
        _immunizations,
        _medicines,
        _procedures,
        _coverage,
        _stays,
        _oddities,
    ):
        for resource, date in build(seed):
            yield _entry(resource, date)


def home_readings(seed: int, count: int) -> Iterator[Entry]:
    """Any number of glucose readings from home, several a day, to make an export large."""
    for number in range(count):
        day, reading = divmod(number, 4)
        date = f"{2020 + day // 336}-{day % 336 // 28 + 1:02}-{day % 28 + 1:02}"
        found = _observation(HOME_GLUCOSE, date, seed, "laboratory", f"{6 + reading * 4:02}:05:00")
        found["id"] = uuid_of(seed, "home", number)
        found["valueQuantity"] = _quantity(HOME_GLUCOSE, HOME_GLUCOSE.at(date, seed + reading))
        yield _entry(found, date)


def _entry(resource: Json, date: str) -> Entry:
    return Entry(HOSPITAL, resource, date)


def _quantity(measure: Measure, value: str) -> Json:
    return {"value": decimal(value), "unit": measure.unit, "system": UCUM, "code": measure.code}


def _observation(
    measure: Measure, date: str, seed: int, category: str, time: str = "09:20:00"
) -> Json:
    return {
        "resourceType": "Observation",
        "id": uuid_of(seed, "b", measure.loinc, date),
        "meta": {"versionId": "1", "lastUpdated": f"{date}T14:03:27.715Z"},
        "status": "final",
        "category": [
            concept(
                f"{_TERMINOLOGY}/observation-category",
                category,
                category.replace("-", " ").title(),
            )
        ],
        "code": concept(LOINC, measure.loinc, measure.display),
        "subject": PATIENT,
        "encounter": {"reference": f"Encounter/{uuid_of(seed, 'encounter', date)}"},
        "effectiveDateTime": f"{date}T{time}-03:00",
        "issued": f"{date}T14:03:27.715-03:00",
    }


def laboratory(measure: Measure, date: str, seed: int) -> Json:
    """A laboratory result of that day."""
    value = measure.at(date, seed)
    found = _observation(measure, date, seed, "laboratory")
    found["valueQuantity"] = _quantity(measure, value)
    if flag := measure.flag(value):
        found["interpretation"] = [
            concept(
                f"{_TERMINOLOGY}/v3-ObservationInterpretation",
                flag,
                {"H": "High", "L": "Low"}[flag],
            )
        ]
    limits = {
        name: {"value": decimal(limit), "unit": measure.unit, "system": UCUM, "code": measure.code}
        for name, limit in (("low", measure.low), ("high", measure.high))
        if limit is not None
    }
    found["referenceRange"] = [limits]
    return found


def _vitals(date: str, seed: int) -> Iterator[Json]:
    pressure = Measure("85354-9", "Blood pressure panel", "", "", 0, 0, ())
    both = _observation(pressure, date, seed, "vital-signs")
    both["component"] = [
        {
            "code": concept(LOINC, measure.loinc, measure.display),
            "valueQuantity": _quantity(measure, measure.at(date, seed)),
        }
        for measure in (SYSTOLIC, DIASTOLIC)
    ]
    yield both
    for measure in (PULSE, WEIGHT, OXYGEN):
        found = _observation(measure, date, seed, "vital-signs")
        found["valueQuantity"] = _quantity(measure, measure.at(date, seed))
        yield found


def _panel(
    loinc: str, display: str, measures: tuple[Measure, ...], date: str, seed: int
) -> Iterator[Entry]:
    results = [laboratory(measure, date, seed) for measure in measures]
    yield from (_entry(result, date) for result in results)
    yield _entry(
        {
            "resourceType": "DiagnosticReport",
            "id": uuid_of(seed, "b", loinc, date),
            "status": "final",
            "category": [concept(f"{_TERMINOLOGY}/v2-0074", "LAB", "Laboratory")],
            "code": concept(LOINC, loinc, display),
            "subject": PATIENT,
            "effectiveDateTime": f"{date}T09:20:00-03:00",
            "issued": f"{date}T14:05:00-03:00",
            "performer": [{"display": "Laboratório Central São Rafael"}],
            "result": [{"reference": f"Observation/{result['id']}"} for result in results],
        },
        date,
    )


def condition(seed: int, code: str, icd: str, display: str, onset: str) -> Json:
    """An active, confirmed problem."""
    return {
        "resourceType": "Condition",
        "id": uuid_of(seed, "b", code),
        "clinicalStatus": concept(f"{_TERMINOLOGY}/condition-clinical", "active", "Active"),
        "verificationStatus": concept(
            f"{_TERMINOLOGY}/condition-ver-status", "confirmed", "Confirmed"
        ),
        "category": [
            concept(f"{_TERMINOLOGY}/condition-category", "problem-list-item", "Problem List Item")
        ],
        "code": {
            "coding": [
                {"system": SNOMED, "code": code, "display": display},
                {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": icd},
            ],
            "text": display,
        },
        "subject": PATIENT,
        "onsetDateTime": onset,
        "recordedDate": "2019-06-17",
    }


def _conditions(seed: int) -> Iterator[tuple[Json, str]]:
    for code, icd, display, onset in (
        ("44054006", "E11.9", "Diabetes mellitus type 2", "2015-11"),
        ("59621000", "I10", "Essential hypertension", "2014"),
        ("55822004", "E78.5", "Hyperlipidemia", "2014-11-17"),
        ("239873007", "M17.11", "Osteoarthritis of knee", "2020-12-14"),
        ("367498001", "J30.2", "Seasonal allergic rhinitis", "2021-06-21T09:20:00-03:00"),
    ):
        yield condition(seed, code, icd, display, onset), "2019-06-17"


def _allergies(seed: int) -> Iterator[tuple[Json, str]]:
    for system, code, display, category, criticality in (
        (RXNORM, "7980", "penicillin G", "medication", "high"),
        (SNOMED, "111088007", "Latex", "environment", "low"),
        (SNOMED, "227493005", "Cashew nuts", "food", "unable-to-assess"),
    ):
        yield (
            {
                "resourceType": "AllergyIntolerance",
                "id": uuid_of(seed, "b", code),
                "clinicalStatus": concept(
                    f"{_TERMINOLOGY}/allergyintolerance-clinical", "active", "Active"
                ),
                "verificationStatus": concept(
                    f"{_TERMINOLOGY}/allergyintolerance-verification", "confirmed", "Confirmed"
                ),
                "type": "allergy",
                "category": [category],
                "criticality": criticality,
                "code": concept(system, code, display),
                "patient": PATIENT,
                "recordedDate": "2019-06-17T09:41:00-03:00",
                "reaction": [
                    {
                        "manifestation": [concept(SNOMED, "247472004", "Weal")],
                        "severity": "moderate",
                    }
                ],
            },
            "2019-06-17",
        )


def immunization(seed: int, code: str, display: str, date: str) -> Json:
    """A vaccine that was given."""
    return {
        "resourceType": "Immunization",
        "id": uuid_of(seed, "b", code, date),
        "status": "completed",
        "vaccineCode": concept(CVX, code, display),
        "patient": PATIENT,
        "occurrenceDateTime": date,
        "primarySource": True,
        "lotNumber": digest(seed, code, date)[:7].upper(),
        "site": concept(f"{_TERMINOLOGY}/v3-ActSite", "LA", "left arm"),
        "doseQuantity": {"value": decimal("0.50"), "unit": "mL", "system": UCUM, "code": "mL"},
        "performer": [{"actor": PHYSICIAN}],
    }


def _immunizations(seed: int) -> Iterator[tuple[Json, str]]:
    pfizer = "COVID-19, mRNA, LNP-S, PF, 30 mcg/0.3 mL dose"
    flu = "Influenza, injectable, quadrivalent, preservative free"
    for code, display, date in (
        ("150", flu, "2019-12-09"),
        ("150", flu, "2020-12-14"),
        ("208", pfizer, "2021-04-08"),
        ("208", pfizer, "2021-04-29"),
        ("187", "zoster vaccine recombinant", "2022-12-12"),
        ("187", "zoster vaccine recombinant", "2023-06-19"),
    ):
        yield immunization(seed, code, display, date), date
    # Nobody knows the day any more.
    unknown = immunization(seed, "43", "hepatitis B vaccine, adult dosage", "unknown")
    del unknown["occurrenceDateTime"]
    unknown["occurrenceString"] = "as a student, in the early 1980s"
    unknown["primarySource"] = False
    yield unknown, "2019-06-17"


def medication_request(seed: int, code: str, display: str, date: str, text: str) -> Json:
    """An active prescription."""
    return {
        "resourceType": "MedicationRequest",
        "id": uuid_of(seed, "b", "request", code),
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": concept(RXNORM, code, display),
        "subject": PATIENT,
        "authoredOn": date,
        "requester": PHYSICIAN,
        "dosageInstruction": [
            {
                "text": text,
                "timing": {"repeat": {"frequency": 1, "period": decimal("1.0"), "periodUnit": "d"}},
                "route": concept(SNOMED, "26643006", "Oral route"),
                "doseAndRate": [{"doseQuantity": {"value": 1, "unit": "tablet"}}],
            }
        ],
        "dispenseRequest": {
            "numberOfRepeatsAllowed": 3,
            "quantity": {"value": decimal("90.0"), "unit": "tablet"},
        },
    }


def _medicines(seed: int) -> Iterator[tuple[Json, str]]:
    for code, display, date, text in (
        ("314076", "lisinopril 10 MG Oral Tablet", "2019-06-17", "1 tablet every morning"),
        ("617311", "atorvastatin 40 MG Oral Tablet", "2019-12-09", "1 tablet at bedtime"),
        ("861007", "metformin hydrochloride 500 MG Oral Tablet", "2019-06-17", "1 twice daily"),
        ("1545653", "empagliflozin 10 MG Oral Tablet", "2020-12-14", "1 tablet every morning"),
        ("197361", "amlodipine 5 MG Oral Tablet", "2021-06-21", "1 tablet daily"),
    ):
        request = medication_request(seed, code, display, date, text)
        yield request, date
        yield (
            {
                "resourceType": "MedicationDispense",
                "id": uuid_of(seed, "b", "dispense", code),
                "status": "completed",
                "medicationCodeableConcept": request["medicationCodeableConcept"],
                "subject": PATIENT,
                "authorizingPrescription": [{"reference": f"MedicationRequest/{request['id']}"}],
                "quantity": {"value": decimal("90.0"), "unit": "tablet"},
                "daysSupply": {"value": 90, "unit": "d", "system": UCUM, "code": "d"},
                "whenHandedOver": f"{date}T17:48:00-03:00",
            },
            date,
        )
    for code, display, text in (
        ("243670", "aspirin 81 MG Oral Tablet", "1 tablet daily"),
        ("1014678", "cetirizine hydrochloride 10 MG Oral Tablet", "1 tablet when needed in spring"),
    ):
        yield (
            {
                "resourceType": "MedicationStatement",
                "id": uuid_of(seed, "b", "statement", code),
                "status": "active",
                "medicationCodeableConcept": concept(RXNORM, code, display),
                "subject": PATIENT,
                "effectivePeriod": {"start": "2019"},
                "dateAsserted": "2021-06-21",
                "dosage": [{"text": text}],
            },
            "2021-06-21",
        )


def procedure(seed: int, code: str, display: str, date: str) -> Json:
    """Something that was done."""
    return {
        "resourceType": "Procedure",
        "id": uuid_of(seed, "b", code, date),
        "status": "completed",
        "code": concept(SNOMED, code, display),
        "subject": PATIENT,
        "performedPeriod": {"start": f"{date}T10:00:00-03:00", "end": f"{date}T11:40:00-03:00"},
        "performer": [{"actor": PHYSICIAN}],
    }


def _procedures(seed: int) -> Iterator[tuple[Json, str]]:
    for code, display, date in (
        ("134395001", "Diabetic retinopathy screening", "2020-06-22"),
        ("401191002", "Diabetic foot examination", "2021-06-21"),
        ("609588000", "Total knee replacement", "2022-03-08"),
        ("24623002", "Screening mammography", "2023-06-19"),
    ):
        yield procedure(seed, code, display, date), date


def _coverage(seed: int) -> Iterator[tuple[Json, str]]:
    yield (
        {
            "resourceType": "Coverage",
            "id": uuid_of(seed, "b", "coverage"),
            "status": "active",
            "type": concept(f"{_TERMINOLOGY}/v3-ActCode", "EHCPOL", "extended healthcare"),
            "subscriberId": "PA-88-190244",
            "beneficiary": PATIENT,
            "relationship": concept(f"{_TERMINOLOGY}/subscriber-relationship", "self", "Self"),
            "period": {"start": "2019-01-01"},
            "payor": [{"display": "Plano Atlântico (invented)"}],
            "class": [
                {
                    "type": concept(f"{_TERMINOLOGY}/coverage-class", "group", "Group"),
                    "value": "CAFÉ-3",
                }
            ],
        },
        "2019-06-17",
    )


def _document(identifier: str, loinc: str, title: str, date: str, text: str) -> Json:
    return {
        "resourceType": "DocumentReference",
        "id": identifier,
        "status": "current",
        "docStatus": "final",
        "type": concept(LOINC, loinc, title),
        "category": [
            concept(
                "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
                "clinical-note",
                "Clinical Note",
            )
        ],
        "subject": PATIENT,
        "date": f"{date}T17:30:00.123456-03:00",
        "author": [PHYSICIAN],
        "content": [{"attachment": attachment(title, text)}],
        "context": {"period": {"start": date, "end": date}},
    }


def _visit_note(date: str, seed: int) -> Json:
    text = visit_note(date, HOSPITAL.name, seed)
    return _document(uuid_of(seed, "b", "note", date), "11506-3", "Progress note", date, text)


def _stays(seed: int) -> Iterator[tuple[Json, str]]:
    for date, reason, minutes in (
        ("2022-03-12", "elective total knee replacement, right", 4 * 24 * 60),
        ("2023-10-03", "observation after syncope; no cause found", 30 * 60),
    ):
        text = stay_note(date, HOSPITAL.name, reason, minutes, seed)
        yield (
            _document(uuid_of(seed, "b", "stay", date), "18842-5", "Discharge summary", date, text),
            date,
        )
    date = "2022-03-08"
    yield (
        {
            "resourceType": "DiagnosticReport",
            "id": uuid_of(seed, "b", "imaging"),
            "status": "final",
            "category": [concept(f"{_TERMINOLOGY}/v2-0074", "RAD", "Radiology")],
            "code": concept(LOINC, "36642-7", "XR Knee 2 Views"),
            "subject": PATIENT,
            "effectiveDateTime": f"{date}T15:00:00-03:00",
            "issued": f"{date}T15:20:00-03:00",
            "conclusion": "Implant in place, no fracture. Seen together with the patient 🙂",
            "presentedForm": [
                attachment("Knee X-ray", "XR KNEE RIGHT, 2 VIEWS\n\nImplant in place. 1 µSv.\n")
            ],
        },
        date,
    )


def _oddities(seed: int) -> Iterator[tuple[Json, str]]:
    """Valid R4 that careless code changes or refuses."""
    smoking = _observation(
        Measure("72166-2", "Tobacco smoking status", "", "", 0, 0, ()),
        VISITS[0],
        seed,
        "social-history",
    )
    smoking["valueCodeableConcept"] = concept(SNOMED, "8517006", "Ex-smoker")
    yield smoking, VISITS[0]
    # An id of exactly the 64 characters that FHIR allows; exponents; nine digits of a fraction.
    longest = _observation(
        Measure("33914-3", "Glomerular filtration rate", "", "", 0, 0, ()),
        VISITS[3],
        seed,
        "laboratory",
    )
    longest["id"] = digest(seed, "b", "longest")
    longest["issued"] = f"{VISITS[3]}T14:03:27.715123456-03:00"
    longest["valueQuantity"] = {"value": decimal("7.80e1"), "unit": "mL/min"}
    longest["note"] = [{"text": "„Grenzwertig“ — 결과 재확인 — نتيجة 🙂 \u2028 <b>&amp;</b>"}]
    yield longest, VISITS[3]
    # No value, and says why: the extension way to leave a required element out.
    absent = _observation(A1C, "2021-09-01", seed, "laboratory")
    absent["dataAbsentReason"] = concept(f"{_TERMINOLOGY}/data-absent-reason", "error", "Error")
    absent["_effectiveDateTime"] = {
        "extension": [
            {
                "url": "http://hl7.org/fhir/StructureDefinition/timing-exact",
                "valueBoolean": True,
            }
        ]
    }
    yield absent, "2021-09-01"
    # A resource that brings the one it refers to along.
    contained = medication_request(
        seed, "1049221", "acetaminophen 325 MG / oxycodone 5 MG Oral Tablet", "2022-03-12", "1 or 2"
    )
    contained["contained"] = [
        {
            "resourceType": "Medication",
            "id": "med1",
            "code": contained.pop("medicationCodeableConcept"),
        }
    ]
    contained["medicationReference"] = {"reference": "#med1"}
    contained["status"] = "completed"
    yield contained, "2022-03-12"
