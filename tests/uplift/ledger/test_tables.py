"""What the constraints forbid, whatever code there may be one day."""

from typing import Any

import pytest
from sqlalchemy import UniqueConstraint, insert, text, update
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid4

from tests.uplift.ledger import rows
from uplift.ledger.database import Database
from uplift.ledger.tables import Credential, Grant, IdempotencyKey, Record, Table, Upload, User
from uplift.ledger.users import UserRow
from uplift.lifecycle import UNFINISHED, State

_NOW = text("now()")


async def forbidden(database: Database, statement: Any, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        async with database.transaction() as connection:
            await connection.execute(statement)


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"state": "lost", "next_attempt_at": None}, "ck_uploads_state"),
        ({"state": "parked"}, "ck_uploads_queued_is_due"),
        ({"next_attempt_at": None}, "ck_uploads_queued_is_due"),
        ({"lease_id": uuid4(), "lease_until": _NOW}, "ck_uploads_sending_is_leased"),
        ({"state": "sending", "next_attempt_at": None}, "ck_uploads_sending_is_leased"),
        (
            {
                "state": "sending",
                "next_attempt_at": None,
                "lease_id": uuid4(),
                "lease_until": _NOW,
            },
            "ck_uploads_sending_is_leased",
        ),
        (
            {"state": "sending", "next_attempt_at": None, "lease_id": uuid4()},
            "ck_uploads_sending_is_leased",
        ),
        ({"sealed_body": None}, "ck_uploads_unfinished_has_body"),
        (
            {"state": "delivered", "next_attempt_at": None, "delivered_at": _NOW},
            "ck_uploads_delivered_is_shredded",
        ),
        (
            {"state": "delivered", "next_attempt_at": None, "sealed_body": None},
            "ck_uploads_delivered_is_shredded",
        ),
        ({"record_id": uuid4()}, "fk_uploads_record_id"),
        ({"user_id": uuid4()}, "fk_uploads_user_id"),
        ({"batch_id": uuid4()}, "fk_uploads_batch_id"),
        ({"digest": None}, "digest"),
    ],
)
async def test_a_row_that_the_code_does_not_expect_is_refused(
    database: Database, alice: UserRow, values: dict[str, Any], constraint: str
) -> None:
    upload_id = await rows.put(database, alice)
    await forbidden(
        database, update(Upload).where(Upload.id == upload_id).values(values), constraint
    )


@pytest.mark.parametrize("state", sorted(UNFINISHED))
async def test_no_unfinished_upload_is_without_a_body(
    database: Database, alice: UserRow, state: State
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, state)
    await forbidden(database, update(Upload).values(sealed_body=None), "unfinished_has_body")


async def test_no_two_uploads_are_the_same_version_of_a_record(
    database: Database, alice: UserRow
) -> None:
    first = await rows.put(database, alice, identity=b"i")
    await rows.bring_to(database, first, State.REFUSED)
    await rows.put(database, alice, identity=b"i")
    await forbidden(database, update(Upload).values(version=1), "uq_uploads_record_id_version")


async def test_no_two_records_of_a_user_have_one_identity(
    database: Database, alice: UserRow
) -> None:
    await rows.put(database, alice, identity=b"i")
    again = insert(Record).values(id=uuid4(), user_id=alice.id, identity=b"i")
    await forbidden(database, again, "uq_records_user_id_identity")


async def test_no_two_living_users_have_one_name_but_an_erased_one_gives_it_free(
    database: Database, alice: UserRow
) -> None:
    again = insert(User).values(id=uuid4(), app_user_id="alice", wrapped_key=b"k")
    await forbidden(database, again, "uq_users_app_user_id")
    async with database.transaction() as connection:
        await connection.execute(update(User).values(erased_at=_NOW, wrapped_key=None))
        await connection.execute(again)


@pytest.mark.parametrize("values", [{"erased_at": _NOW}, {"wrapped_key": None}])
async def test_a_user_has_a_key_exactly_as_long_as_they_are_not_erased(
    database: Database, alice: UserRow, values: dict[str, Any]
) -> None:
    await forbidden(database, update(User).values(values), "ck_users_erased_has_no_key")


@pytest.mark.parametrize(
    ("values", "constraint"),
    [({"state": "maybe"}, "ck_grants_state"), ({"origin": "found"}, "ck_grants_origin")],
)
async def test_a_grant_is_of_a_known_state_and_origin(
    database: Database, alice: UserRow, values: dict[str, Any], constraint: str
) -> None:
    grant = {
        "user_id": alice.id,
        "state": "active",
        "origin": "backend",
        "sealed_tokens": b"t",
        "expires_at": _NOW,
    }
    await forbidden(database, insert(Grant).values({**grant, **values}), constraint)


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"kind": "password"}, "ck_credentials_kind"),
        ({"kind": "device_token"}, "device_token_has_user_and_end"),
        ({"kind": "device_token", "expires_at": _NOW}, "device_token_has_user_and_end"),
    ],
)
async def test_a_device_token_has_a_user_and_an_end(
    database: Database, values: dict[str, Any], constraint: str
) -> None:
    credential = {
        "id": uuid4(),
        "kind": "api_key",
        "name": "n",
        "secret_hash": b"h",
        "scopes": ["backend"],
        "mac": b"m",
    }
    await forbidden(database, insert(Credential).values({**credential, **values}), constraint)


async def test_an_idempotency_key_belongs_to_a_credential(database: Database) -> None:
    key = insert(IdempotencyKey).values(
        credential_id=uuid4(),
        key_hash=b"k",
        request_digest=b"d",
        upload_id=uuid4(),
        expires_at=_NOW,
    )
    await forbidden(database, key, "fk_idempotency_keys_credential_id")


def test_every_constraint_and_index_has_a_name() -> None:
    for table in Table.metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints), table.name
        assert all(index.name for index in table.indexes), table.name


def test_rows_that_refer_to_another_can_be_found_by_an_index() -> None:
    # Deleting a user or an upload would otherwise read whole tables.
    for name in ("attempts", "credentials", "grants", "records", "uploads"):
        table = Table.metadata.tables[name]
        indexes: list[Any] = [*table.indexes, table.primary_key]
        indexes += [each for each in table.constraints if isinstance(each, UniqueConstraint)]
        leading = {next(iter(index.columns)).name for index in indexes}
        assert {key.parent.name for key in table.foreign_keys} <= leading, name
