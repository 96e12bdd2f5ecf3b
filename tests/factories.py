"""Valid values to test with; arguments change single parts of them."""

from typing import Any
from uuid import UUID

import orjson
from fakeredis import FakeAsyncRedis, FakeServer
from uuid_utils.compat import uuid7

from uplift.intake.accept import Accepted
from uplift.intake.labels import Labels
from uplift.intake.submission import Submission, parse
from uplift.ledger import uploads, users
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import UserRow
from uplift.settings import Settings
from uplift.tokens.quota import Quota
from uplift.wiring import Relay


def resource(**elements: Any) -> dict[str, Any]:
    """A valid R4 Observation."""
    return {
        "resourceType": "Observation",
        "id": "obs-1",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": "Patient/p1"},
        "valueQuantity": {"value": 72.50, "unit": "/min"},
        **elements,
    }


def submission(
    *,
    fhir_version: str = "R4",
    source: str | None = "hospital-a",
    record_id: str | None = None,
    **elements: Any,
) -> Submission:
    """A submission of `resource(**elements)`."""
    labels = Labels(fhir_version=fhir_version, source=source, record_id=record_id)
    return parse(orjson.dumps(resource(**elements)), labels)


async def user(relay: Relay, name: str = "alice") -> UserRow:
    """A user with a working grant at the sandbox."""
    return (await relay.provisioner.provision(name))[0]


async def user_without_grant(relay: Relay, name: str = "alice") -> UserRow:
    """A user that 1upHealth does not know yet."""
    async with relay.database.transaction() as connection:
        return await users.add_user(connection, name, relay.key_ring)


async def accepted(relay: Relay, name: str = "alice", **submitted: Any) -> Accepted:
    """An upload of that user, committed."""
    return await relay.acceptor.accept(name, submission(**submitted))


async def status(relay: Relay, accepted: Accepted) -> UploadRow:
    """The upload as it is now."""
    async with relay.database.transaction() as connection:
        return (await uploads.get_uploads(connection, [accepted.upload.id]))[accepted.upload.id]


def own_quota(settings: Settings) -> Quota:
    """A quota that no other test counts in."""
    return Quota(FakeAsyncRedis(server=FakeServer()), settings)


def new_id() -> UUID:
    """An id that no row has."""
    return uuid7()
