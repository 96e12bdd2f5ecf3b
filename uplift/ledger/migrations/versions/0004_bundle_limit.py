"""the largest Bundle that an upload may still join

Revision: 0004, after 0003, 2026-11-30 16:00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "uploads",
        sa.Column("bundle_limit", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_column("uploads", "bundle_limit")
