"""The Celery application. Every option with its reason; measurements in docs/decisions/."""

import warnings
from datetime import timedelta

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging
from kombu import Exchange, Queue

from uplift.dispatch import redis_url
from uplift.logs import configure_logs
from uplift.queues import BULK, CONTROL, RETAIN, SWEEP, UPLOADS
from uplift.settings import Settings

settings = Settings()

# Celery warns of root because a message could be a pickle and run as root: here all are JSON.
# Whether root is right is the deployment's to say; the image has an account of its own.
warnings.filterwarnings("ignore", category=SecurityWarning)

RETAIN_SECONDS = 5.0

app = Celery("uplift", broker=redis_url(settings), include=["uplift.worker.tasks"])
app.conf.update(
    # The queues by name, and no others: a message to a misspelt queue must fail, not wait for ever.
    # Each with an exchange of its own: without one, all three would share the default queue's.
    task_queues=[Queue(name, Exchange(name), name) for name in (UPLOADS, BULK, CONTROL)],
    task_create_missing_queues=False,
    task_default_queue=CONTROL,
    # Messages hold ids in JSON. Nothing else is accepted: pickle would run what it is sent.
    task_serializer="json",
    accept_content=["json"],
    # The ledger holds results; a result backend would be a second, staler truth.
    task_ignore_result=True,
    result_backend=None,
    # A message is gone only when its uploads were attempted. Redelivery is harmless: a claim finds
    # nothing to do. Loss is harmless too: the sweep rings again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A worker takes only messages it has a thread for; the rest stay for other workers.
    worker_prefetch_multiplier=1,
    # Longer than any task: one deliver task may hold 100 attempts of attempt_seconds each, in a
    # window. Its messages come back to others after this, if their worker died.
    broker_transport_options={
        "visibility_timeout": 900,
        # Redis that is away must show quickly, so that a stop is not held up by it.
        "socket_connect_timeout": 5,
        "socket_timeout": 30,
        "socket_keepalive": True,
        # Celery's own search for messages of dead workers; its default is every 100 s.
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
    },
    # Threads and heartbeats share the pool: too small a pool makes acknowledgements fail quietly.
    redis_max_connections=50,
    broker_pool_limit=10,
    # Redis may start after the workers, and may go away for as long as it likes.
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # Redelivered while it still runs would only be claimed by nobody, but it would waste a slot.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # What is in flight may end within its deadline before the process goes.
    worker_soft_shutdown_timeout=settings.attempt_seconds + 5,
    # Our own logging: Celery's would print arguments and tracebacks in its own format.
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    # Flower shows workers and tasks from events; they carry ids only.
    worker_send_task_events=True,
    task_send_sent_event=False,
    # Remote control: Flower asks workers for their queues; its replies need not outlive the asker.
    control_queue_ttl=60,
    timezone="UTC",
    beat_schedule={
        "sweep": {
            "task": SWEEP,
            "schedule": timedelta(seconds=settings.sweep_seconds),
            # While no control worker runs, sweeps must not pile up: one of them is enough.
            "options": {"queue": CONTROL, "expires": max(settings.sweep_seconds * 2, 5)},
        },
        "retain": {
            "task": RETAIN,
            # Most of which it rests, in the second of the process's two threads.
            "schedule": timedelta(seconds=RETAIN_SECONDS),
            "options": {"queue": CONTROL, "expires": RETAIN_SECONDS},
        },
    },
    # Beat looks at its schedule at least this often.
    beat_max_loop_interval=max(settings.sweep_seconds / 2, 0.25),
)


@setup_logging.connect
def _configure_logs(**_: object) -> None:
    configure_logs(settings)
