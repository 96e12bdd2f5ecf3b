"""Finds what a record refers to at its destination, or says that it has to wait for it."""

from collections.abc import Iterable, Mapping

import orjson

from uplift.coalesce import Coalescer
from uplift.delivery.results import AwaitsReference, Opened
from uplift.identity import upstream_key
from uplift.ledger.database import Database, is_away, is_slow
from uplift.ledger.reference_targets import Target, Wanted, find_targets
from uplift.ledger.uploads import delivery_context


class Targets:
    """Finds the records that others refer to: for those who ask together with one statement."""

    def __init__(self, database: Database, *, wait_seconds: float) -> None:
        self._database = database
        self._wait_seconds = wait_seconds
        self._find = Coalescer(self._find_all, concerns_all=is_away, is_slow=is_slow)

    async def find(
        self, opened: Opened, names: frozenset[str]
    ) -> Mapping[str, str] | AwaitsReference:
        """The references to those that are at the destination, by their `Type/id`.

        The others are not there, and will not be waited for.
        """
        if not names:
            return {}
        claim = opened.claim
        keys = {_key(opened, name): name for name in names}
        found = await self._find(Wanted(claim.record_id, claim.destination, tuple(keys)))
        targets = {keys[target.key]: target for target in found}
        if must_wait(targets.values(), waited=claim.waited_seconds, limit=self._wait_seconds):
            return AwaitsReference()
        return {
            name: reference
            for name, target in targets.items()
            if (reference := _reference(opened, name, target)) is not None
        }

    async def _find_all(self, wanted: list[Wanted]) -> list[list[Target]]:
        async with self._database.reading() as connection:
            return await find_targets(connection, wanted)


def must_wait(targets: Iterable[Target], *, waited: float | None, limit: float) -> bool:
    """Whether a record waits for one of its targets, after `waited` seconds of `limit`.

    It waits for what is not delivered yet, and not for what waits for a reference itself: of two
    that refer to each other, one goes first.
    """
    if waited is not None and waited >= limit:
        return False
    return any(
        target.unfinished and not target.waits and target.sealed_receipt is None
        for target in targets
    )


def _key(opened: Opened, name: str) -> bytes:
    resource_type, _, resource_id = name.partition("/")
    return upstream_key(
        opened.key.identity_key,
        fhir_version=opened.claim.fhir_version,
        resource_type=resource_type,
        resource_id=resource_id,
    )


def _reference(opened: Opened, name: str, target: Target) -> str | None:
    if target.sealed_receipt is None:
        return None
    context = delivery_context(target.record_id, opened.claim.destination)
    receipt = orjson.loads(opened.key.open(target.sealed_receipt, context))
    return f"{name.partition('/')[0]}/{receipt['id']}" if receipt["id"] else None
