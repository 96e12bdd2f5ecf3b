"""What HAPI has is read back page by page: it keeps what a search found, and links to its pages at
its base."""

import httpx
import orjson
import pytest

from tests.hapi.conftest import Hapi
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

_TYPE = "Substance"  # the example export has none
_COUNT = 23


def address_of(interaction: Interaction) -> str:
    return interaction.address


async def test_every_page_of_a_search_is_read(
    hapi: Hapi, database: Database, settings: Settings
) -> None:
    version = FhirVersion.parse(hapi.version)
    assert version is not None
    ids = {f"page-{number}" for number in range(_COUNT)}
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        for each in sorted(ids):
            body = {"resourceType": _TYPE, "id": each, "code": {"text": each}}
            (await client.put(f"{hapi.base}/{_TYPE}/{each}", json=body)).raise_for_status()
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
        await relay.provisioner.provision("alice")
        address = f"{_TYPE}?_count=10"
        while address:
            path, _, query = address.partition("?")
            interaction = parse_interaction(version, path, query.encode())
            content = await relay.reader.read("alice", interaction, address_of, by=Actor("test"))
            page = orjson.loads(content)
            found += [entry["resource"]["id"] for entry in page["entry"]]
            pages += 1
            links = {link["relation"]: link["url"] for link in page["link"]}
            address = links.get("next", "")
    assert pages == 3
    assert sorted(found) == sorted(ids)
