"""users for life: erasing, an audit trail that stays, whom to ask again

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEEP_THE_TRAIL = """
    CREATE FUNCTION keep_the_audit_trail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'The audit trail is append-only: nothing in it is changed or removed.'
            USING ERRCODE = 'insufficient_privilege';
    END $$
"""
_TRIGGER = """
    CREATE TRIGGER keep_the_audit_trail BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION keep_the_audit_trail()
"""


def upgrade() -> None:
    op.add_column("audit_events", sa.Column("credential_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_audit_events_pseudonym_id", "audit_events", ["pseudonym", "id"], unique=False
    )
    op.create_index(
        "ix_audit_events_at", "audit_events", ["at"], unique=False, postgresql_using="brin"
    )
    op.create_index(
        "ix_users_erasing",
        "users",
        ["erased_at"],
        unique=False,
        postgresql_where=sa.text("erased_at IS NOT NULL"),
    )
    op.create_index(
        "ix_grants_needing_authorization",
        "grants",
        ["user_id"],
        unique=False,
        postgresql_where=sa.text("state = 'needs_authorization'"),
    )
    op.create_index(
        "ix_idempotency_keys_upload_id", "idempotency_keys", ["upload_id"], unique=False
    )
    op.execute(_KEEP_THE_TRAIL)
    op.execute(_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER keep_the_audit_trail ON audit_events")
    op.execute("DROP FUNCTION keep_the_audit_trail()")
    op.drop_index("ix_idempotency_keys_upload_id", table_name="idempotency_keys")
    op.drop_index(
        "ix_grants_needing_authorization",
        table_name="grants",
        postgresql_where=sa.text("state = 'needs_authorization'"),
    )
    op.drop_index(
        "ix_users_erasing",
        table_name="users",
        postgresql_where=sa.text("erased_at IS NOT NULL"),
    )
    op.drop_index("ix_audit_events_at", table_name="audit_events")
    op.drop_index("ix_audit_events_pseudonym_id", table_name="audit_events")
    op.drop_column("audit_events", "credential_id")
