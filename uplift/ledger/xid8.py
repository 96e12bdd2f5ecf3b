"""The type of PostgreSQL's transaction ids, which SQLAlchemy does not know."""

from typing import Any

from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[int]):
    """`xid8`: 64 bits, which never begin again in the life of a server."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Its name in SQL."""
        return "xid8"


# So that a database's columns of this type are known, when they are compared with the tables.
ischema_names["xid8"] = Xid8
