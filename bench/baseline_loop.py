"""Baseline for delivery, the upper limit: a loop that only posts. No ledger, no validation.

python -m bench.baseline_loop --url http://127.0.0.1:8099 --count 4000 --in-flight 200
"""

import argparse
import asyncio
import itertools
from collections.abc import Iterator, Mapping

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from bench.resources import bodies
from uplift.destinations.destination import BundleType
from uplift.destinations.requests import Entry, Put, bundle_body


def open_client(
    in_flight: int, *, seconds: float, headers: Mapping[str, str] = {}
) -> httpx.AsyncClient:
    """httpx over aiohttp's transport, with a time limit: httpx's own pool would be the limit."""

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight))

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=session), timeout=seconds, headers=headers
    )


async def post_all(url: str, count: int, in_flight: int, entries: int = 1) -> None:
    """Post `count` resources, `in_flight` requests at a time, each with so many `entries`.

    Raises httpx's errors, also unless 2xx.
    """

    waiting = _requests(bodies("loop", count), entries)
    headers = {"Authorization": "Bearer bench", "Content-Type": "application/json"}
    async with open_client(in_flight, seconds=60) as client:

        async def post_next() -> None:
            for address, body in waiting:
                response = await client.post(f"{url}/r4{address}", content=body, headers=headers)
                response.raise_for_status()

        await asyncio.gather(*(post_next() for _ in range(in_flight)))


def _requests(resources: Iterator[tuple[str, bytes]], entries: int) -> Iterator[tuple[str, bytes]]:
    """The address below the base and the body of each request."""
    if entries == 1:
        for resource_type, body in resources:
            yield f"/{resource_type}", body
        return
    numbers = itertools.count()
    while group := list(itertools.islice(resources, entries)):
        yield (
            "",
            bundle_body(
                BundleType.TRANSACTION,
                [Entry(type_, Put(f"u{next(numbers)}"), body) for type_, body in group],
            ),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A loop that only posts.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--entries", type=int, default=1, help="of a Bundle; 1: no Bundle")
    chosen = parser.parse_args()
    asyncio.run(post_all(chosen.url, chosen.count, chosen.in_flight, chosen.entries))
