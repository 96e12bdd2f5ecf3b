"""How `make test` shares the tests among its processes: whole files, the longest first.

So what a file has for all its tests starts once, and the processes end at the same time.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_SYSTEM = "tests/system/"
# They start servers of their own; the other files there share one system.
_ALONE = {
    f"{_SYSTEM}test_{name}.py"
    for name in (
        "chaos",
        "faults_are_told",
        "killed_run",
        "moving",
        "rolling_upgrade",
        "token_refreshes",
    )
}
_LONGEST = (
    _SYSTEM,
    f"{_SYSTEM}test_chaos.py",
    f"{_SYSTEM}test_token_refreshes.py",
    "tests/api/test_openapi_fuzz.py",
    "tests/worker/test_hostile_redis.py",
    "tests/api/test_process.py",
    "tests/uplift/fhir/test_mutants.py",
    "tests/uplift/cli/local/test_embedded.py",
    f"{_SYSTEM}test_moving.py",
    f"{_SYSTEM}test_faults_are_told.py",
    f"{_SYSTEM}test_killed_run.py",
    f"{_SYSTEM}test_rolling_upgrade.py",
    "tests/api/test_batch_sockets.py",
)


def share(nodeid: str) -> str:
    """The share of a test: its file, or all that run on one system."""
    file = nodeid.partition("::")[0]
    return _SYSTEM if file.startswith(_SYSTEM) and file not in _ALONE else file


class _Shares(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Shares | None:
    """Take part where whole files are asked for."""
    return _Shares(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; those of a share stay as they are."""
    order = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(share(item.nodeid), len(order)))
