"""What both doors of the baselines have in common: a session for each request, and the API key.

Written from the manuals of FastAPI and SQLAlchemy.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench.baseline_plain_tables import ApiKey, database_url

engine = create_async_engine(database_url(), pool_size=8, max_overflow=0)
_new_session = async_sessionmaker(engine, expire_on_commit=False)
_bearer = HTTPBearer()


async def _session() -> AsyncIterator[AsyncSession]:
    async with _new_session() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(_session)]
"""One session for each request."""


async def check_key(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)], session: Session
) -> None:
    """401 for an unknown key."""
    key_hash = hashlib.sha256(credentials.credentials.encode()).digest()
    if await session.get(ApiKey, key_hash) is None:
        raise HTTPException(401)
