"""`uplift restore` as a command: what it says, and its exit codes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from sqlalchemy import select
from typer.testing import CliRunner

from tests.uplift.ledger import rows
from uplift.cli.main import app
from uplift.ledger.database import Database
from uplift.ledger.tables import Upload
from uplift.sealing import KeyRing
from uplift.settings import Settings


def restore(settings: Settings, *arguments: str) -> Any:
    assert settings.database_url is not None
    given = {"UPLIFT_DATABASE_URL": settings.database_url.get_secret_value()}
    return CliRunner().invoke(app, ["restore", *arguments], env=given)


def test_it_marks_what_waits_and_says_what_to_do_next(
    database: Database, key_ring: KeyRing, settings: Settings
) -> None:
    async def waiting() -> bool:
        user = await rows.add_user(opened, key_ring)
        upload_id = await rows.put(opened, user)
        return bool((await rows.row(opened, upload_id)).maybe_sent)

    async def marked() -> bool:
        async with opened.transaction() as connection:
            return bool(await connection.scalar(select(Upload.maybe_sent)))

    opened = Database.connect(settings)
    assert not asyncio.run(_closed(opened, waiting()))

    done = restore(settings, "--since", "2026-01-02T03:04", "--lookup-days", "2")

    assert done.exit_code == 0, done.output
    assert "1 unfinished upload(s) are looked up before they are sent." in done.output
    for next_ in ("uplift users erase", "uplift keys revoke", "uplift doctor"):
        assert next_ in done.output
    assert asyncio.run(_closed(opened, marked()))

    assert restore(settings, "--since", "2199-01-01").exit_code == 2
    assert restore(settings).exit_code == 2


async def _closed(database: Database, use: Coroutine[Any, Any, bool]) -> bool:
    """What it comes to; the connections are of this loop."""
    try:
        return await use
    finally:
        await database.close()
