"""Records that are broken on purpose: each names the element at fault, for checks."""

from collections.abc import Iterator

from uplift.sandbox.export import hospital_a, hospital_b
from uplift.sandbox.export.entry import Entry, Json, concept, decimal
from uplift.sandbox.export.person import A1C

_DATE = "2024-12-09"


def entries(seed: int) -> Iterator[Entry]:
    """Seven in R4, which every server refuses, and one in DSTU2."""
    day = _observation(seed, "bad-date")
    day["effectiveDateTime"] = "2024-02-30"
    yield _r4(day, "Observation.effectiveDateTime", "there is no 30th of February")

    unknown = hospital_b.condition(seed, "73595000", "Z73.3", "Stress", "2024")
    unknown["id"] = f"broken-unknown-{seed}"
    unknown["diagnosedBy"] = {"display": "Dra. Inês Araújo"}
    yield _r4(unknown, "Condition.diagnosedBy", "R4 has no such element")

    missing = _observation(seed, "no-code")
    del missing["code"]
    yield _r4(missing, "Observation.code", "required and missing")

    shape = hospital_b.medication_request(
        seed, "310798", "hydrochlorothiazide 25 MG Oral Tablet", _DATE, "1 tablet daily"
    )
    shape["id"] = f"broken-shape-{seed}"
    shape["dosageInstruction"] = shape["dosageInstruction"][0]
    yield _r4(shape, "MedicationRequest.dosageInstruction", "an object where a list belongs")

    status = hospital_b.immunization(seed, "150", "Influenza, injectable, quadrivalent", _DATE)
    status["id"] = f"broken-status-{seed}"
    # The space at the end makes it wrong even for checks that know no value sets.
    status["status"] = "given "
    yield _r4(status, "Immunization.status", "a status that the required value set does not have")

    nothing = hospital_b.procedure(seed, "401191002", "Diabetic foot examination", _DATE)
    nothing["id"] = f"broken-null-{seed}"
    nothing["note"] = [{"text": None}]
    yield _r4(nothing, "Procedure.note[0].text", "null, and required")

    word = _observation(seed, "word")
    word["valueQuantity"]["value"] = "high"
    yield _r4(word, "Observation.valueQuantity.value", "a word where a number belongs")

    refills: Json = {
        "resourceType": "MedicationOrder",
        "id": f"broken_refills_{seed}",
        "status": "active",
        "patient": hospital_a.PATIENT,
        "medicationCodeableConcept": concept(
            "http://www.nlm.nih.gov/research/umls/rxnorm", "310965", "ibuprofen 200 MG Oral Tablet"
        ),
        # 0 would be tolerated: it is how the largest DSTU2 vendor says that there are no refills.
        "dispenseRequest": {
            "numberOfRepeatsAllowed": -1,
            "quantity": {"value": decimal("20.0"), "unit": "tablet"},
        },
    }
    yield Entry(
        hospital_a.HOSPITAL,
        refills,
        "2018-11-12",
        fault="MedicationOrder.dispenseRequest.numberOfRepeatsAllowed",
        defect="fewer refills than none",
    )


def _observation(seed: int, name: str) -> Json:
    found = hospital_b.laboratory(A1C, _DATE, seed)
    found["id"] = f"broken-{name}-{seed}"
    return found


def _r4(resource: Json, fault: str, defect: str) -> Entry:
    return Entry(hospital_b.HOSPITAL, resource, _DATE, fault=fault, defect=defect)
