"""Baseline for delivery: one Celery task for each upload, in prefork processes, with autoretry.

    celery -A bench.baseline_celery worker -Q baseline_celery -P prefork -c 32

Written from Celery's manual: acks_late, a prefetch of one, one httpx.Client and one engine for each
process, validation by fhir.resources (R4 by its R4B models), a session around each task.
"""

import importlib
import os
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

import httpx
from celery import Celery
from celery.signals import worker_process_init
from pydantic import ValidationError
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from bench.baseline_plain_tables import Upload, User, database_url

app = Celery("baseline_celery", broker=os.environ["BENCH_REDIS_URL"])
app.conf.update(
    task_default_queue="baseline_celery",
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)

engine = create_engine(database_url(), pool_size=1, max_overflow=0, pool_pre_ping=True)
new_session = sessionmaker(engine)
client: httpx.Client


@worker_process_init.connect
def _open(**_: object) -> None:
    global client
    engine.dispose(close=False)
    client = httpx.Client(base_url=os.environ["BENCH_UPSTREAM_URL"], timeout=60)


@cache
def _model(resource_type: str) -> Any:
    module = importlib.import_module(f"fhir.resources.R4B.{resource_type.lower()}")
    return getattr(module, resource_type)


for _type in ("Observation", "Condition"):
    _model(_type)  # before the fork, so that the processes share it


@app.task(
    name="baseline_celery.deliver",
    autoretry_for=(httpx.TransportError, httpx.HTTPStatusError),
    retry_backoff=True,
    retry_jitter=True,
    max_retries=20,
)
def deliver(upload_id: str) -> None:
    """Validate one upload, send it, and record that it is delivered."""
    with new_session() as session:
        upload = session.get_one(Upload, UUID(upload_id))
        if upload.state != "queued":
            return
        try:
            _model(upload.resource_type).model_validate_json(upload.body)
        except ValidationError:
            upload.state = "rejected"
            session.commit()
            return
        _send(session, upload)


def _send(session: Session, upload: Upload) -> None:
    token = session.get_one(User, upload.user_id).access_token
    response = client.post(
        f"/r4/{upload.resource_type}",
        content=upload.body,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    response.raise_for_status()
    upload.upstream_id = response.json()["id"]
    upload.state = "delivered"
    upload.delivered_at = datetime.now(UTC)
    session.commit()
