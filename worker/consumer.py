"""Celery's consumer, which no fault of Redis ends. This is the one place where its errors end.

Celery 5.7 and kombu 5.7 recover from a lost connection. From what Redis answers they do not: the
worker says "Unrecoverable error" and ends. Redis answers so for as long as it is a replica, has no
memory or no disk, loads its data, or does not permit a command: READONLY, OOM, MISCONF, MASTERDOWN,
NOPERM, "UNBLOCKED" (celery#7946, celery#6348). Celery's own answer, `broker_channel_error_retry`,
leaves out errors of kombu itself, such as that of a channel that closes after its connection
(AttributeError 'hostname', kombu#582), and ends the process when no file can be opened.
"""

import time
from collections.abc import Callable
from typing import Any

import structlog
from celery.exceptions import WorkerTerminate
from celery.signals import heartbeat_sent
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu import Connection

from uplift.foreign import Foreign, note_foreign
from uplift.worker.newer_tasks import HOLD_SECONDS, NewerTasks

_log = structlog.get_logger(__name__)
_celery_log = get_logger(__name__)

_PAUSE_SECONDS = 1.0
"""Between two tries to consume. Redis is asked so often for as long as its fault lasts."""


class SteadyConsumer(Consumer):
    """Begins again after every error, until the worker stops.

    `celery.signals.heartbeat_sent` is sent while it tries, too: it does its work then.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._newer = NewerTasks()

    # Celery's own, which its types leave out.
    connection_errors: Any
    qos: Any

    def start(self) -> None:
        """Consume until the worker stops."""
        while True:
            try:
                super().start()
            except Exception as error:  # noqa: BLE001
                self._begin_again(error)
            except WorkerTerminate as end:
                # So Celery says that this process could not open one more file.
                if not isinstance(end.__cause__, OSError):
                    raise
                self._begin_again(end.__cause__)
            else:
                return

    def ensure_connected(self, conn: Connection) -> Connection:
        """Connect, however long Redis is away. Raises WorkerShutdown if the worker stops."""

        def failed(error: Exception, _: float) -> None:
            heartbeat_sent.send(sender=self)
            _log.warning("redis_unreachable", error=type(error).__name__)

        # Celery's own pauses between two tries grow to half a minute. These grow to two seconds.
        tries: Any = None  # without end
        first, step, longest = 1, 1, 2
        return conn.ensure_connection(
            failed, tries, first, step, longest, callback=state.maybe_shutdown
        )

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """Give it back after a while: a newer worker knows it. Celery's own answer drops it."""
        if not self._newer.is_kept(message.headers["task"], message.headers["id"]):
            note_foreign(Foreign.MESSAGE)
            message.reject_log_error(_celery_log, self.connection_errors)
            return
        # Meanwhile it takes no other's place, as Celery does with a task for later.
        self.qos.increment_eventually()

        def give_back() -> None:
            message.reject_log_error(_celery_log, self.connection_errors, requeue=True)
            self.qos.decrement_eventually()

        self.timer.call_after(HOLD_SECONDS, give_back)

    def _begin_again(self, error: Exception) -> None:
        """Let go of the connection, as Celery does after a lost one, and of what waits on it."""
        heartbeat_sent.send(sender=self)
        _log.warning("consumer_begins_again", error=type(error).__name__)
        steps: tuple[Callable[[], object], ...] = (
            lambda: self.on_connection_error_after_connected(error),
            self.on_close,
            self._cancel_connection_timer_entries,  # type: ignore[attr-defined]  # new in 5.7
            lambda: self.blueprint.restart(self),
        )
        for let_go in steps:
            try:
                let_go()
            except Exception as failed:  # noqa: BLE001  the other parts must still be let go
                _log.warning("consumer_kept_a_part", error=type(failed).__name__)
        time.sleep(_PAUSE_SECONDS)
