"""Which commands start a tree."""

from pathlib import Path

import pytest

from bench.against.layouts import LAYOUTS, Layout, layout_of
from bench.against.work_tree import WorkTree, this_tree


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.file)
def test_a_tree_has_the_layout_whose_file_it_contains(tmp_path: Path, layout: Layout) -> None:
    (tmp_path / layout.file).parent.mkdir()
    (tmp_path / layout.file).touch()

    assert layout_of(tmp_path) == layout


def test_a_tree_of_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not know"):
        layout_of(tmp_path)


def test_this_tree_has_the_newest_layout() -> None:
    assert this_tree().layout is LAYOUTS[-1]


def test_a_command_is_run_by_the_program_of_its_own_environment(tmp_path: Path) -> None:
    tree = WorkTree("a801074", tmp_path, LAYOUTS[0])

    assert tree.command(("python", "-m", "api")) == [str(tmp_path / "python"), "-m", "api"]
