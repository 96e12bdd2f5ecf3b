"""The states of an upload and the only ways between them. Pure.

`docs/lifecycle.md` draws this table; `uplift.ledger.transitions.change_state` enforces it.
"""

from enum import StrEnum


class State(StrEnum):
    """Where an upload is: always exactly one of these."""

    QUEUED = "queued"  # waits for a worker, due at next_attempt_at
    SENDING = "sending"  # leased by one worker until lease_until
    PARKED = "parked"  # waits for a person: the user's grant is dead
    DELIVERED = "delivered"  # the destination has it
    REJECTED = "rejected"  # not valid FHIR, or too complex to tell; the issues say where
    REFUSED = "refused"  # the destination will not take this record
    EXPIRED = "expired"  # gave up: a dead letter
    CANCELLED = "cancelled"  # withdrawn by its owner
    SUPERSEDED = "superseded"  # a newer version of the same record is there in its place

    @property
    def final(self) -> bool:
        """Whether nothing happens to it any more unless a person asks."""
        return self not in UNFINISHED

    @property
    def in_progress(self) -> bool:
        """Whether workers are at it: not final, and not waiting for a person."""
        return self in IN_PROGRESS


IN_PROGRESS = frozenset({State.QUEUED, State.SENDING})
UNFINISHED = IN_PROGRESS | {State.PARKED}
ENDED_UNDELIVERED = frozenset(State) - UNFINISHED - {State.DELIVERED}

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset(
        {
            State.SENDING,
            State.CANCELLED,
            State.SUPERSEDED,
            State.PARKED,
            State.EXPIRED,
            State.REFUSED,
        }
    ),
    State.SENDING: frozenset(
        {
            State.DELIVERED,
            State.REJECTED,
            State.REFUSED,
            State.QUEUED,
            State.PARKED,
            State.EXPIRED,
            State.CANCELLED,
        }
    ),
    State.PARKED: frozenset(
        {State.QUEUED, State.CANCELLED, State.SUPERSEDED, State.EXPIRED, State.REFUSED}
    ),
    State.DELIVERED: frozenset(),
    State.REJECTED: frozenset({State.QUEUED, State.SUPERSEDED}),
    State.REFUSED: frozenset({State.QUEUED, State.SUPERSEDED}),
    State.EXPIRED: frozenset({State.QUEUED, State.SUPERSEDED}),
    State.CANCELLED: frozenset(),
    State.SUPERSEDED: frozenset(),
}


# An upload whose workers vanish one after the other may be what crashes them. After so many crashes
# in a row it is attempted alone. After so many alone, which no other upload can have caused, it is
# not attempted again.
ALONE_AFTER_CRASHES = 2
REFUSED_AFTER_CRASHES_ALONE = 5

# They ended without being delivered or withdrawn. A redrive starts them from zero.
DEAD_LETTERS = frozenset({State.REJECTED, State.REFUSED, State.EXPIRED})


class Reason(StrEnum):
    """Why an upload is in its state: for people and metrics.

    Only one decision depends on it: a new token ends the waits for a token.
    """

    NEW = "new"
    RETRY = "retry"  # nothing was stored, or sending it again stores it once
    SETTLING = "settling"  # the destination may have stored it: wait, then look it up
    HELD = "held"  # a response that says more about the deployment than about the record
    LEASE_EXPIRED = "lease_expired"  # its worker vanished: wait, then look it up
    RESTORED = "restored"  # the ledger came back from a backup: wait, then look it up
    HANDED_BACK = "handed_back"  # a stopping worker had not sent it yet
    SMALLER_BUNDLE = "smaller_bundle"  # the one that it was in was refused, and names no record
    NO_TOKEN = "no_token"  # noqa: S105  the token endpoint did not answer
    AWAITING_TOKEN = "awaiting_token"  # noqa: S105  another process fetches a token, or the quota is spent
    AWAITING_REFERENCE = "awaiting_reference"  # what it refers to is on its way, and goes first
    REDRIVEN = "redriven"
    RELEASED = "released"  # consent is back
    NEEDS_AUTHORIZATION = "needs_authorization"
    INVALID = "invalid"
    TOO_COMPLEX = "too_complex"  # a limit of validation refuses it: whether it is valid is unknown
    UPSTREAM_REFUSED = "upstream_refused"
    CRASHES_WORKER = "crashes_worker"
    ID_COLLISION = "id_collision"  # another source's record is under this id at 1upHealth
    NEWER_UPSTREAM = "newer_upstream"  # after a restore: other content came there since the backup
    VERSION_NOT_TAKEN = "version_not_taken"  # its destination has no base for its FHIR version
    DELETED_UPSTREAM = "deleted_upstream"  # somebody deleted what was delivered
    CHANGED_UPSTREAM = (
        "changed_upstream"  # somebody changed what was delivered, and a person decides
    )
    CANCELLED_BY_OWNER = "cancelled_by_owner"
    GAVE_UP = "gave_up"
    NEWER_VERSION = "newer_version"
    CANNOT_LOOK_UP = "cannot_look_up"  # sent again, and no look-up could tell if it was there
    STORED_DIFFERENTLY = "stored_differently"  # it is there, with other content than was sent
    OVERWROTE_UPSTREAM = "overwrote_upstream"  # it went over what somebody else had changed
    OLDER_VERSION = "older_version"  # it came after a version that its server says is newer


def allowed(source: State, target: State) -> bool:
    """Whether an upload may go from `source` to `target`."""
    return target in TRANSITIONS[source]
