"""Redis as the workers' broker, and what they believe of it.

Whoever reaches Redis can put anything into a queue, or among the messages that wait for their
acknowledgement. kombu and Celery believe all of it: text that is not JSON and a header of another
type end the consumer's round, a time years ahead keeps a message in memory, a packed body may
unpack to gigabytes, and a message that cannot be restored keeps all others from it. So what none of
our processes sends is dropped, and counted. Nothing is lost with it: the sweep dispatches what is
due.
"""

import base64
from typing import Any

import orjson
from kombu.transport import redis

from uplift.foreign import Foreign, note_foreign
from uplift.queues import BULK, UPLOADS

NAME = f"{__name__}:Transport"
"""For Celery's setting `broker_transport`."""

# A message with a hundred ids has some 8 KB.
_MAX_BODY = 64 * 1024
_MAX_TEXT = 255

# What a dispatch leaves at its default. Celery acts on each: it would wait until a time, keep a
# message of another time in memory, or call other tasks.
_UNUSED_HEADERS = ("eta", "expires", "compression", "group", "stamps", "replaced_task_nesting")
_UNUSED_OPTIONS = ("callbacks", "errbacks", "chain", "chord")


def is_ours(message: object, *, is_task: bool = True) -> bool:
    """Whether a message, read from JSON, is one that Celery and kombu send here.

    A message of a queue calls a task. Those of the remote control call none.
    """
    match message:
        case {
            "body": str(body),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": dict(headers),
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": str(tag),
                "delivery_info": {"exchange": str(exchange), "routing_key": str(key)},
            },
        } if len(body) <= _MAX_BODY and max(map(len, (tag, exchange, key))) <= _MAX_TEXT:
            content = _read(body)
            return _calls_a_task(headers, content) if is_task else isinstance(content, dict)
    return False


def _read(body: str) -> object:
    """The content of a body; None if it is no JSON."""
    try:
        return orjson.loads(base64.b64decode(body))
    except ValueError:
        return None


def _calls_a_task(headers: dict[str, object], content: object) -> bool:
    match headers, content:
        case {"task": str(task), "id": str(id_)}, [list(), dict(), dict(options)]:
            return (
                max(len(task), len(id_)) <= _MAX_TEXT
                and headers.get("retries") in (0, None)
                and headers.get("timelimit") in ([None, None], None)
                and not any(headers.get(name) for name in _UNUSED_HEADERS)
                and not any(options.get(name) for name in _UNUSED_OPTIONS)
            )
    return False


class QoS(redis.QoS):
    """The messages that wait for their acknowledgement, without those that cannot be restored."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """See redis.QoS."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (ValueError, TypeError, RecursionError):  # it is not what kombu kept there
            note_foreign(Foreign.UNACKNOWLEDGED)
            with self.channel.conn_or_acquire(client) as found:  # type: ignore[attr-defined]
                self._remove_from_indices(tag, found.pipeline()).execute()  # type: ignore[attr-defined]


class Channel(redis.Channel):
    """A channel that drops what is no message."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, RecursionError):  # it is not JSON. It is out of the queue already
            note_foreign(Foreign.MESSAGE)
            return True


class Transport(redis.Transport):
    """kombu's transport for Redis, whose messages are checked."""

    Channel = Channel

    def _deliver(self, message: Any, queue: Any) -> None:
        if is_ours(message, is_task=queue in (UPLOADS, BULK)):
            super()._deliver(message, queue)
        else:
            note_foreign(Foreign.MESSAGE)
