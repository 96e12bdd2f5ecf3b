"""Waiting for what a process says."""

import asyncio
import time

from uplift.cli.local.child_process import ChildProcess

SECONDS = 60


async def until_logged(process: ChildProcess, word: str) -> None:
    """Wait until it is in the process's log. Fails if the process ends before."""
    until = time.monotonic() + SECONDS
    while word not in process.log.read_text():
        assert process.running, process.tail()
        assert time.monotonic() < until, process.tail()
        await asyncio.sleep(0.05)
