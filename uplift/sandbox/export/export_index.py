"""export.xml as Apple's Health app writes it, with the ordinary samples around the records."""

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import quoteattr

from uplift.sandbox.export.entry import Entry, dice
from uplift.sandbox.export.person import BIRTH_DATE

EXPORTED = "2025-01-15 09:30:00 -0300"

# Apple's own declarations, shortened to the elements used here.
_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE HealthData [
<!-- HealthKit Export Version: 14 -->
<!ELEMENT HealthData (ExportDate,Me,(Record|Correlation|Workout|ActivitySummary|ClinicalRecord)*)>
<!ATTLIST HealthData
  locale CDATA #REQUIRED
>
<!ELEMENT ExportDate EMPTY>
<!ATTLIST ExportDate
  value CDATA #REQUIRED
>
<!ELEMENT Me EMPTY>
<!ATTLIST Me
  HKCharacteristicTypeIdentifierDateOfBirth         CDATA #REQUIRED
  HKCharacteristicTypeIdentifierBiologicalSex       CDATA #REQUIRED
  HKCharacteristicTypeIdentifierBloodType           CDATA #REQUIRED
  HKCharacteristicTypeIdentifierFitzpatrickSkinType CDATA #REQUIRED
>
<!ELEMENT Record ((MetadataEntry|HeartRateVariabilityMetadataList)*)>
<!ATTLIST Record
  type          CDATA #REQUIRED
  unit          CDATA #IMPLIED
  value         CDATA #IMPLIED
  sourceName    CDATA #REQUIRED
  sourceVersion CDATA #IMPLIED
  device        CDATA #IMPLIED
  creationDate  CDATA #IMPLIED
  startDate     CDATA #REQUIRED
  endDate       CDATA #REQUIRED
>
<!ELEMENT MetadataEntry EMPTY>
<!ATTLIST MetadataEntry
  key   CDATA #REQUIRED
  value CDATA #REQUIRED
>
<!ELEMENT ActivitySummary EMPTY>
<!ATTLIST ActivitySummary
  dateComponents     CDATA #IMPLIED
  activeEnergyBurned CDATA #IMPLIED
>
<!ELEMENT ClinicalRecord EMPTY>
<!ATTLIST ClinicalRecord
  type              CDATA #REQUIRED
  identifier        CDATA #REQUIRED
  sourceName        CDATA #REQUIRED
  sourceURL         CDATA #REQUIRED
  fhirVersion       CDATA #REQUIRED
  receivedDate      CDATA #REQUIRED
  resourceFilePath  CDATA #REQUIRED
>
]>
"""
_TYPES = {
    "AllergyIntolerance": "AllergyRecord",
    "Condition": "ConditionRecord",
    "Coverage": "CoverageRecord",
    "DiagnosticReport": "LabResultRecord",
    "DocumentReference": "ClinicalNoteRecord",
    "Immunization": "ImmunizationRecord",
    "MedicationDispense": "MedicationRecord",
    "MedicationOrder": "MedicationRecord",
    "MedicationRequest": "MedicationRecord",
    "MedicationStatement": "MedicationRecord",
    "Observation": "LabResultRecord",
    "Procedure": "ProcedureRecord",
}


def lines(records: Iterable[tuple[Entry, str]], *, samples: int, seed: int) -> Iterator[str]:
    """The document: `samples` ordinary samples, then each record with the path of its file."""
    yield _HEAD
    yield '<HealthData locale="en_US">\n'
    yield f' <ExportDate value="{EXPORTED}"/>\n'
    yield _element(
        "Me",
        {
            "HKCharacteristicTypeIdentifierDateOfBirth": BIRTH_DATE,
            "HKCharacteristicTypeIdentifierBiologicalSex": "HKBiologicalSexFemale",
            "HKCharacteristicTypeIdentifierBloodType": "HKBloodTypeNotSet",
            "HKCharacteristicTypeIdentifierFitzpatrickSkinType": "HKFitzpatrickSkinTypeNotSet",
        },
    )
    yield from _samples(samples, seed)
    for entry, path in records:
        yield _clinical_record(entry, path)
    yield "</HealthData>\n"


def _samples(count: int, seed: int) -> Iterator[str]:
    chance = dice(seed, "samples")
    for number in range(count):
        day = f"2025-01-{number % 14 + 1:02} {number // 14 % 24:02}:00:00 -0300"
        yield (
            ' <Record type="HKQuantityTypeIdentifierHeartRate" sourceName="Mara&apos;s Watch" '
            f'unit="count/min" creationDate="{day}" startDate="{day}" endDate="{day}" '
            f'value="{58 + int(chance.random() * 40)}">\n'
            '  <MetadataEntry key="HKMetadataKeyHeartRateMotionContext" value="1"/>\n </Record>\n'
        )
    yield ' <ActivitySummary dateComponents="2025-01-14" activeEnergyBurned="312.4"/>\n'


def _clinical_record(entry: Entry, path: str) -> str:
    kind = "VitalSignRecord" if entry.vital_sign else _TYPES[entry.type]
    identifier = str(entry.resource["id"])
    attributes = {
        # Older exports name the FHIR type, newer ones HealthKit's.
        "type": entry.type if entry.hospital.compact else f"HKClinicalTypeIdentifier{kind}",
        "identifier": identifier,
        "sourceName": entry.hospital.name,
        "sourceURL": f"{entry.hospital.url}/{entry.type}/{identifier}",
        "fhirVersion": entry.hospital.fhir_version,
        "receivedDate": f"{entry.received} 05:01:22 -0300",
        "resourceFilePath": path,
    }
    if not entry.with_url:
        del attributes["sourceURL"]
    return _element("ClinicalRecord", attributes)


def _element(name: str, attributes: dict[str, str]) -> str:
    written = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items())
    return f" <{name} {written}/>\n"
