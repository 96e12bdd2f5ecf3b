"""Which of the rules fire for a request, and what they do to it."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fnmatch import fnmatchcase
from typing import Any

import orjson
from starlette.responses import Response

from uplift.sandbox import responses, rules
from uplift.sandbox.accounts import Account
from uplift.sandbox.exchange import Exchange
from uplift.sandbox.servers.outcomes import LOCK_CONFLICT, Refusal, refused
from uplift.sandbox.servers.profile import Profile
from uplift.sandbox.servers.profiles import PROFILES
from uplift.sandbox.servers.throttling import throttle_headers
from uplift.sandbox.sockets import Cut, HalfAnswer, Reset, Stall

Handler = Callable[[Exchange], Response]


class ArmedRule:
    """A rule with its dice and its counters."""

    def __init__(self, rule: rules.LastingRule) -> None:
        self.rule = rule
        self.matched = 0
        self.fired = 0
        self._dice = random.Random(rule.seed)  # noqa: S311 - dice, not secrets
        self._passed: deque[float] = deque()

    def fires(self, exchange: Exchange) -> bool:
        """Whether it happens to this request; counts it if so."""
        rule = self.rule
        if rule.count is not None and self.fired >= rule.count:
            return False
        if not _matches(rule.match, exchange):
            return False
        self.matched += 1
        if self.matched <= rule.skip:
            return False
        if rule.probability < 1 and self._dice.random() >= rule.probability:
            return False
        if isinstance(rule, rules.RateLimit) and self._within(rule):
            return False
        self.fired += 1
        return True

    def _within(self, rule: rules.RateLimit) -> bool:
        now = time.monotonic()
        while self._passed and self._passed[0] <= now - rule.per_seconds:
            self._passed.popleft()
        if len(self._passed) >= rule.requests:
            return False
        self._passed.append(now)
        return True


def _matches(match: rules.Match, exchange: Exchange) -> bool:
    account = exchange.account
    return (
        (match.api is None or match.api == exchange.api)
        and (match.method is None or match.method == exchange.method)
        and (match.version is None or match.version == exchange.version)
        and (match.type is None or match.type == exchange.resource_type)
        and (match.path is None or fnmatchcase(exchange.path, match.path))
        and (match.user is None or (account is not None and account.is_called(match.user)))
        and (match.contains is None or match.contains.encode() in exchange.body)
        and (match.id is None or match.id == exchange.resource_id)
    )


class Faults:
    """The rules in force. `profile` is the server that the sandbox is like; None is 1upHealth."""

    def __init__(self, profile: Profile | None = None) -> None:
        self._profile = profile
        self.armed: list[ArmedRule] = []
        self.stopping = asyncio.Event()
        self._consented_again: set[str] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._forgotten = 0

    def arm(self, rule_list: Iterable[rules.LastingRule]) -> None:
        """Add rules after those in force."""
        self.armed += [ArmedRule(rule) for rule in rule_list]

    def clear(self) -> None:
        """Drop every rule. Late commits that are under way still happen."""
        self.armed.clear()
        self._consented_again.clear()

    def forget(self) -> None:
        """Drop every rule and late commit. Requests that wait now are cut, and commit nothing."""
        self.clear()
        self._forgotten += 1
        for task in self._late:
            task.cancel()

    def stop(self) -> None:
        """End every wait now, and drop late commits."""
        self.stopping.set()
        for task in self._late:
            task.cancel()

    def consent_given(self, account: Account) -> None:
        """This user has consented again: `end_consent` no longer applies to them."""
        self._consented_again.add(account.oneup_user_id)

    def consent_ended(self, exchange: Exchange) -> bool:
        """Whether this request's user has withdrawn consent."""
        account = exchange.account
        if account is None or account.oneup_user_id in self._consented_again:
            return False
        return self._any(rules.EndConsent, exchange)

    def refresh_refused(self, exchange: Exchange) -> bool:
        """Whether this refresh gets invalid_grant."""
        return self._any(rules.RefuseRefresh, exchange)

    def index_lag(self, exchange: Exchange) -> float:
        """Seconds before searches see what this request writes."""
        return max(
            (
                armed.rule.seconds
                for armed in self.armed
                if isinstance(armed.rule, rules.IndexLag) and armed.fires(exchange)
            ),
            default=0.0,
        )

    def _any(self, kind: type[rules.LastingRule], exchange: Exchange) -> bool:
        return any(isinstance(armed.rule, kind) and armed.fires(exchange) for armed in self.armed)

    async def apply(self, exchange: Exchange, handler: Handler) -> tuple[Response, str | None]:
        """Handle a request under the rules in force. Returns its fault as well, if one decided."""
        before = after = 0.0
        ending: rules.Reply | None = None
        for armed in self.armed:
            if isinstance(armed.rule, rules.Slow) and armed.fires(exchange):
                if armed.rule.commit_first:
                    after += armed.rule.seconds
                else:
                    before += armed.rule.seconds
            elif ending is None and isinstance(armed.rule, rules.Reply) and armed.fires(exchange):
                ending = armed.rule
        forgotten = self._forgotten
        await self._pause(before)
        if forgotten != self._forgotten:
            return Cut(), "reset"
        if ending is None:
            real = handler(exchange)
            await self._pause(after)
            return real, "slow" if before or after else None
        real_or_none = handler(exchange) if ending.commit and ending.commit_after is None else None
        if ending.commit_after is not None:
            self._commit_later(ending.commit_after, exchange, handler)
        await self._pause(after)
        return self._answer(ending, exchange, real_or_none), ending.kind

    async def _pause(self, seconds: float) -> None:
        if seconds:
            await asyncio.wait(
                [stop := asyncio.ensure_future(self.stopping.wait())], timeout=seconds
            )
            stop.cancel()

    def _commit_later(self, seconds: float, exchange: Exchange, handler: Handler) -> None:
        async def commit() -> None:
            await asyncio.sleep(seconds)
            handler(exchange)

        task = asyncio.create_task(commit())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def _answer(self, ending: rules.Reply, exchange: Exchange, real: Response | None) -> Response:
        match ending:
            case rules.TooManyRequests() | rules.RateLimit():
                return self._throttled(ending)
            case rules.Status() | rules.ErrorBody():
                return _status(ending)
            case rules.LockConflict():
                return self._locked()
            case rules.EmptyAnswer():
                return _without_body(real or Response(status_code=201))
            case rules.Html():
                return Response(responses.LOGIN_PAGE, media_type="text/html")
            case rules.CutConnection():
                return Cut()
            case rules.ResetConnection():
                return Reset()
            case rules.HalfOfAnswer() | rules.WrongEntries():
                return _spoiled(ending, real or Response(exchange.body or b"{}", 200))
            case rules.Stalled():
                return Stall(ending.seconds, self.stopping)

    def _locked(self) -> Response:
        profile = self._profile or PROFILES["hapi"]
        why = Refusal(profile.lock_conflict, LOCK_CONFLICT)
        return responses.response(refused(why, profile), why.status, fhir=True)

    def _throttled(self, ending: rules.TooManyRequests | rules.RateLimit) -> Response:
        asked = ending.retry_after
        if self._profile is None:
            refusal = responses.for_status(429)
        else:
            outcome = refused(Refusal(429, "Too many requests"), self._profile)
            refusal = responses.response(outcome, 429, fhir=True)
            refusal.headers.update(
                throttle_headers(
                    self._profile, 429, asked if isinstance(asked, float | int) else None
                )
            )
            if self._profile.throttle == "rate_limit":
                return refusal
        if asked is not None:
            refusal.headers["Retry-After"] = _retry_after(asked, ending.retry_after_form)
        return refusal


