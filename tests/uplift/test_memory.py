"""How much memory a process may use, by cgroups of both versions."""

import os
from pathlib import Path

import pytest

from uplift.memory import MAX_BODY_BYTES, body_bytes_for, memory_limit

MB = 1024 * 1024
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("memory", "body_bytes"),
    [
        (100 * MB, MB),
        (600 * MB, 400 * MB // 12),
        (2048 * MB, MAX_BODY_BYTES),
        (64 * 1024 * MB, MAX_BODY_BYTES),
    ],
)
def test_bodies_fit_into_the_memory(memory: int, body_bytes: int) -> None:
    assert body_bytes_for(memory) == body_bytes


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "629145600\n"}, 600 * MB),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1048576"}, MB),
        (
            "5:memory:/docker/x\n4:cpu:/docker/x\n",
            {"memory/docker/x/memory.limit_in_bytes": "1048576"},
            MB,
        ),
        # Inside a container the path is that of the host, and the files are at the top.
        ("5:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "2097152"}, 2 * MB),
        (
            "5:memory:/\n",
            {"memory/memory.limit_in_bytes": "9223372036854771712"},  # no limit
            MACHINE,
        ),
    ],
)
def test_the_least_limit_counts(
    tmp_path: Path, own: str, files: dict[str, str], limit: int
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path, tmp_path / "own") == limit


def test_without_cgroups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path, tmp_path / "own") == MACHINE
