"""The tables of the baselines, as an ordinary service has them: uploads, and whether each was sent.

Bodies are stored as they came. Nothing is sealed, versioned or audited.
"""

import os
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import DateTime, ForeignKey, LargeBinary, Text, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BATCHES = "baseline_batches"
"""The queue of the tasks that store what batches brought."""
AT_ONCE = 200
"""How many records such a task stores in one statement."""


class Base(DeclarativeBase):
    """The base of the three tables below."""

    type_annotation_map = {  # noqa: RUF012  the shape that SQLAlchemy asks for
        str: Text,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
    }


class ApiKey(Base):
    """Who may call; only a hash of the key is kept."""

    __tablename__ = "api_keys"

    key_hash: Mapped[bytes] = mapped_column(primary_key=True)


class User(Base):
    """A person, and the token that speaks for them at 1upHealth."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(unique=True)
    access_token: Mapped[str]


class Upload(Base):
    """A resource that is to be sent or was sent."""

    __tablename__ = "uploads"
    __table_args__ = (UniqueConstraint("user_id", "digest"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    fhir_version: Mapped[str]
    resource_type: Mapped[str]
    digest: Mapped[bytes]
    body: Mapped[bytes]
    state: Mapped[str] = mapped_column(default="queued", index=True)
    upstream_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]


def database_url() -> str:
    """The address of the tables, as SQLAlchemy reads it."""
    return os.environ["BENCH_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
