"""`pytest --strict-skips`: a test may be skipped only for a reason in `.ci/allowed-skips`.

Continuous integration uses it, so that no test is silently left out there. A skip for another
reason counts as a failure of that test.
"""

from collections.abc import Generator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

ALLOWED = Path(__file__).parents[1] / ".ci" / "allowed-skips"


def read_patterns(file: Path) -> list[str]:
    """The patterns of such a file, without comments and empty lines."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def is_allowed(reason: str, patterns: list[str]) -> bool:
    """Whether a test may be skipped for that reason."""
    return any(fnmatchcase(reason, pattern) for pattern in patterns)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help=f"fail on a skip whose reason is not in {ALLOWED.parent.name}/{ALLOWED.name}",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that was skipped for another reason."""
    report = yield
    return _judge(report, item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a whole file that was skipped for another reason."""
    report = yield
    return _judge(report, collector.config)


def _judge(report: Report, config: pytest.Config) -> Report:
    if not report.skipped or hasattr(report, "wasxfail") or not config.getoption("strict_skips"):
        return report
    assert isinstance(report.longrepr, tuple), "a skip has a place and a reason"
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not is_allowed(reason, read_patterns(ALLOWED)):
        report.outcome = "failed"
        report.longrepr = f"Skipped, for a reason that is not in .ci/allowed-skips: {reason}"
    return report
