"""Baseline for intake: look up the key and the user, INSERT, commit, `.delay()`.

Written from the manuals of FastAPI, SQLAlchemy and Celery. Served by one uvicorn with uvloop and
httptools, as Uplift is. `POST /nothing` only reads the body: the upper limit.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from bench.baseline_celery import deliver
from bench.baseline_door import Session, check_key, engine
from bench.baseline_plain_tables import Upload, User

in_threads = os.environ.get("BENCH_ENQUEUE") == "threads"


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the pool at the end."""
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.post("/uploads", status_code=202, dependencies=[Depends(check_key)])
async def submit(
    request: Request,
    session: Session,
    user: Annotated[str, Query()],
    fhir_version: Annotated[str, Query(alias="fhirVersion")],
) -> dict[str, Any]:
    """Store a resource and enqueue its task."""
    body = await request.body()
    try:
        resource = orjson.loads(body)
        resource_type = resource["resourceType"]
    except (ValueError, KeyError, TypeError):
        raise HTTPException(400) from None
    user_id = await session.scalar(select(User.id).where(User.name == user))
    if user_id is None:
        raise HTTPException(404)
    upload = Upload(
        user_id=user_id,
        fhir_version=fhir_version,
        resource_type=resource_type,
        digest=hashlib.sha256(body).digest(),
        body=body,
    )
    session.add(upload)
    await session.commit()
    if in_threads:
        await run_in_threadpool(deliver.delay, str(upload.id))
    else:
        deliver.delay(str(upload.id))
    return {"id": str(upload.id), "status": "queued"}


@app.post("/nothing", status_code=202)
async def nothing(
    request: Request,
    user: Annotated[str, Query()],  # noqa: ARG001  read as the other reads them
    fhir_version: Annotated[str, Query(alias="fhirVersion")],  # noqa: ARG001
) -> dict[str, Any]:
    """Read the body and do nothing."""
    await request.body()
    return {"id": "00000000-0000-0000-0000-000000000000", "status": "queued"}
