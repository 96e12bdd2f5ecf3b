"""Run by Alembic: migrates on the connection that `uplift.ledger.migrate` opened."""

from alembic import context

from uplift.ledger.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
