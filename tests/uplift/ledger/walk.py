"""A random walk through the life of a few records, on the real ledger, beside a model of 1upHealth.

Each step is one transaction of the API's, a worker's, the sweep's or an operator's; sometimes two
run at once. Workers die, freeze and come back late. After each step the ledger must be in a state
that follows from the one before, and 1upHealth must hold nothing that the ledger does not know of.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from tests.uplift.ledger.rows import new_upload, put_in_unread
from uplift.delivery import results
from uplift.delivery.outcome import Policy, change_of
from uplift.delivery.results import LastStep, Result
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import NeedsAuthorization, TokenPending
from uplift.ledger import (
    cancelling,
    dead_letters,
    fair_queue,
    leases,
    parking,
    pauses,
    sweeping,
)
from uplift.ledger.abandoned import Signs, take_abandoned
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.due import due_among, front
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.users import UserRow
from uplift.lifecycle import UNFINISHED, Reason, State, allowed
from uplift.queues import UPLOADS
from uplift.sealing import UserKey
from uplift.settings import Settings
from uplift.watermark import NO_TIMES, Times

RECORDS = 4
LABELS = (b"a", b"a", b"a", b"b", b"c")
CONTENTS = 3
DAYS = 6
_MAX = 100
_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_KEY = UserKey.generate()
_COUNT = UNFINISHED | {State.DELIVERED}

# Polling would miss what one transaction does in two steps: the trigger sees each.
WATCH = (
    "CREATE TABLE walked (step bigserial, upload_id uuid, source text, target text)",
    """
    CREATE FUNCTION note_walked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'DELETE' THEN
            INSERT INTO walked (upload_id, source, target) VALUES (OLD.id, OLD.state, 'gone');
        ELSIF OLD.state <> NEW.state THEN
            INSERT INTO walked (upload_id, source, target) VALUES (OLD.id, OLD.state, NEW.state);
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER walked AFTER UPDATE OR DELETE ON uploads
    FOR EACH ROW EXECUTE FUNCTION note_walked()
    """,
)
UNWATCH = (
    "DROP TRIGGER walked ON uploads",
    "DROP FUNCTION note_walked",
    "DROP TABLE walked",
)

_LOOK = """
    SELECT u.id, u.record_id, u.version, u.state, u.reason, u.revision, u.digest, u.maybe_sent,
        u.lease_id, coalesce(d.version, 0) AS delivered_version
    FROM uploads AS u
    LEFT JOIN deliveries AS d ON d.record_id = u.record_id AND d.destination = u.destination
    ORDER BY u.record_id, u.version
