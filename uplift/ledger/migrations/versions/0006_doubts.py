"""an index of what newer versions wait for, so that too long a wait is found

Revision: 0006, after 0005, 2026-11-30 20:05:00
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "ix_deliveries_in_doubt",
        "deliveries",
        ["in_doubt_until"],
        unique=False,
        postgresql_where=sa.text("in_doubt_until IS NOT NULL"),
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_index(
        "ix_deliveries_in_doubt",
        table_name="deliveries",
        postgresql_where=sa.text("in_doubt_until IS NOT NULL"),
    )
