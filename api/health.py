"""Is this process alive, and can it do its work?"""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from uplift.api.callers import RelayDep
from uplift.api.problems import Problem, documented
from uplift.errors import ConfigurationError
from uplift.ledger import migrate

router = APIRouter(tags=["health"])


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = Field(examples=["alive"])


class Readiness(BaseModel):
    """What the process can do."""

    status: Literal["ready", "degraded"] = Field(examples=["ready"])
    redis: bool = Field(
        description="Whether Redis answers; without it deliveries start a little later.",
        examples=[True],
    )
    keys: Literal["fit"] = Field(
        description="The master keys open what the ledger holds; if not, the answer is 503.",
        examples=["fit"],
    )


@router.get("/healthz", summary="Alive")
async def healthz() -> Liveness:
    """The process answers."""
    return Liveness(status="alive")


@router.get(
    "/readyz",
    summary="Ready",
    responses=documented(503),
)
async def readyz(relay: RelayDep) -> Readiness:
    """The ledger answers, is migrated, and the master keys open what it holds.

    Without Redis it is degraded: uploads are accepted.
    """
    at = await migrate.current(relay.database)
    if at != migrate.head():
        raise Problem(
            503,
            "Not available now",
            "The ledger is not migrated to this version. Run `uplift migrate`.",
        )
    try:
        await relay.keys.ensure(fresh=True)
    except ConfigurationError:
        # Which keys and how many users is for operators: the logs and `uplift doctor` have it.
        raise Problem(
            503,
            "Not available now",
            "The master keys do not fit the ledger. Run `uplift doctor`.",
        ) from None
    dispatcher = await relay.dispatcher.waiting("uploads") is not None
    return Readiness(status="ready" if dispatcher else "degraded", redis=dispatcher, keys="fit")