"""


@dataclass(eq=False)
class Held:
    """A claim in the hands of a worker, which may come late.

    `live`: its attempt may still send. `taken`: its lease is not the upload's any more.
    """

    claim: Claim
    version: int
    digest: bytes
    live: bool = True
    taken: bool = False
    ended: Outcome | None = None


@dataclass
class Upstream:
    """What the modelled 1upHealth holds of each record, and who put it there how often."""

    contents: dict[UUID, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    versions: dict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    stores: dict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    places: dict[UUID, int] = field(default_factory=dict)  # of uploads
    at: dict[int, UUID] = field(default_factory=dict)  # the record at a place

    def store(self, held: Held) -> None:
        """It arrives, whether a worker learns of it or not."""
        record, upload = held.claim.record_id, held.claim.upload_id
        assert held.version >= self.versions[record], f"{upload} overwrites a newer version"
        assert not self.stores[upload], f"{upload} is stored a second time"
        there = self.at.setdefault(self.places[upload], record)
        assert there == record, f"{upload} overwrites another record"
        self.contents[record].append(held.digest)
        self.versions[record] = held.version
        self.stores[upload] += 1

    def has(self, held: Held) -> bool:
        """What a look-up finds: the content as it is now."""
        contents = self.contents[held.claim.record_id]
        return bool(contents) and contents[-1] == held.digest


class Walk:
    """One walk. `trail` says what was done, for whoever has to find out why."""

    def __init__(self, database: Database, user: UserRow, seed: int) -> None:
        self._database = database
        self._user = user
        self._dice = random.Random(seed)
        self._policy = Policy.of(Settings())
        self._held: list[Held] = []
        self._upstream = Upstream()
        self._known: dict[UUID, Row[Any]] = {}
        self._updated: dict[UUID, datetime] = {}
        self._submitted: NewUpload | None = None  # what this step put in, if that is one upload
        self.trail: list[str] = []
        self.transitions: set[tuple[str, str]] = set()

    async def step(self) -> None:
        """Do one thing, or two at once, and see that all is well."""
        chosen = self._dice.choices(list(self._ways), list(self._ways.values()), k=2)
        together = chosen if self._dice.random() < 0.3 else chosen[:1]
        self._submitted = None
        self.trail.append(" + ".join(way.__name__ for way in together))
        await asyncio.gather(*(way(self) for way in together))
        await self._see_that_all_is_well(alone=together == [Walk.submit])

    async def _run(self, use: Callable[[Any], Awaitable[Any]]) -> Any:
        async with self._database.transaction() as connection:
            return await use(connection)

    async def submit(self) -> None:
        """A device sends some content of some record, perhaps one that it had before."""
        records = [self._dice.randrange(RECORDS) for _ in range(self._dice.choice((1, 1, 3)))]
        group = [
            new_upload(
                self._user,
                identity=b"record %d of %s" % (record, label := self._dice.choice(LABELS)),
                digest=b"content %d" % self._dice.randrange(CONTENTS),
                upstream_key=b"place %032d" % record,
                source_key=label,
                key=_KEY,
                times=self._times(),
                force=self._dice.random() < 0.1,
            )
            for record in records
        ]
        kept = await self._run(lambda connection: put_in_unread(connection, group))
        for record, new, (id_, _) in zip(records, group, kept, strict=True):
            self._upstream.places[id_] = record
            if (updated := new.times.updated) is not None:
                self._updated[id_] = max(updated, self._updated.get(id_, updated))
        self._submitted = group[0] if len(group) == 1 and kept[0] == (group[0].id, False) else None

    def _times(self) -> Times:
        """One hospital says when it changed a record, the other does not."""
        if self._dice.random() < 0.3:
            return NO_TIMES
        return Times(updated=_FIRST_DAY + timedelta(days=self._dice.randrange(DAYS)))

    async def claim(self) -> None:
        """A worker takes what is at the front, or what is due of some ids."""
        ids = [id_ for id_ in self._known if self._dice.random() < 0.7]
        by_tag = self._dice.random() < 0.6

        async def use(connection: Any) -> list[Held]:
            if by_tag:
                found = (await front(connection, UPLOADS, "oneup", limit=_MAX)).due
            else:
                found = await due_among(connection, ids)
            claims = await leases.lease(
                connection,
                found,
                since=time.monotonic(),
                attempt_seconds=600.0,
                lease_seconds=600.0,
                give_up_seconds=self._dice.choice((0, 600)),
            )
            held = []
            for claim in claims:
                read = text("SELECT version, digest FROM uploads WHERE id = :id")
                row = (await connection.execute(read, {"id": claim.upload_id})).one()
                held.append(Held(claim, row.version, bytes(row.digest)))
            return held

        for new in await self._run(use):
            others = [each for each in self._held if each.live]
            assert new.claim.record_id not in {each.claim.record_id for each in others}
            self._held.append(new)

    async def attempt(self) -> None:
        """A worker does what `uplift.delivery.attempt` does: looks it up if it must, and sends."""
        waiting = [each for each in self._held if each.live and each.ended is None]
        if waiting:
            held = self._dice.choice(waiting)
            held.ended = self._attempted(held)

    def _attempted(self, held: Held) -> Outcome:
        result = self._result(held)
        change, code = change_of(held.claim, result, self._policy, jitter=self._dice.random())
        return Outcome(claim=held.claim, change=change, code=code)

    def _result(self, held: Held) -> Result:
        claim = held.claim
        if claim.cancel_requested and not claim.maybe_sent:
            return Result(results.Cancelled())
        if claim.collides and not claim.cancel_requested:
            return Result(results.Collides())
        last = self._stopped_early(claim) or (self._looked_up(held) if claim.maybe_sent else None)
        if last is not None:
            return Result(last)
        in_doubt = claim.maybe_sent
        if claim.cancel_requested:
            return Result(results.Cancelled(), in_doubt=in_doubt)
        if claim.past_deadline:
            return Result(results.PastDeadline(), in_doubt=in_doubt)
        return Result(self._sent(held), in_doubt=in_doubt)

    def _stopped_early(self, claim: Claim) -> LastStep | None:
        luck = self._dice.random()
        if luck < 0.05:
            return results.NoToken(NeedsAuthorization())
        if luck < 0.1:
            return results.Stopped()
        if luck < 0.15:
            return results.NoToken(TokenPending("busy", retry_after=1))
        if luck < 0.2 and not claim.validated:
            return results.Invalid()
        return None

    def _looked_up(self, held: Held) -> LastStep | None:
        if self._dice.random() < 0.2:
            return results.LookUpFailed(Response(ResponseKind.UNKNOWN, "http_502"))
        if self._upstream.has(held):
            return results.Found(Response(ResponseKind.FOUND, "http_200"))
        if not held.claim.empty_searches and self._dice.random() < 0.3:
            return results.SearchEmpty()
        return None

    def _sent(self, held: Held) -> LastStep:
        kind = self._dice.choice(
            (
                *(ResponseKind.STORED,) * 4,
                *(ResponseKind.UNKNOWN,) * 4,
                ResponseKind.BUSY,
                ResponseKind.NOT_SENT,
                ResponseKind.REFUSED,
                ResponseKind.HOLD,
            )
        )
        if kind is ResponseKind.STORED or (
            kind is ResponseKind.UNKNOWN and self._dice.random() < 0.5
        ):
            self._upstream.store(held)
        return results.Sent(Response(kind, kind.value))

    async def record(self) -> None:
        """Workers record how attempts ended, in time or too late."""
        ended = [each for each in self._held if each.ended and self._dice.random() < 0.7]
        endings = [each.ended for each in ended if each.ended]
        if not endings:
            return
        self.trail[-1] += ": " + ", ".join(
            f"{each.claim.upload_id} {each.ended and each.ended.change.target}" for each in ended
        )
        recorded = await self._run(lambda connection: leases.record(connection, endings))
        for held in ended:
            if held in self._held:
                self._held.remove(held)
            # Of one upload there may be two in the group: then the other may have been in time.
            alone = sum(each.claim.upload_id == held.claim.upload_id for each in ended) == 1
            late = held.taken and alone and held.claim.upload_id in recorded
            assert not late, "a late worker recorded"

    async def die(self) -> None:
        """A worker is killed: with it goes what it knew."""
        for held in [each for each in self._held if self._dice.random() < 0.3]:
            self._held.remove(held)

    async def run_out(self) -> None:
        """Leases run out, of the dead and of the frozen, before their end is recorded."""
        leased = text(
            "UPDATE uploads SET lease_until = now() - interval '1 s', attempt_until = now()"
            " WHERE state = 'sending' AND random() < 0.5 RETURNING lease_id, id"
        )
        rows = await self._run(lambda connection: connection.execute(leased))
        gone = {(row.lease_id, row.id) for row in rows}
        for held in self._held:
            if (held.claim.lease_id, held.claim.upload_id) in gone:
                held.live = False
        signs = Signs(leases_count=True, silence_seconds=15.0)
        await self._run(
            lambda connection: take_abandoned(connection, signs, limit=_MAX, settle_seconds=0.0)
        )

    async def wait(self) -> None:
        """Time passes: what waits becomes due."""
        due = text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
        await self._run(lambda connection: connection.execute(due))

    async def pass_deadlines(self) -> None:
        """The time to give up of some uploads comes."""
        over = text(
            "UPDATE uploads SET give_up_at = now() - interval '1 s'"
            " WHERE state IN ('queued', 'parked') AND random() < 0.3"
        )
        await self._run(lambda connection: connection.execute(over))
        await self._run(
            lambda connection: sweeping.expire_past_deadline(connection, "oneup", limit=_MAX)
        )

    async def tag(self) -> None:
        """The sweep gives tags to what is due."""
        await self._run(
            lambda connection: fair_queue.tag_due(
                connection, UPLOADS, "oneup", each=_MAX, limit=_MAX
            )
        )

    async def park(self) -> None:
        """The person's consent ends."""
        await self._run(
            lambda connection: parking.park_waiting(
                connection, self._user.id, destinations=["oneup"], clock=600.0
            )
        )

    async def release(self) -> None:
        """The person consents again."""
        await self._run(lambda connection: parking.release_parked(connection, self._user.id))

    async def cancel(self) -> None:
        """The owner cancels some."""
        ids = [id_ for id_ in self._known if self._dice.random() < 0.2]
        await self._run(lambda connection: cancelling.cancel(connection, ids, by=SYSTEM))
        await self._run(lambda connection: cancelling.cancel_parked(connection, limit=_MAX))

    async def redrive(self) -> None:
        """An operator redrives dead letters."""
        ids = [id_ for id_ in self._known if self._dice.random() < 0.5]
        await self._run(
            lambda connection: dead_letters.redrive(connection, ids, settle_seconds=0.0, by=SYSTEM)
        )

    async def pause(self) -> None:
        """An operator pauses the user."""
        await self._run(lambda connection: pauses.pause(connection, self._user.id, by=SYSTEM))

    async def resume(self) -> None:
        """An operator lets them go on."""
        await self._run(lambda connection: pauses.resume(connection, self._user.id, by=SYSTEM))

    _ways: dict[Callable[["Walk"], Awaitable[None]], int] = {  # noqa: RUF012
        submit: 12,
        claim: 14,
        attempt: 30,
        record: 18,
        wait: 10,
        die: 3,
        run_out: 4,
        pass_deadlines: 2,
        tag: 10,
        park: 1,
        release: 5,
        cancel: 2,
        redrive: 5,
        pause: 1,
        resume: 8,
    }

    async def _see_that_all_is_well(self, *, alone: bool) -> None:
        async def use(connection: Any) -> tuple[list[Row[Any]], list[Row[Any]]]:
            taken = text("DELETE FROM walked RETURNING source, target, upload_id")
            return (
                (await connection.execute(text(_LOOK))).all(),
                (await connection.execute(taken)).all(),
            )

        rows, walked = await self._run(use)
        for step in walked:
            assert step.target in set(State), f"{step.upload_id} is {step.target}"
            assert allowed(State(step.source), State(step.target)), step
            self.transitions.add((step.source, step.target))
        found = {row.id: row for row in rows}
        assert self._known.keys() <= found.keys(), "an upload vanished"
        self._see_that_it_goes_forwards(found)
        if alone and self._submitted is not None:
            self._see_that_only_what_is_late_ended(self._submitted, found)
        _see_that_versions_take_turns(rows)
        for row in rows:
            self._see_that_1uphealth_agrees(row)
        for held in self._held:
            held.taken = found[held.claim.upload_id].lease_id != held.claim.lease_id
        self._known = found

    def _see_that_it_goes_forwards(self, found: dict[UUID, Row[Any]]) -> None:
        for id_, before in self._known.items():
            row = found[id_]
            assert row.revision >= before.revision
            if row.record_id == before.record_id:
                assert row.delivered_version >= before.delivered_version
            assert row.digest == before.digest
            assert row.version == before.version or row.record_id != before.record_id

    def _see_that_only_what_is_late_ended(
        self, new: NewUpload, found: dict[UUID, Row[Any]]
    ) -> None:
        row = found[new.id]
        newer = [
            before.id
            for before in self._known.values()
            if (now := found[before.id]).record_id == row.record_id
            # What collided may be a version of this record now, and under way again.
            and (before.maybe_sent or {State(before.state), State(now.state)} & _COUNT)
            and before.id in self._updated
            and new.id in self._updated
            and self._updated[before.id] > self._updated[new.id]
        ]
        late = row.reason == Reason.OLDER_VERSION
        assert late == (bool(newer) and not new.force), f"{new.id} and {newer}"

    def _see_that_1uphealth_agrees(self, row: Row[Any]) -> None:
        if row.state == State.DELIVERED:
            contents = self._upstream.contents[row.record_id]
            assert bytes(row.digest) in contents, f"{row.id} never arrived"
            assert row.delivered_version >= row.version
        elif self._upstream.stores[row.id]:
            assert row.maybe_sent, f"nobody knows that {row.id} is at 1upHealth"


def _see_that_versions_take_turns(rows: list[Row[Any]]) -> None:
    """`rows` has the older versions of a record first."""
    delivered = {(row.record_id, row.version) for row in rows if row.state == State.DELIVERED}
    unfinished: set[UUID] = set()
    for row in rows:
        if row.delivered_version:
            of = (row.record_id, row.delivered_version)
            assert of in delivered, f"{of} is noted as delivered, and is not"
        if row.state == State.SENDING:
            assert row.record_id not in unfinished, f"{row.id} is not its turn"
        if row.state in set(UNFINISHED):
            unfinished.add(row.record_id)
