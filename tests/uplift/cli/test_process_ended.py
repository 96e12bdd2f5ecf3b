"""`uplift process-ended`: a supervisor tells the ledger."""

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from typer.testing import CliRunner

from tests.uplift.ledger import rows
from uplift.cli.main import app
from uplift.ledger.database import Database
from uplift.ledger.tables import Process
from uplift.settings import Settings


def _run(settings: Settings, process_id: UUID) -> str:
    assert settings.database_url is not None
    given = {"UPLIFT_DATABASE_URL": settings.database_url.get_secret_value()}
    # As systemd writes its INVOCATION_ID.
    done = CliRunner().invoke(app, ["process-ended", process_id.hex], env=given)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_end_of_a_process_is_noted_once(database: Database, settings: Settings) -> None:
    opened = Database.connect(settings)

    async def add() -> UUID:
        return await rows.add_process(opened)

    async def crashed() -> bool:
        async with opened.reading() as connection:
            ended = select(Process.crashed).where(Process.ended_at.is_not(None))
            return bool(await connection.scalar(ended))

    process_id = asyncio.run(_closed(opened, add()))
    assert "Noted." in _run(settings, process_id)
    assert asyncio.run(_closed(opened, crashed()))
    for other in (process_id, uuid4()):
        assert "Nothing to note" in _run(settings, other)


async def _closed(database: Database, use: Coroutine[Any, Any, Any]) -> Any:
    """What it comes to; the connections are of this loop."""
    try:
        return await use
    finally:
        await database.close()
