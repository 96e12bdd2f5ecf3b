"""HL7's own validator, before a real HAPI, is asked about each R4 record of the example export, as
Uplift sends it. Where it and Uplift disagree stands in docs/validation.md, with who is right. R4
alone: this takes a server of its own, and the deviations of DSTU2 are known to be many."""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.hapi.server import run_hapi
from uplift.destinations.references import Rewriting, parse, rewritten, write
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion
from uplift.sandbox.export.make_export import ManifestRecord, write_export

pytestmark = pytest.mark.timeout(600)  # seconds: the validator reads all of R4 first

_PAGE = Path(__file__).parents[2] / "docs" / "validation.md"
_ROW = re.compile(r"^\| `(\w+/[^`]+)` \|", re.MULTILINE)
_PATIENT = "Patient/oracle"


@dataclass(frozen=True)
class Verdicts:
    """Whether the two take one record. `why`: what HAPI says."""

    name: str
    uplift: bool
    hl7: bool
    why: str


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("hapi") / "validating.log"
    with run_hapi("r4", log, validating=True) as at:
        yield at


def asked(client: httpx.Client, record: ManifestRecord, body: bytes) -> Verdicts:
    sent = rewritten(
        parse(body),
        Rewriting(
            version=FhirVersion.R4,
            own_id=record.record_id,
            source_system="urn:uplift:source:oracle",
            patient=_PATIENT,
        ),
    )
    answer = client.put(f"{record.resource_type}/{record.record_id}", content=write(sent))
    issues = answer.json().get("issue", ()) if not answer.is_success else ()
    why = [each.get("diagnostics", "") for each in issues if each["severity"] in ("error", "fatal")]
    # What its parser cannot read is a 400, and what its validator calls an error a 422.
    assert answer.is_success or answer.status_code in (400, 422), answer.text
    return Verdicts(
        name=f"{record.resource_type}/{record.record_id}",
        uplift=validate(body, "R4", second_opinion=False).valid,
        hl7=answer.is_success,
        why=f"{answer.status_code} {why}",
    )


def test_uplift_and_hl7s_validator_disagree_where_the_page_says_and_nowhere_else(
    base: str, tmp_path: Path
) -> None:
    manifest = write_export(tmp_path / "export.zip")
    told = set(_ROW.findall(_PAGE.read_text(encoding="utf-8")))
    with (
        zipfile.ZipFile(tmp_path / "export.zip") as export,
        httpx.Client(
            base_url=base,
            headers={"Content-Type": "application/fhir+json"},
            trust_env=False,
            timeout=120,
        ) as client,
    ):
        patient = {"resourceType": "Patient", "id": "oracle"}
        client.put(_PATIENT, json=patient).raise_for_status()
        verdicts = [
            asked(client, record, export.read(f"apple_health_export/{record.path}"))
            for record in manifest.records
            if record.fhir_version == "4.0.1"
        ]
    disagree = {each.name: each.why for each in verdicts if each.uplift is not each.hl7}
    assert disagree.keys() == told, disagree
    agreed = [each for each in verdicts if each.uplift is each.hl7]
    assert sum(each.uplift for each in agreed) >= 179
    assert sum(not each.uplift for each in agreed) == 7