def _without_body(real: Response) -> Response:
    kept = {
        name: value
        for name, value in real.headers.items()
        if name not in ("content-length", "content-type")
    }
    return Response(status_code=real.status_code, headers=kept)


def _spoiled(rule: rules.HalfOfAnswer | rules.WrongEntries, real: Response) -> Response:
    if isinstance(rule, rules.HalfOfAnswer):
        return HalfAnswer(real)
    bundle = orjson.loads(real.body)
    entries = bundle.get("entry", [])
    bundle["entry"] = entries[:-1] if rule.order == "missing" else entries[::-1]
    return Response(orjson.dumps(bundle), real.status_code, media_type=real.media_type)


def _retry_after(value: float | str, form: str) -> str:
    if isinstance(value, str):
        return value
    if form == "date":
        return format_datetime(datetime.now(UTC) + timedelta(seconds=value), usegmt=True)
    return f"{value:g}"


def _status(rule: rules.Status | rules.ErrorBody) -> Response:
    if isinstance(rule, rules.ErrorBody):
        return responses.response({"error": rule.error})
    body: Any = rule.body
    if body is None:
        made = responses.for_status(rule.status)
    elif isinstance(body, str):
        made = Response(body, rule.status, media_type="text/plain")
    else:
        made = responses.response(body, rule.status)
    if rule.content_type:
        made.headers["Content-Type"] = rule.content_type
    made.headers.update(rule.headers)
    return made
