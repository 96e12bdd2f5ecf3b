"""What is logged, and what never is. In a process of its own: logging is set up once a process."""

import ast
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from uplift.logs import FIELDS, OF_EVERY_LINE

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
BINDERS = {"bound_contextvars", "bind_contextvars"}


def program(code: str, **settings: str) -> list[str]:
    """The command that runs `code` after `configure_logs`."""
    text = (
        "import logging, structlog\n"
        "from uplift.logs import configure_logs\n"
        "from uplift.settings import Settings\n"
        f"configure_logs(Settings(**{settings!r}))\n"
        "log = structlog.get_logger('uplift.test')\n"
        f"{code}\n"
    )
    return [sys.executable, "-c", text]


def logged(code: str, **settings: str) -> list[str]:
    """The lines that `code` logs, after `configure_logs`."""
    ran = subprocess.run(
        program(code, **settings), capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def events(code: str, **settings: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(code, **settings)]


def test_an_event_is_a_line_of_json_with_its_fields_its_level_and_its_time() -> None:
    (event,) = events("log.info('sweep_ended', dispatched=3, lease_expired=0)")
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "sweep_ended",
        "level": "info",
        "logger": "uplift.test",
        "dispatched": 3,
        "lease_expired": 0,
    }


def test_a_field_that_is_not_on_the_list_is_dropped() -> None:
    (event,) = events("log.warning('x', upload='1', body='canary', name='canary', token='canary')")
    assert event["upload"] == "1"
    assert "canary" not in str(event)


def test_what_is_bound_to_a_logger_passes_the_same_list() -> None:
    (event,) = events("log.bind(queue='bulk', name='canary').info('x')")
    assert event["queue"] == "bulk"
    assert "canary" not in str(event)


@pytest.mark.parametrize("format_", ["json", "text"])
def test_the_text_and_the_traceback_of_an_exception_are_not_logged(format_: str) -> None:
    lines = logged(
        "try:\n    raise ValueError('canary')\n"
        "except ValueError:\n"
        "    log.exception('failed')\n"
        "    logging.getLogger('library').exception('failed')\n"
        "    logging.getLogger('library').error('failed', exc_info=True, stack_info=True)\n",
        log_format=format_,
    )
    assert len(lines) == 3
    assert "canary" not in "".join(lines)


def test_extra_fields_of_the_standard_library_are_dropped() -> None:
    (event,) = events("logging.getLogger('library').error('x', extra={'body': 'canary'})")
    assert (event["event"], event["logger"], event["level"]) == ("x", "library", "error")
    assert "canary" not in str(event)


def test_libraries_that_print_addresses_and_statements_are_quiet_at_every_level() -> None:
    libraries = "httpx httpcore aiohttp.client sqlalchemy.engine psycopg.pool kombu"
    code = (
        f"for library in '{libraries}'.split():\n"
        "    logging.getLogger(library).info('GET /canary')\n"
        "    logging.getLogger(library).debug('INSERT canary')"
    )
    assert events(code, log_level="debug") == []


def test_a_level_below_the_one_set_is_not_logged() -> None:
    found = events(
        "log.info('one'); log.warning('two'); log.error('three')\n"
        "logging.getLogger('library').info('four')",
        log_level="warning",
    )
    assert [event["event"] for event in found] == ["two", "three"]


def test_text_is_for_a_terminal_and_passes_the_same_list() -> None:
    (line,) = logged("log.info('sweep_ended', dispatched=3, body='canary')", log_format="text")
    assert "sweep_ended" in line
    assert "dispatched=3" in line
    assert "canary" not in line


def test_an_event_stays_one_line_whatever_is_in_it() -> None:
    assert len(logged("log.info('a\\nb', why='c\\nd')")) == 1


def test_what_is_bound_to_a_task_is_in_every_line_on_its_way_and_passes_the_same_list() -> None:
    ours, theirs, after = events(
        "from structlog.contextvars import bound_contextvars\n"
        "with bound_contextvars(request='r', upload='u', name='canary'):\n"
        "    log.info('one', upload='another')\n"
        "    logging.getLogger('library').error('two')\n"
        "log.info('three')\n"
    )
    assert (ours["request"], ours["upload"]) == ("r", "another")
    assert (theirs["request"], theirs["upload"]) == ("r", "u")
    assert "request" not in after
    assert "canary" not in str((ours, theirs))


def test_a_warning_is_an_event_without_its_text() -> None:
    (event,) = events("import warnings\nwarnings.warn('canary', UserWarning)")
    assert (event["event"], event["error"], event["level"]) == (
        "python_warned",
        "UserWarning",
        "warning",
    )
    assert "canary" not in str(event)


def test_a_terminal_gets_text_unless_a_format_is_set() -> None:
    ours, terminal = pty.openpty()
    for settings in ({}, {"log_format": "json"}):
        subprocess.run(
            program("log.info('sweep_ended', dispatched=3)", **settings),
            stderr=terminal,
            timeout=60,
            check=True,
        )
    os.close(terminal)
    text, json_ = os.read(ours, 65536).decode().splitlines()
    os.close(ours)
    assert "sweep_ended" in text
    assert "dispatched=3" in text
    assert json.loads(json_)["dispatched"] == 3


def logging_calls() -> Iterator[tuple[str, ast.Call, ast.Module]]:
    """Every call of the code that logs an event or binds fields, with its place and its module."""
    for folder in ("uplift", "api", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            module = ast.parse(path.read_text())
            for node in ast.walk(module):
                if isinstance(node, ast.Call) and _logs(node.func):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node, module


def _logs(function: ast.expr) -> bool:
    match function:
        case ast.Name(id=name):
            return name in BINDERS
        case ast.Attribute(value=ast.Name(id="_log"), attr=name):
            return name in LEVELS
        case ast.Attribute(value=ast.Call(func=ast.Attribute(attr="get_logger")), attr=name):
            return name in LEVELS
    return False


def fields_of(call: ast.Call, module: ast.Module) -> set[str]:
    """The keywords of the call, those of a dictionary behind `**` included."""
    fields = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    for keyword in call.keywords:
        if keyword.arg is None:
            assert isinstance(keyword.value, ast.Name), ast.unparse(call)
            fields |= keys_of(keyword.value.id, module)
    return fields


def keys_of(name: str, module: ast.Module) -> set[str]:
    """The keys of the dictionary that the module assigns to that name."""
    for node in ast.walk(module):
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Dict(keys=keys)):
                if found == name:
                    return {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    raise AssertionError(f"No dictionary is assigned to {name}.")


def test_every_field_that_is_logged_is_on_the_list_and_every_other_is_not() -> None:
    calls = list(logging_calls())
    assert len(calls) > 20
    logged = {where: fields_of(call, module) for where, call, module in calls}
    assert {where: fields - FIELDS for where, fields in logged.items() if fields - FIELDS} == {}
    assert FIELDS - OF_EVERY_LINE - set().union(*logged.values()) == set()


def test_every_logger_is_called_log() -> None:
    """The test above finds the lines that log by this name."""
    for folder in ("uplift", "api", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Assign(
                        targets=[ast.Name(id=name)],
                        value=ast.Call(func=ast.Attribute(attr="get_logger")),
                    ):
                        assert name == "_log", path
