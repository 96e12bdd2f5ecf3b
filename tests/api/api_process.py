"""The API as a process of its own, and how much memory it uses."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psutil

from uplift.settings import Settings


@asynccontextmanager
async def api_process(settings: Settings, **more: str) -> AsyncIterator[tuple[psutil.Process, str]]:
    """The API as a process of its own, and its address."""
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.master_keys is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "UPLIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "UPLIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "UPLIFT_MASTER_KEYS": settings.master_keys.get_secret_value(),
        "UPLIFT_LOG_LEVEL": "warning",
        "UPLIFT_API_PORT": str(port),
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from uplift.api.process import main; main()",
        env=environment,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url) as client, asyncio.timeout(60):
            while True:
                try:
                    if (await client.get("/healthz")).status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.returncode is None
                await asyncio.sleep(0.02)
        yield psutil.Process(process.pid), url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class Peak:
    """The highest memory use of a process while it is observed, in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.before = self.highest = process.memory_info().rss

    @property
    def growth(self) -> int:
        """How much more than at first."""
        return self.highest - self.before

    async def observe(self) -> None:
        """Look again and again."""
        while True:
            self.highest = max(self.highest, self._process.memory_info().rss)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def peak_of(process: psutil.Process) -> AsyncIterator[Peak]:
    """Observe a process."""
    peak = Peak(process)
    observing = asyncio.create_task(peak.observe())
    try:
        yield peak
    finally:
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)
