"""`uplift worker` and `uplift bulk`: the Celery worker of one queue, in this process."""

import sys
from contextlib import ExitStack
from typing import Literal

from celery.signals import heartbeat_sent, worker_shutting_down
from celery.utils.nodenames import gethostname, nodename

from uplift.admin_port import Check, served
from uplift.errors import ConfigurationError
from uplift.file_limit import files_of_worker, raise_file_limit
from uplift.garbage import freeze_what_is_here
from uplift.queues import MAX_MESSAGE_IDS
from uplift.settings import Settings
from uplift.stopping import limit_stop
from uplift.traces import tracing
from uplift.worker import transport
from uplift.worker.app import create_app
from uplift.worker.bridge import Bridge, open_bridge
from uplift.worker.consumer import SteadyConsumer
from uplift.worker.health import Heartbeat, ended_when_failing, health_check
from uplift.worker.remote_control import only_answers
from uplift.worker.tasks import add_tasks

Queue = Literal["uploads", "bulk"]

MIN_THREADS = 4

CONSUMER_SECONDS = 60.0
"""Celery's consumer sends a heartbeat (`heartbeat_sent`) every 2 s while it has its broker, and at
each try to reach it."""


def threads_for(max_in_flight: int) -> int:
    """How many threads a worker needs. Each waits for one message of up to 100 ids; the event loop
    does the work of all messages."""
    return max(MIN_THREADS, max_in_flight // MAX_MESSAGE_IDS + 1)


def main(queue: Queue, name: str = "") -> None:
    """Work on that queue until SIGTERM or SIGINT, then end the process.

    `name` is the worker's name in Flower, with the machine's name behind it: the queue's name if
    there is none. Two workers on one machine need two names.
    """
    settings = Settings()
    with ExitStack() as stack:
        try:
            raise_file_limit(files_of_worker(settings))
            app = create_app(settings)
            bridge = stack.enter_context(open_bridge(settings))
            check = _check(bridge)
            stack.enter_context(served(settings, check))
            kind = "worker" if queue == "uploads" else queue
            bridge.loop.call_soon_threadsafe(bridge.relay.heartbeats.begin, kind)
            stack.enter_context(tracing(settings, kind))
        except ConfigurationError as error:
            sys.exit(f"The worker does not start: {error}")
        except Exception as error:  # noqa: BLE001
            # Only the type: the text of an unknown error may hold a secret of the settings.
            sys.exit(f"The worker does not start: {type(error).__name__}")
        add_tasks(app, bridge)
        # Flower, which shares the application, looks at the name of the transport.
        app.conf.broker_transport = transport.NAME
        only_answers()
        worker_shutting_down.connect(lambda **_: limit_stop(), weak=False)
        worker_shutting_down.connect(lambda **_: bridge.stop(), weak=False)
        stack.enter_context(ended_when_failing(check))
        # Not by `celery worker`: its command line takes APP, BROKER_URL and the like from the
        # environment, imports what they name from the current folder, and loads Flower.
        worker = app.Worker(
            hostname=nodename(name or queue, gethostname()),
            queues=[queue],
            pool_cls="threads",
            consumer_cls=SteadyConsumer,
            concurrency=threads_for(settings.max_in_flight),
            # They let workers share revoked tasks and clocks. Ours share nothing.
            without_mingle=True,
            without_gossip=True,
            loglevel=settings.log_level.upper(),
            quiet=True,
        )
        freeze_what_is_here()
        worker.start()
    sys.exit(worker.exitcode)


def _check(bridge: Bridge) -> Check:
    heartbeat = Heartbeat(CONSUMER_SECONDS)
    heartbeat_sent.connect(heartbeat.beat, weak=False)
    consumer = health_check(bridge.loop, heartbeat, "Celery takes no messages")

    def check() -> str | None:
        if bridge.relay.heartbeats.noted_as_ended:
            return "the ledger has this process as one that ended"
        return consumer()

    return check
