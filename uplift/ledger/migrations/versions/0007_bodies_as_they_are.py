"""sealed bodies are stored as they are

Revision: 0007, after 0006, 2026-11-30 20:30:00
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is encrypted does not become smaller, so PostgreSQL need not try for each body."""
    op.execute("ALTER TABLE uploads ALTER COLUMN sealed_body SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Let it try again."""
    op.execute("ALTER TABLE uploads ALTER COLUMN sealed_body SET STORAGE EXTENDED")
