"""Whether this process is alive, and whether it can work."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from uplift.api.problems import Problem, documented, try_later
from uplift.api.remembered import Remembered
from uplift.api.spacing import Spacing
from uplift.errors import ConfigurationError
from uplift.ledger import migrate
from uplift.ledger.server import write_nothing
from uplift.problem_types import ProblemType
from uplift.wiring import Relay

router = APIRouter(tags=["health"])

# The whole answer comes within a second.
_REDIS_SECONDS = 0.7


def health_spacing() -> Spacing:
    """How often a process answers health checks: several balancers ask at once, and nobody in a
    loop."""
    return Spacing(seconds=0.005, free=20, longest=0.1)


LATE = try_later(ProblemType.DATABASE_UNAVAILABLE, "The database does not answer within a second.")
"""The answer while the check does not end."""


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = Field(description="Always `alive`.", examples=["alive"])


class Readiness(BaseModel):
    """Whether the process can work."""

    status: Literal["ready", "degraded"] = Field(
        description="`degraded`: Redis takes no messages. Uploads are accepted, and delivered"
        " later.",
        examples=["ready"],
    )
    redis: bool = Field(
        description="Whether Redis takes messages. Without it deliveries start a little later.",
        examples=[True],
    )
    keys: Literal["fit"] = Field(
        description="The master keys can open the data in the database. If not, the answer is 503.",
        examples=["fit"],
    )


@router.get("/healthz", summary="Is the process alive?", responses=documented(400))
async def get_liveness(request: Request) -> Liveness:
    """Answers as long as the process runs."""
    spacing: Spacing = request.app.state.health_spacing
    await spacing.wait()
    return Liveness(status="alive")


@router.get(
    "/readyz",
    summary="Is the process ready?",
    responses=documented(400, 503),
)
async def get_readiness(request: Request) -> Readiness:
    """Ready means: the database can be written, this version works on its schema, and the master
    keys can open its data. Without Redis the process is degraded: it accepts uploads, and delivery
    starts later.

    The answer comes within a second, and is at most a second old.
    """
    spacing: Spacing = request.app.state.health_spacing
    await spacing.wait()
    if request.app.state.stopping:
        raise try_later(ProblemType.STOPPING, "This process stops.")
    readiness: Remembered[Readiness] = request.app.state.readiness
    return await readiness()


async def check(relay: Relay) -> Readiness:
    """Write to the database and to Redis now. Raises a Problem (503) if it is not ready."""
    redis, _ = await asyncio.gather(_can_enqueue(relay), _check_ledger(relay))
    return Readiness(status="ready" if redis else "degraded", redis=redis, keys="fit")


async def _can_enqueue(relay: Relay) -> bool:
    try:
        async with asyncio.timeout(_REDIS_SECONDS):
            return await relay.dispatcher.can_enqueue()
    except TimeoutError:
        return False


async def _check_ledger(relay: Relay) -> None:
    found = await migrate.revisions(relay.database)
    if found.problem is not None:
        raise Problem(ProblemType.NOT_MIGRATED, found.problem)
    async with relay.database.transaction() as connection:
        await write_nothing(connection)
    try:
        await relay.keys.ensure(fresh=True)
    except ConfigurationError:
        # Only operators may see which keys and how many users: in the logs and `uplift doctor`.
        raise Problem(
            ProblemType.KEYS_UNFIT, "The master keys do not fit the database. Run `uplift doctor`."
        ) from None
