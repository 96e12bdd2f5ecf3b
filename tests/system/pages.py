"""Runs the requests of a page as a reader pastes them: into one shell, from top to end."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.system.conftest import Running

ROOT = Path(__file__).parents[2]
# Interactive, since that is where people paste: there zsh knows no comments, for example.
SHELLS = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
_SECONDS = 100
_FENCE = re.compile(r"^ *(```+|~~~+) *(.*)$")
# The page's blocks of these languages show what an answer looks like.
_SHOWN = {"", "json"}
_NEXT = "--- next block ---"
# An interactive shell goes on after an error, and curl ends with 0 after a problem.
_STRICT = f"""
PS1=; PS2=; set -e; set -o pipefail
curl() {{ command curl --fail-with-body --max-time 60 --noproxy '*' "$@"; }}
next_block() {{ printf '\\n%s\\n' '{_NEXT}'; }}
"""


def shell_blocks(page: str) -> list[str]:
    """The page's blocks in `sh`. Raises ValueError for what could be a request and is not one."""
    blocks: list[str] = []
    fence, language, lines = "", "", list[str]()
    for line in page.splitlines():
        found = _FENCE.match(line)
        if found and not fence:
            fence, language, lines = found[1], found[2].strip(), []
        elif found and found[1] == fence and not found[2]:
            text = "\n".join(lines)
            if language == "sh":
                blocks.append(text)
            elif language not in _SHOWN:
                raise ValueError(f"A test runs only `sh`, not `{language}`:\n{text}")
            elif "curl" in text:
                raise ValueError(f"This has the request of no `sh` block:\n{text}")
            fence = ""
        elif fence:
            lines.append(line)
        elif "curl " in line:
            raise ValueError(f"This request is in no block: {line}")
    if fence:
        raise ValueError("The last block has no end.")
    return blocks


def run_page(shell: Sequence[str], blocks: list[str], running: Running, folder: Path) -> list[str]:
    """What each block prints in that shell. A request that gets a problem fails the test."""
    environment = {
        **os.environ,
        **running.system.environment,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "UPLIFT_API_URL": running.system.api_url,
        "UPLIFT_SANDBOX_URL": running.system.sandbox_url or "",
        "UPLIFT_SANDBOX_TOKEN": running.system.sandbox_token,
        "HOME": str(folder),
    }
    pasted = "\nnext_block\n".join([_STRICT, *blocks])
    done = subprocess.run(
        shell,
        cwd=folder,
        env=environment,
        input=f"{pasted}\nexit\n",
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    printed = done.stdout.split(f"\n{_NEXT}\n")[1:]
    if done.returncode != 0 or len(printed) != len(blocks):
        failed = blocks[len(printed) - 1] if printed else "the first"
        raise AssertionError(f"{failed}\n\n{printed[-1:]}\n\n{done.stderr[-3000:]}")
    return printed


def check_what_the_api_page_does(shell: Sequence[str], running: Running, folder: Path) -> None:
    """Run the requests of docs/api.md in that shell, and look at what they bring about."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = shell_blocks(page)
    running.sandbox.clear_faults()
    try:
        printed = dict(zip(blocks, run_page(shell, blocks, running, folder), strict=True))
    finally:
        running.sandbox.clear_faults()

    def of(words: str) -> str:
        [answer] = [answer for block, answer in printed.items() if words in block]
        return answer

    first, again = of("$KEY").lower().split("\nhttp/1.1 202")
    assert ("idempotent-replayed: true" in first, "idempotent-replayed: true" in again) == (
        False,
        True,
    )
    assert '"status":"delivered"' in of("uploads/$UPLOAD?wait=30")
    assert '"outcome":"stored"' in of("/attempts")
    assert '"status":"rejected"' in of("$REJECTED/redrive")
    assert '"status":"cancelled"' in of("$UNWANTED")
    assert '"status":"parked"' in of("end_consent")
    assert '"status":"delivered"' in of("/_sandbox/grants")
    assert '"resourceType":"Bundle"' in of("Observation?_count=5").replace(" ", "")
    stored = {each["id"] for each in running.sandbox.resources()}
    assert {f"o{each}" for each in (1, 2, 3, 4, 7, 8, 9, 10, 11)} <= stored
    assert not {"o5", "o6"} & stored
