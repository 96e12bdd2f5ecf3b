"""What HAPI has is read back page by page: it keeps what a search found, and links to its pages at
its base."""

import httpx
import orjson
import pytest

from tests.hapi.conftest import Hapi
from uplift.destinations.derived_ids import patient_id, read_id_key
from uplift.fhir.interactions import Interaction, parse_interaction
from uplift.fhir.versions import FhirVersion
from uplift.ledger.audit import Actor
from uplift.ledger.database import Database
from uplift.settings import Settings
from uplift.wiring import open_relay

pytestmark = [
    pytest.mark.timeout(600),  # seconds: HAPI's first requests are slow
    pytest.mark.usefixtures("database"),
]

_COUNT = 23


def address_of(interaction: Interaction) -> str:
    return interaction.address


async def test_every_page_of_a_search_is_read(
    hapi: Hapi, database: Database, settings: Settings
) -> None:
    version = FhirVersion.parse(hapi.version)
    assert version is not None
    id_key = read_id_key(settings)
    assert id_key is not None
    person = patient_id(id_key, app_user_id="reader")
    ids = {f"page-{number}" for number in range(_COUNT)}
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:

        async def put(resource_type: str, name: str, **elements: object) -> None:
            body = {"resourceType": resource_type, "id": name, **elements}
            response = await client.put(f"{hapi.base}/{resource_type}/{name}", json=body)
            response.raise_for_status()

        for patient in (person, "another"):
            await put("Patient", patient)
        for each in (*sorted(ids), "of-another"):
            patient = person if each in ids else "another"
            await put(
                "Observation",
                each,
                status="final",
                code={"text": each},
                subject={"reference": f"Patient/{patient}"},
            )
    at_hapi = settings.model_copy(
        update={
            "destination": "hapi",
            f"destination_{hapi.version}": hapi.base,
            "oneup_client_id": "",
        }
    )
    found: list[str] = []
    pages = 0
    async with open_relay(at_hapi) as relay:
        await relay.provisioner.provision("reader")
        address = "Observation?_count=10"
        while address:
            path, _, query = address.partition("?")
            interaction = parse_interaction(version, path, query.encode())
            content = await relay.reader.read("reader", interaction, address_of, by=Actor("test"))
            page = orjson.loads(content)
            found += [entry["resource"]["id"] for entry in page["entry"]]
            pages += 1
            links = {link["relation"]: link["url"] for link in page["link"]}
            address = links.get("next", "")
    assert pages == 3
    assert sorted(found) == sorted(ids)
