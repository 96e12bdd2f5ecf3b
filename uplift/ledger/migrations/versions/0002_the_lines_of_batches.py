"""the lines of batches

Revision: 0002, after 0001, 2026-11-23 19:52:46.374516
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batch_lines",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("line", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=True),
        sa.Column("duplicate", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("problem_status", sa.Integer(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(upload_id IS NULL) = (problem IS NOT NULL AND problem_status IS NOT NULL)",
            name=op.f("ck_batch_lines_upload_or_problem"),
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["batches.id"],
            name=op.f("fk_batch_lines_batch_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("batch_id", "line", name=op.f("pk_batch_lines")),
    )
    op.add_column(
        "batches",
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
    )
    op.add_column(
        "batches",
        sa.Column("broken", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    for counter in ("accepted", "duplicates", "problems"):
        op.add_column(
            "batches",
            sa.Column(counter, sa.Integer(), server_default=sa.text("0"), nullable=False),
        )
    op.create_check_constraint(
        op.f("ck_batches_broken_is_closed"), "batches", "NOT broken OR closed_at IS NOT NULL"
    )
    op.create_index("ix_batches_created_at", "batches", ["created_at", "id"], unique=False)
    op.create_index("ix_batches_user_id", "batches", ["user_id", "created_at", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_batches_user_id", table_name="batches")
    op.drop_index("ix_batches_created_at", table_name="batches")
    op.drop_constraint(op.f("ck_batches_broken_is_closed"), "batches", type_="check")
    for column in ("problems", "duplicates", "accepted", "broken", "updated_at"):
        op.drop_column("batches", column)
    op.drop_table("batch_lines")
