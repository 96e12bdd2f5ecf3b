"""Is this process alive, and can it do its work?"""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api.callers import RelayDep
from relay.ledger import migrate

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Alive")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Ready",
    responses={503: {"description": "The ledger is away, or not migrated to this version"}},
)
async def readyz(relay: RelayDep) -> JSONResponse:
    """The ledger answers and is migrated. Without Redis it is degraded: uploads are accepted."""
    at = await migrate.current(relay.database)
    if at != migrate.head():
        return JSONResponse({"status": "not_migrated", "do": "uplift migrate"}, 503)
    bell = await relay.bell.waiting("uploads") is not None
    return JSONResponse({"status": "ready" if bell else "degraded", "redis": bell})
