"""signs of processes

Revision: 0002, after 0001, 2026-11-30 15:55:00
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to processes: their kind, their machine's clock, and whether they lack files."""
    op.add_column("processes", sa.Column("kind", sa.Text(), nullable=True))
    op.add_column("processes", sa.Column("machine_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("processes", sa.Column("no_files_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Remove them."""
    for name in ("kind", "machine_at", "no_files_at"):
        op.drop_column("processes", name)
