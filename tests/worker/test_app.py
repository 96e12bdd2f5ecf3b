"""What the Celery application promises to the rest."""

from typing import get_args

import pytest
from celery import Celery

from uplift import queues
from uplift.settings import Settings
from uplift.worker.app import create_app
from uplift.worker.bridge import open_bridge
from uplift.worker.process import Queue
from uplift.worker.tasks import add_tasks


@pytest.fixture
def app(settings: Settings) -> Celery:
    return create_app(settings)


def test_every_queue_has_a_process(app: Celery) -> None:
    ours = {queues.UPLOADS, queues.BULK}
    assert ours == set(get_args(Queue))
    assert ours == {queue.name for queue in app.conf.task_queues}


def test_the_workers_answer_to_the_task_that_is_dispatched(app: Celery, settings: Settings) -> None:
    with open_bridge(settings) as bridge:
        add_tasks(app, bridge)
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    assert ours == {queues.DELIVER}


def test_messages_are_acknowledged_late_and_leave_no_results(app: Celery) -> None:
    assert app.conf.task_acks_late
    assert app.conf.task_ignore_result
    assert app.conf.result_backend is None
    assert app.conf.accept_content == ["json"]
