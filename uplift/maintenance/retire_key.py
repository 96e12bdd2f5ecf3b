"""Retires a master key: only when nothing in the ledger and no kept backup needs it."""

from pathlib import Path

from uplift.errors import KeyNeeded
from uplift.key_life import why_not_retire
from uplift.ledger import audit, master_keys
from uplift.ledger.audit import Action, Actor
from uplift.ledger.database import Database
from uplift.sealing import KeyRing
from uplift.settings import Settings


async def retire_key(
    database: Database, settings: Settings, key_ring: KeyRing, key_id: str, *, by: Actor
) -> Path | None:
    """Retire it. In a folder of keys, its file is destroyed; returns which.

    Without a folder the key is still on the key ring, and is to be removed by hand. Raises
    KeyNeeded.
    """
    async with database.transaction() as connection:
        await master_keys.note_keys(connection, key_ring.ids, key_ring.current)
        now, _ = await master_keys.in_use_since(connection, key_id)
        lives = await master_keys.key_lives(connection)
        reasons = why_not_retire(
            key_id,
            lives.get(key_id),
            current=key_ring.current,
            now=now,
            backups_kept_days=settings.backups_kept_days,
        )
        if reasons:
            raise KeyNeeded(" ".join(reasons))
        await master_keys.note_retired(connection, key_id)
        await audit.note(connection, by, Action.KEY_RETIRED)
    folder = settings.master_keys_dir
    if folder is None or key_id not in key_ring.ids:
        return None
    file = folder / key_id
    file.unlink(missing_ok=True)
    return file
