"""Baseline for delivery, the upper limit: a loop that only posts. No ledger, no validation.

python -m bench.baseline_loop --url http://127.0.0.1:8099 --count 4000 --in-flight 200
"""

import argparse
import asyncio

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from bench.resources import bodies


async def post_all(url: str, count: int, in_flight: int) -> None:
    """Post `count` resources, `in_flight` at a time. Raises httpx's errors, also unless 2xx."""

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight))

    waiting = bodies("loop", count)
    headers = {"Authorization": "Bearer bench", "Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=AiohttpTransport(client=session), timeout=60) as client:

        async def post_next() -> None:
            for resource_type, body in waiting:
                response = await client.post(
                    f"{url}/r4/{resource_type}", content=body, headers=headers
                )
                response.raise_for_status()

        await asyncio.gather(*(post_next() for _ in range(in_flight)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A loop that only posts.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--in-flight", type=int, default=200)
    chosen = parser.parse_args()
    asyncio.run(post_all(chosen.url, chosen.count, chosen.in_flight))
