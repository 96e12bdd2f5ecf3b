"""HL7's own validator, before a real HAPI, is asked about each record of the example export, as
Uplift sends it, in R4 and DSTU2. Where it and Uplift disagree stands in docs/validation.md, with
who is right: single records by name, and those with a known deviation by its kind. The export has
no STU3."""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.hapi.server import run_hapi
from uplift.destinations.derived_ids import derived_id
from uplift.destinations.references import Rewriting, parse, rewritten, write
from uplift.fhir.findings import Kind
from uplift.fhir.issues import Report
from uplift.fhir.validate import findings, readable, validate
from uplift.fhir.versions import FhirVersion
from uplift.sandbox.export.make_export import ManifestRecord, write_export

pytestmark = pytest.mark.timeout(900)  # seconds: the validator reads all of FHIR first

_PAGE = Path(__file__).parents[2] / "docs" / "validation.md"
_RECORD = re.compile(r"^\| (\w+): `(\w+/[^`]+)` \|", re.MULTILINE)
_KIND = re.compile(r"^\| (\w+): the (\d+) with `([\w-]+)` \|", re.MULTILINE)
_PATIENT = "Patient/oracle"
_AGREED = {FhirVersion.R4: (179, 7), FhirVersion.DSTU2: (36, 1)}
"""How many are valid for both, and for neither."""


@dataclass(frozen=True)
class Verdicts:
    """Whether the two take one record. `kinds`: what Uplift finds; `why`: what HAPI says."""

    name: str
    uplift: bool
    hl7: bool
    kinds: frozenset[Kind]
    why: str


@dataclass(frozen=True)
class Told:
    """Where the two disagree, by the page: the records, and how many have a deviation."""

    records: frozenset[str]
    kinds: dict[str, int]

    @classmethod
    def of(cls, version: FhirVersion) -> "Told":
        page = _PAGE.read_text(encoding="utf-8")
        return cls(
            frozenset(name for of, name in _RECORD.findall(page) if of == version),
            {kind: int(count) for of, count, kind in _KIND.findall(page) if of == version},
        )


@pytest.fixture(scope="module", params=[FhirVersion.R4, FhirVersion.DSTU2])
def oracle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FhirVersion, str]]:
    """The version, and the base of a server that validates."""
    version: FhirVersion = request.param
    log = tmp_path_factory.mktemp("hapi") / "validating.log"
    with run_hapi(version.path, log, validating=True) as base:
        yield version, base


def asked(
    client: httpx.Client, version: FhirVersion, record: ManifestRecord, body: bytes
) -> Verdicts:
    own_id = derived_id(
        bytes(32),
        app_user_id="oracle",
        source=None,
        fhir_version=version,
        resource_type=record.resource_type,
        record_id=record.record_id,
        content=b"",
    )
    rules = Rewriting(
        version=version,
        own_id=own_id,
        source_system="urn:uplift:source:oracle",
        patient=_PATIENT,
    )
    sent = write(rewritten(parse(body), rules))
    answer = client.put(f"{record.resource_type}/{own_id}", content=sent)
    issues = answer.json().get("issue", ()) if not answer.is_success else ()
    why = [each.get("diagnostics", "") for each in issues if each["severity"] in ("error", "fatal")]
    # What its parser cannot read is a 400, and what its validator calls an error a 422.
    assert answer.is_success or answer.status_code in (400, 422), answer.text
    resource = readable(body, version)
    return Verdicts(
        name=f"{record.resource_type}/{record.record_id}",
        uplift=validate(body, version, second_opinion=False).valid,
        hl7=answer.is_success,
        kinds=frozenset()
        if isinstance(resource, Report)
        else frozenset(each.kind for each in findings(resource, version)),
        why=f"{answer.status_code} {why}",
    )


def test_uplift_and_hl7s_validator_disagree_where_the_page_says_and_nowhere_else(
    oracle: tuple[FhirVersion, str], tmp_path: Path
) -> None:
    version, base = oracle
    manifest = write_export(tmp_path / "export.zip")
    with (
        zipfile.ZipFile(tmp_path / "export.zip") as export,
        httpx.Client(
            base_url=base,
            headers={"Content-Type": "application/fhir+json"},
            trust_env=False,
            timeout=300,  # seconds: of the first one, on a machine that does much else
        ) as client,
    ):
        patient = {"resourceType": "Patient", "id": "oracle"}
        client.put(_PATIENT, json=patient).raise_for_status()
        verdicts = [
            asked(client, version, record, export.read(f"apple_health_export/{record.path}"))
            for record in manifest.records
            if FhirVersion.parse(record.fhir_version) is version
        ]
    told = Told.of(version)
    disagree = [each for each in verdicts if each.uplift is not each.hl7]
    by_kind = Counter(kind for each in disagree for kind in each.kinds if kind in told.kinds)
    others = {each.name: each.why for each in disagree if not each.kinds & told.kinds.keys()}
    assert others.keys() == told.records, others
    assert by_kind == told.kinds
    agreed = Counter(each.uplift for each in verdicts if each.uplift is each.hl7)
    assert (agreed[True], agreed[False]) == _AGREED[version]
