"""Celery's remote control, of which only the questions are left.

Whoever reaches Redis can send its commands to every worker: to stop, to leave a queue, to shrink to
no thread, to refuse tasks. `uplift` pauses and cancels, and the supervisor stops processes; both
ask who wants it. Flower and `uplift doctor` only ask.
"""

from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel

from uplift.foreign import Foreign, note_foreign

# What Flower asks (`inspect_methods` of flower/inspector.py), and its switch for events, which are
# on. `ping` is what Celery's own tools ask, `heartbeat` what whoever begins to listen to events
# does (`EventReceiver` of celery/events/receiver.py).
ANSWERED = frozenset({
    "active", "active_queues", "conf", "enable_events", "heartbeat", "ping", "registered",
    "reserved", "revoked", "scheduled", "stats",
})  # fmt: skip

_Reply = Callable[..., object]


class _Replies(dict[str, _Reply]):
    """Answers by command; one answer to all other commands."""

    def __missing__(self, command: str) -> _Reply:
        return _refuse


def _refuse(state: object, **_: object) -> dict[str, str]:  # noqa: ARG001
    note_foreign(Foreign.COMMAND)
    return {"error": "not a command of Uplift's workers"}


def _without_arguments(answer: _Reply) -> _Reply:
    """An answer that ignores what was sent with the question."""
    return lambda state, **_: answer(state)


def only_answers() -> None:
    """Let the workers of this process answer questions, and obey no command."""
    found: dict[str, Any] = Panel.data
    Panel.data = _Replies({name: _without_arguments(found[name]) for name in ANSWERED})
