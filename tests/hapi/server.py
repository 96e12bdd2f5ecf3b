"""Builds and runs HAPI FHIR JPA. It is no part of Uplift: the tests here ask a server that nobody
here wrote."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import Empty, Queue

import pytest

_HERE = Path(__file__).parent
_TARGET = _HERE / "target"
_CLASSPATH = _TARGET / "classpath"
_SOURCES = (_HERE / "pom.xml", *sorted((_HERE / "src").rglob("*.*")))
_START_SECONDS = 600  # 10 to 25 where nothing else runs; it was 200 on two cores at a load of 13
_BUILD_SECONDS = 600  # the first build fetches 300 MB


@dataclass(frozen=True)
class Running:
    """A server: its base, and its process."""

    base: str
    pid: int


def missing() -> str | None:
    """The program that is not here and without which there is no server; None if all are."""
    return next((name for name in ("javac", "mvn") if shutil.which(name) is None), None)


@cache
def build() -> str:
    """The classpath of the built server."""
    built_at = _CLASSPATH.stat().st_mtime if _CLASSPATH.exists() else 0.0
    if built_at < max(source.stat().st_mtime for source in _SOURCES):
        done = subprocess.run(
            [
                *("mvn", "--quiet", "--batch-mode", "compile", "dependency:build-classpath"),
                f"-Dmdep.outputFile={_CLASSPATH}",
            ],
            cwd=_HERE,
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return f"{_TARGET / 'classes'}:{_CLASSPATH.read_text()}"


@contextmanager
def run_hapi(version: str, log: Path, *, validating: bool = False) -> Iterator[str]:
    """A server of `r4` or `dstu2` for one `with` block, which gets its base. It begins empty.

    `validating`: HL7's validator sees each request first, and what it calls an error is a 422.
    Skips the test where Maven or a JDK is missing.
    """
    if lacking := missing():
        pytest.skip(f"{lacking} is not here")
    options = ("validating",) if validating else ()
    with run(version, *options, log=log, heap="2g" if validating else "1g") as running:
        yield running.base


@contextmanager
def run(
    version: str,
    *options: str,
    log: Path,
    heap: str,
    database: str = "",
    port: int = 0,
) -> Iterator[Running]:
    """The same where `missing` says nothing. `database`: a JDBC URL of PostgreSQL, in place of H2
    in memory; `port`: in place of a free one."""
    classpath = build()
    environment = {**os.environ, "HAPI_PORT": str(port)}
    if database:
        environment["HAPI_DATABASE"] = database  # no argument: it has a password
    with log.open("wb") as errors:
        # It ends with its standard input, so also with this process, however that ends.
        process = subprocess.Popen(
            ["java", f"-Xmx{heap}", "-cp", classpath, "uplift.Main", version, *options],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield Running(_base(process, log), process.pid)
    finally:
        process.kill()
        process.communicate()


def _base(process: subprocess.Popen[bytes], log: Path) -> str:
    said: Queue[bytes] = Queue()
    assert process.stdout is not None
    threading.Thread(target=lambda out: said.put(out.readline()), args=(process.stdout,)).start()
    try:
        line = said.get(timeout=_START_SECONDS).decode()
    except Empty:
        line = ""
    assert line.startswith("listening on "), log.read_text(errors="replace")[-3000:]
    return line.removeprefix("listening on ").strip()
