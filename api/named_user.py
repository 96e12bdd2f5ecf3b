"""The user that a request names."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.api.problems import Problem
from uplift.ledger.users import UserRow, find_user
from uplift.problem_types import ProblemType


async def named_user(connection: AsyncConnection, name: str, *, lock: bool = False) -> UserRow:
    """The user of that name. Raises a Problem (404) if there is none."""
    found = await find_user(connection, name, lock=lock)
    if found is None:
        raise Problem(ProblemType.NO_SUCH_USER, "There is no such user.")
    return found


async def id_of_user(connection: AsyncConnection, name: str | None) -> UUID | None:
    """The ledger's id of a user by whom a request filters; None if it does not.

    Raises a Problem (404) if there is none of that name.
    """
    return None if name is None else (await named_user(connection, name)).id
