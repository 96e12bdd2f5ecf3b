"""When to repeat a call: facts in, a pause or nothing out."""

from dataclasses import dataclass

from .messages import NoReply, Reply

_LATER = frozenset({408, 429, 502, 503, 504})
# With these the API has done nothing. After the others of `_LATER`, a proxy may have passed the
# request on.
_NOTHING_DONE = frozenset({429, 503})
_TRIES_OF_A_FAILURE = 3
_MAX_PAUSE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How long one call is repeated, and how fast.

    `patience` is in seconds, from the first request on. `first_pause` is the longest pause before
    the second one; it doubles each time.
    """

    patience: float = 120.0
    first_pause: float = 0.5

    def pause(
        self,
        reply: Reply | NoReply,
        *,
        tries: int,
        elapsed: float,
        repeatable: bool,
        spread: float,
    ) -> float | None:
        """Seconds to wait before the next request. None: this reply is the last one.

        Args:
            reply: what the last request came to.
            tries: how many requests were sent.
            elapsed: seconds since the first one.
            repeatable: whether a request that succeeded may be sent twice.
            spread: a random number from 0 to 1, so that clients do not come back all at once.
        """
        if not _may_pass(reply, tries) or not (repeatable or _undone(reply)):
            return None
        at_least = reply.retry_after() or 0.0 if isinstance(reply, Reply) else 0.0
        if elapsed + at_least >= self.patience:
            return None
        longest: float = min(self.first_pause * 2 ** min(tries - 1, 10), _MAX_PAUSE_SECONDS)
        return at_least + spread * longest


def _may_pass(reply: Reply | NoReply, tries: int) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(reply, NoReply):
        return True
    return reply.status in _LATER or (reply.status == 500 and tries < _TRIES_OF_A_FAILURE)


def _undone(reply: Reply | NoReply) -> bool:
    if isinstance(reply, NoReply):
        return not reply.maybe_received
    return reply.status in _NOTHING_DONE
