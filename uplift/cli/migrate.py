"""`uplift migrate`, and what developers write the next migration with."""

from uplift.cli.output import echo
from uplift.cli.session import read_settings, run_on_ledger
from uplift.ledger import migrate as migrations
from uplift.ledger.database import Database
from uplift.ledger.revisions import Revisions
from uplift.ledger.suitable import check_suitable


def migrate() -> None:
    """Bring the database schema up to this version of Uplift. Safe to run at any time."""

    settings = migrations.owner_settings(read_settings())

    async def use(database: Database) -> Revisions:
        await check_suitable(settings)
        await migrations.upgrade(database)
        return await migrations.revisions(database)

    found = run_on_ledger(use, settings)
    echo(f"The ledger is at revision {found.at}.")
    if found.is_newer:
        echo("A newer version of Uplift migrated it. This version works on it.")


def draft_migration(message: str) -> None:
    """For developers: write the next migration from the differences of tables and database."""

    async def use(database: Database) -> None:
        await migrations.draft(database, message)

    run_on_ledger(use)
