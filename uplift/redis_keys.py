"""Clears the keys that Celery keeps in Redis of what none of our processes writes.

A key of another type stops every worker that reads it, and a foreign binding stops every dispatch,
until somebody deletes it: whoever reaches Redis can do that with one command. The keys of the rate
limiter and of the quota are checked where they are read, in their Lua scripts.
"""

import redis.asyncio

from uplift.foreign import Foreign, note_foreign
from uplift.queues import BULK, UPLOADS

# As kombu writes them: kombu/transport/redis.py of 5.7.
_SEPARATOR = "\x06\x16"
_PRIORITIES = ("", *(f"{_SEPARATOR}{each}" for each in (3, 6, 9)))
_MUTEX = "unacked_mutex"
_MUTEX_SECONDS = 300
_BINDING = "_kombu.binding."
_PERMANENT = "_kombu.binding_permanent."
_QUEUES = (UPLOADS, BULK)
_REPLIES = f"{_BINDING}reply.celery.pidbox"
# Each question of Flower's and of doctor's has one, for a minute.
_MAX_REPLIES = 1000

_KINDS = {
    **{f"{queue}{priority}": b"list" for queue in _QUEUES for priority in _PRIORITIES},
    **{f"{prefix}{queue}": b"set" for queue in _QUEUES for prefix in (_BINDING, _PERMANENT)},
    f"{_BINDING}celery.pidbox": b"set",
    _REPLIES: b"set",
    "_kombu.binding_deadlines": b"zset",
    "unacked": b"hash",
    "unacked_index": b"zset",
}


async def clear_foreign(client: redis.asyncio.Redis) -> None:
    """Delete what does not belong there. Raises RedisError or OSError if Redis does not answer."""
    for key, kind in _KINDS.items():
        if await client.type(key) not in (kind, b"none"):
            await client.delete(key)
            note_foreign(Foreign.KEY)
    # kombu's lock ends by itself (-2: there is none). One that does not keeps messages for good.
    left = await client.ttl(_MUTEX)
    if left == -1 or left > _MUTEX_SECONDS:
        await client.delete(_MUTEX)
        note_foreign(Foreign.KEY)
    for queue in _QUEUES:
        await _clear_bindings(client, queue)
    await _clear_replies(client)


async def _clear_bindings(client: redis.asyncio.Redis, queue: str) -> None:
    """An exchange of ours leads to its queue, and to nothing else."""
    key, own = f"{_BINDING}{queue}", _SEPARATOR.join((queue, "", queue))
    number = await client.scard(key)
    if number > 1 or (number and not await client.sismember(key, own)):
        await client.delete(key)
        await client.sadd(key, own)
        note_foreign(Foreign.BINDING)


async def _clear_replies(client: redis.asyncio.Redis) -> None:
    """Bindings that kombu cannot read would keep every worker from answering Flower."""
    if await client.scard(_REPLIES) > _MAX_REPLIES:
        await client.delete(_REPLIES)
        note_foreign(Foreign.BINDING)
        return
    broken = [each for each in await client.smembers(_REPLIES) if not _is_readable(each)]
    if broken:
        await client.srem(_REPLIES, *broken)
        note_foreign(Foreign.BINDING, len(broken))


def _is_readable(binding: bytes | str) -> bool:
    try:
        text = binding.decode() if isinstance(binding, bytes) else binding
    except UnicodeDecodeError:
        return False
    return text.count(_SEPARATOR) == 2
