"""control: pauses, cancelling, searches counted, what two sources would call alike

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pauses",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column(
            "since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_pauses_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pauses")),
    )
    op.create_index(
        "uq_pauses_user_id",
        "pauses",
        ["user_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.add_column(
        "uploads", sa.Column("looks", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column(
        "uploads",
        sa.Column(
            "cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
    )
    op.add_column("records", sa.Column("upstream_key", sa.LargeBinary(), nullable=True))
    op.create_index(
        "ix_records_upstream_key",
        "records",
        ["user_id", "upstream_key"],
        unique=False,
        postgresql_where=sa.text("upstream_key IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_records_upstream_key", table_name="records")
    op.drop_column("records", "upstream_key")
    op.drop_column("uploads", "cancel_requested")
    op.drop_column("uploads", "looks")
    op.drop_index("uq_pauses_user_id", table_name="pauses")
    op.drop_table("pauses")
