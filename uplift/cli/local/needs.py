"""Which secrets each process needs. `ops/systemd` and docker-compose.yml give each the same."""

from collections.abc import Mapping

from uplift.secret_files import FLOWER_SECRETS
from uplift.settings import secrets

LEDGER = "UPLIFT_DATABASE_URL"
OWNER = "UPLIFT_MIGRATION_DATABASE_URL"
BROKER = "UPLIFT_REDIS_URL"
_ALL = frozenset(
    {LEDGER, BROKER, "UPLIFT_MASTER_KEYS", "UPLIFT_ID_KEY", "UPLIFT_ONEUP_CLIENT_SECRET"}
)
# A destination may have these. Who speaks to it needs them.
_LOGINS = frozenset({"UPLIFT_DESTINATION_PASSWORD", "UPLIFT_DESTINATION_CLIENT_SECRET"})

NEEDS: Mapping[str, frozenset[str]] = {
    "api": _ALL,
    "worker": _ALL,
    "bulk": _ALL,
    "beat": _ALL,  # it compares sealed times of records that collided
    "migrate": frozenset({OWNER}),
    "flower": frozenset({BROKER, "FLOWER_BASIC_AUTH"}),
    "sandbox": frozenset({"SANDBOX_CLIENT_SECRET", "SANDBOX_CONTROL_TOKEN", "SANDBOX_STATE_KEY"}),
}
"""The secrets of each process, by the names of their variables."""

SECRETS = frozenset().union(*NEEDS.values(), secrets().values(), FLOWER_SECRETS)


def only_needed(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process, to be laid over ours: what it does not need is emptied.

    An empty variable counts as not set. So does `…_FILE`: our own may name a file.
    """
    needed = NEEDS[name] | (frozenset(FLOWER_SECRETS) if name == "flower" else frozenset())
    if needed >= _ALL:
        needed |= _LOGINS
    emptied = dict.fromkeys(SECRETS - needed, "")
    return {**environment, **emptied, **{f"{secret}_FILE": "" for secret in SECRETS}}
