"""How much there is to do, counted no further than somebody asks."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# The states stand in the text for the partial index, as `tables.state_is` explains.
_COUNT = text("""
    SELECT count(*) FROM (
        SELECT 1 FROM uploads WHERE state IN ('parked', 'queued', 'sending') LIMIT :limit
    ) AS unfinished
""")


async def count_unfinished(connection: AsyncConnection, *, limit: int) -> int:
    """How many uploads are unfinished, or `most` if there are more."""
    return int((await connection.execute(_COUNT, {"limit": limit})).scalar_one())
