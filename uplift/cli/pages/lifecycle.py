"""Draws `docs/lifecycle.md`'s diagram from the transition table: `python -m uplift.cli.pages.lifecycle`.

A test keeps the page equal to the table.
"""

import sys

from uplift.lifecycle import TRANSITIONS, State


def diagram() -> str:
    """The states and the ways between them, in Mermaid."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for source, targets in TRANSITIONS.items():
        lines += [f"    {source} --> {target}" for target in State if target in targets]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(diagram() + "\n")
