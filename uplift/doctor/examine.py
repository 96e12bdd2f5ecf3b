"""Examines every part, one after the other. A part that does not respond is a finding too.

To add a part, write a file with its judgements, and add its examination to `_EXAMINATIONS`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial

import orjson
import redis.asyncio
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.configured import configured_destinations
from uplift.doctor import (
    addresses,
    calls,
    configuration,
    keys,
    ledger,
    logins,
    processes,
    queues,
    servers,
    upstream,
    work,
)
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.errors import ConfigurationError
from uplift.file_limit import file_limit, files_of_api, files_of_worker
from uplift.key_check import key_use
from uplift.key_source import read_key_ring
from uplift.ledger import destinations, migrate, retention
from uplift.ledger.backlog import backlog, overdue
from uplift.ledger.credentials import forged_credentials
from uplift.ledger.database import Database, Patience
from uplift.ledger.master_keys import in_use_since, key_lives
from uplift.ledger.processes import living
from uplift.ledger.recent_calls import dead_letters, latest_statuses
from uplift.ledger.roles import rights
from uplift.ledger.server import server_facts, write_nothing
from uplift.ledger.suitable import check_suitable
from uplift.settings import Settings

_Examination = Callable[[Settings], Awaitable[list[Finding]]]

_MAX_FORGED = 100
_PART_SECONDS = 40.0  # longer than every time-out inside a part
# Some counts read all that is unfinished.
_PATIENCE = Patience(transaction=15.0, pool=5.0)
_LOCK_SECONDS = 3.0
_DEAD_LETTER_DAYS = 7.0
_MAX_ENDED = 10_000


async def examine(settings: Settings, *, write: bool = False) -> AsyncIterator[Finding]:
    """Every finding, in the order in which an operator checks.

    `write`: destinations are tried with a test Patient, which is deleted again.
    """
    at_servers: _Examination = partial(servers.ask, write=write)
    for part, examination in (*_EXAMINATIONS, (servers.PART, at_servers)):
        for finding in await _examined(part, examination, settings):
            yield finding


async def _examined(part: str, examination: _Examination, settings: Settings) -> list[Finding]:
    try:
        async with asyncio.timeout(_PART_SECONDS):
            return await examination(settings)
    except Exception as error:  # noqa: BLE001  the other parts matter too
        # Only the type: an error's text may contain an address with its password.
        return [
            fail(
                part,
                f"the examination failed ({type(error).__name__})",
                "Fix what the lines above say, and run it again.",
            )
        ]


async def _configuration(settings: Settings) -> list[Finding]:
    needed = max(files_of_api(settings), files_of_worker(settings))
    return [
        *configuration.judge_settings(settings),
        configuration.judge_files(file_limit(), needed),
    ]


async def _postgres(settings: Settings) -> list[Finding]:
    """The server and the schema. If the schema is right, the keys and the work too."""
    if settings.database_url is None:
        return []
    database = Database.connect(settings, _PATIENCE)
    try:
        await check_suitable(settings)
        asked = time.time()
        async with database.transaction() as connection:
            facts = await server_facts(connection)
        # PostgreSQL reads its clock halfway through the query. The first query also connected.
        async with database.transaction() as connection:
            asked = time.time()
            facts = await server_facts(connection)
            skew = facts.clock - (asked + time.time()) / 2
        revisions = await migrate.revisions(database)
        found = [
            *ledger.judge_server(facts),
            ledger.judge_revision(revisions),
            ledger.judge_clock(skew),
        ]
        if revisions.problem is None:
            found += await _keys(settings, database)
            found += await _addresses(settings, database)
            async with database.transaction() as connection:
                may = await rights(connection)
                found.append(ledger.judge_role(may))
                if may.may_write and not may.lacking:
                    await write_nothing(connection, lock_seconds=_LOCK_SECONDS)
            async with database.transaction() as connection:
                statuses = await latest_statuses(connection)
                found += work.judge_work(await overdue(connection), busy=calls.is_busy(statuses))
                waiting = await backlog(connection)
                found += work.judge_backlog(waiting, settings.max_backlog)
                found += calls.judge_calls(statuses, oneup=configuration.only_oneup(settings))
                found += calls.judge_held(waiting.held, statuses)
                ended = await dead_letters(connection, days=_DEAD_LETTER_DAYS, limit=_MAX_ENDED)
                found += calls.judge_dead_letters(ended, statuses)
                found += processes.judge_processes(await living(connection))
                late = await retention.lag(connection, retention.windows(settings))
                found.append(work.judge_retention(late))
        return found
    except ConfigurationError as error:
        return [fail(ledger.PART, str(error), "Until then, no process of Uplift starts.")]
    except (SQLAlchemyError, OSError) as error:
        where = make_url(settings.database_url.get_secret_value()).host or "its address"
        return [ledger.not_working(error, where)]
    finally:
        await database.close()


async def _keys(settings: Settings, database: Database) -> list[Finding]:
    if settings.master_keys is None and settings.master_keys_dir is None:
        return []
    try:
        key_ring = read_key_ring(settings)
    except ConfigurationError as error:
        return [fail(keys.PART, str(error), "Correct the key ring. docs/keys.md says how.")]
    async with database.transaction() as connection:
        now, _ = await in_use_since(connection, key_ring.current)
        lives = await key_lives(connection)
        use = await key_use(connection, key_ring)
        found = keys.judge_keys(key_ring, use)
        if use.problem is None:
            forged = await forged_credentials(connection, key_ring, limit=_MAX_FORGED)
            found += keys.judge_credentials(forged, _MAX_FORGED)
        return found + keys.judge_lives(lives, key_ring, now, settings)


async def _addresses(settings: Settings, database: Database) -> list[Finding]:
    try:
        known = configured_destinations(settings)
    except ConfigurationError as error:
        return [fail(addresses.PART, str(error), "Correct it. No process starts until then.")]
    async with database.transaction() as connection:
        changed = await destinations.find_changed(
            connection, {name: orjson.loads(each.address) for name, each in known.items()}
        )
    return addresses.judge_addresses(known, changed)


async def _redis(settings: Settings) -> list[Finding]:
    if settings.redis_url is None:
        return []
    url = settings.redis_url.get_secret_value()
    try:
        info = await queues.redis_info(url)
        found = [*queues.judge_redis(info), *queues.judge_clock(info, time.time())]
    except Exception as error:  # noqa: BLE001  redis-py raises its own, sockets' and URLs' errors
        return [
            fail(
                queues.REDIS,
                f"Redis does not respond ({type(error).__name__})",
                "Check UPLIFT_REDIS_URL, and check that the server runs. Meanwhile uploads are"
                " accepted. They are delivered when Redis is back.",
            ),
            warn(queues.WORKERS, "unknown: Redis is not reachable", "Bring Redis back first."),
            work.judge_rate_limiter(None),
        ]
    refusal = await queues.write_refusal(url)
    if refusal is not None:
        return [
            *found,
            queues.judge_refusal(refusal),
            warn(queues.WORKERS, "unknown: Redis takes no messages", "Bring Redis back first."),
            work.judge_rate_limiter(None),
        ]
    found.append(ok(queues.REDIS, "it takes messages"))
    found += queues.judge_consumers(await queues.queue_consumers(url))
    found.append(queues.judge_sweeps(swept=await queues.is_swept(url)))
    return [*found, *await _rate_limiter(settings, url)]


async def _rate_limiter(settings: Settings, url: str) -> list[Finding]:
    client = redis.asyncio.from_url(url, **queues.FAST)
    try:
        known = configured_destinations(settings)
        found: list[Finding] = []
        for name, each in known.items():
            limiter = RateLimiter(client, settings, name, limit=each.max_attempts_per_second)
            of_it = [
                work.judge_rate_limiter(await limiter.state()),
                work.judge_types(await limiter.types.probing()),
            ]
            # With one destination it needs no name.
            found += of_it if len(known) == 1 else [_about(name, one) for one in of_it]
        return found
    finally:
        await client.aclose()


def _about(destination: str, finding: Finding) -> Finding:
    return replace(finding, what=f"{destination}: {finding.what}")


_EXAMINATIONS: tuple[tuple[str, _Examination], ...] = (
    (configuration.PART, _configuration),
    (ledger.PART, _postgres),
    (queues.REDIS, _redis),
    (upstream.PART, upstream.ask),
    (logins.PART, logins.ask),
)
