"""Draws the diagram of docs/lifecycle.md from the transition table.

Run `python -m uplift.cli.pages.lifecycle`. A test keeps the page equal to the table.
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
