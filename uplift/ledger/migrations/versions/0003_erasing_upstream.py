"""erasing upstream

Revision: 0003, after 0002, 2026-11-30 15:55:00
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "users", sa.Column("erasing_upstream_since", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "users",
        sa.Column("lost_upstream", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.create_index(
        "ix_users_erasing_upstream",
        "users",
        ["erasing_upstream_since"],
        unique=False,
        postgresql_where=sa.text("erasing_upstream_since IS NOT NULL"),
    )
    op.create_table(
        "upstream_deletions",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("fhir_version", sa.Text(), nullable=False),
        sa.Column("resource_type", sa.Text(), nullable=False),
        sa.Column("sealed_target", sa.LargeBinary(), nullable=False),
        sa.Column("is_person", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_response", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_upstream_deletions_user_id")
        ),
        sa.PrimaryKeyConstraint(
            "user_id", "destination", "key", name=op.f("pk_upstream_deletions")
        ),
    )
    op.create_index(
        "ix_upstream_deletions_due", "upstream_deletions", ["destination", "due_at"], unique=False
    )


def downgrade() -> None:
    op.drop_index("ix_upstream_deletions_due", table_name="upstream_deletions")
    op.drop_table("upstream_deletions")
    op.drop_index(
        "ix_users_erasing_upstream",
        table_name="users",
        postgresql_where=sa.text("erasing_upstream_since IS NOT NULL"),
    )
    op.drop_column("users", "lost_upstream")
    op.drop_column("users", "erasing_upstream_since")
