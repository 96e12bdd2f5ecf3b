"""The Celery application of the workers. Each option has its reason beside it."""

import warnings

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.signals import setup_logging
from kombu import Exchange, Queue

from uplift.logs import configure_logs
from uplift.queues import BULK, UPLOADS
from uplift.redis_connection import celery_app, redis_url
from uplift.settings import Settings

# Celery warns of root because a message could be a pickle and run as root: here all are JSON.
# The deployment decides about root; the image has an account of its own.
warnings.filterwarnings("ignore", category=SecurityWarning)


def create_app(settings: Settings) -> Celery:
    """The application. It has no tasks yet. Raises ConfigurationError for a wrong address of Redis.

    Sets up this process's logging as well: without that, Celery sets up its own.
    """
    app = celery_app("uplift", redis_url(settings))
    app.conf.update(
        # These queues by name, and no others: a message to a misspelt queue must fail at once.
        # Each has an exchange of its own: without one, both share the default queue's.
        task_queues=[Queue(name, Exchange(name), name) for name in (UPLOADS, BULK)],
        task_create_missing_queues=False,
        task_default_queue=UPLOADS,
        # Messages hold ids in JSON. Nothing else is accepted: a pickle can run any code.
        task_serializer="json",
        accept_content=["json"],
        # The ledger holds the results; a result backend would be a second, older copy.
        task_ignore_result=True,
        result_backend=None,
        # A message is gone only when its uploads were attempted. Redelivery does no harm: a claim
        # finds nothing to do. Loss does no harm either: the sweep dispatches again.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # A worker takes only messages it has a thread for; the rest stay for other workers.
        worker_prefetch_multiplier=1,
        broker_transport_options={
            # Seconds until the messages of a dead worker go to others. Longer than any task: one
            # task may make 100 attempts of attempt_seconds each, within the in-flight limit.
            "visibility_timeout": 900,
            # A Redis that is away must show quickly, so that it does not delay a stop.
            "socket_connect_timeout": 5,
            "socket_timeout": 10,
            "socket_keepalive": True,
            # How often Celery looks for messages of dead workers; its default is every 100 s.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
        },
        # Threads and heartbeats share the pool; in a small pool, acknowledgements fail silently.
        redis_max_connections=50,
        broker_pool_limit=10,
        # Redis may start after the workers, and may be away for any time.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A task goes on while Redis is away. Its message may come back meanwhile, and is harmless.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # After an outage, as many messages as before it.
        worker_enable_prefetch_count_reduction=False,
        # Attempts that are in flight may end within their deadline before the process ends.
        worker_soft_shutdown_timeout=settings.attempt_seconds + 5,
        # Logs are ours: Celery's would print arguments and tracebacks in its own format.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Flower shows workers and tasks from events; they carry ids only.
        worker_send_task_events=True,
        task_send_sent_event=False,
        # Flower asks workers for their queues. Its reply queues may end soon after it.
        control_queue_ttl=60,
        timezone="UTC",
    )

    def configure(**_: object) -> None:
        configure_logs(settings)
        # At each lost connection, Celery announces a default of its next version, which is set
        # above. It has just switched its warnings on.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)

    configure_logs(settings)
    # Celery leaves logging alone as soon as somebody receives this signal.
    setup_logging.connect(configure, weak=False, dispatch_uid="uplift")
    return app
