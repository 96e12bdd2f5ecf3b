"""The nearest peer's shape, for batches: Redis has the records first, and tasks store many at once.

    uvicorn bench.baseline_batches:api
    celery -A bench.baseline_batches worker -Q baseline_batches -P prefork -c 2

Written from the manuals of FastAPI, redis-py, Celery and SQLAlchemy. The door looks up the key and
the user, parses every line, appends the lines to a list of the user in Redis, enqueues a task for
each 200 and answers. A task takes 200 from the list, parses them and stores them in one statement.

Nothing is sent anywhere. What a task has taken is lost if it dies, and Redis loses its last second
if the machine does: `202` means less here.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid4

import orjson
import redis
import redis.asyncio
from celery import Celery
from celery.signals import worker_process_init
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from sqlalchemy import create_engine, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import sessionmaker
from starlette.concurrency import run_in_threadpool

from bench.baseline_door import Session, check_key, engine
from bench.baseline_plain_tables import AT_ONCE, BATCHES, Upload, User, database_url

_redis_url = os.environ["BENCH_REDIS_URL"]

app = Celery("baseline_batches", broker=_redis_url)
app.conf.update(
    task_default_queue=BATCHES, task_ignore_result=True, broker_connection_retry_on_startup=True
)

_engine = create_engine(database_url(), pool_size=1, max_overflow=0, pool_pre_ping=True)
_new_session = sessionmaker(_engine)
_server = redis.Redis.from_url(_redis_url)


@worker_process_init.connect
def _open(**_: object) -> None:
    _engine.dispose(close=False)


def _list_of(user_id: UUID | str) -> str:
    return f"baseline_batches:{user_id}"


@app.task(name="baseline_batches.store")
def store(user_id: str) -> None:
    """Store the next records of a user, in one statement."""
    lines: list[bytes] | None = _server.lpop(_list_of(user_id), AT_ONCE)  # type: ignore[assignment]
    if not lines:
        return
    rows = []
    for line in lines:
        envelope = orjson.loads(line)
        body = orjson.dumps(envelope["resource"])
        rows.append(
            {
                "id": uuid4(),
                "user_id": UUID(user_id),
                "fhir_version": envelope["fhirVersion"],
                "resource_type": envelope["resource"]["resourceType"],
                "digest": hashlib.sha256(body).digest(),
                "body": body,
                "state": "queued",
            }
        )
    with _new_session() as session:
        session.execute(insert(Upload).values(rows).on_conflict_do_nothing())
        session.commit()


_client = redis.asyncio.Redis.from_url(_redis_url)


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()
    await _client.aclose()


api = FastAPI(lifespan=_lifespan)


@api.post("/batches", status_code=202, dependencies=[Depends(check_key)])
async def submit(
    request: Request, session: Session, user: Annotated[str, Query()]
) -> dict[str, Any]:
    """Put the lines of a batch into Redis, and enqueue their tasks."""
    user_id = await session.scalar(select(User.id).where(User.name == user))
    if user_id is None:
        raise HTTPException(404)
    lines = (await request.body()).splitlines()
    try:
        for line in lines:
            orjson.loads(line)["resource"]["resourceType"]
    except (ValueError, KeyError, TypeError):
        raise HTTPException(400) from None
    groups = [lines[start : start + AT_ONCE] for start in range(0, len(lines), AT_ONCE)]
    async with _client.pipeline(transaction=False) as pipeline:
        for group in groups:
            pipeline.rpush(_list_of(user_id), *group)
        await pipeline.execute()

    def enqueue() -> None:
        for _ in groups:
            store.delay(str(user_id))

    await run_in_threadpool(enqueue)
    return {"accepted": len(lines)}
