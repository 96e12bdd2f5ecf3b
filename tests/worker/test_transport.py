"""Which messages a worker takes from Redis."""

import base64
from typing import Any

import orjson
import pytest
import redis.asyncio
from pydantic import SecretStr

from tests import factories
from tests.uplift.test_dispatch import dispatcher_at, messages, until_published
from uplift.cli.local.embedded import EmbeddedRedis
from uplift.queues import UPLOADS
from uplift.settings import Settings
from uplift.worker.app import create_app
from uplift.worker.transport import NAME, Transport, is_ours

_CONTENTS: list[object] = [[], {}, None, [1, {}, {}], [[], {}, {"chain": [1]}]]


async def _sent(server: EmbeddedRedis) -> dict[str, Any]:
    """A message as a dispatch sends it."""
    async with redis.asyncio.from_url(server.url) as client:
        await client.flushdb()
        async with dispatcher_at(server.url) as dispatcher:
            dispatcher.dispatch(UPLOADS, [factories.new_id() for _ in range(100)])
            await until_published(client, UPLOADS, 100)
        return (await messages(client))[0]


async def test_what_a_dispatch_sends_is_ours(redis_server: EmbeddedRedis) -> None:
    assert is_ours(await _sent(redis_server))


def _without(message: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != name}


async def test_no_other_message_is(redis_server: EmbeddedRedis) -> None:
    sent = await _sent(redis_server)
    properties = sent["properties"]
    others: list[object] = [
        *(None, 1, "text", [], {}, [sent]),
        *(_without(sent, name) for name in ("body", "properties", "headers", "content-type")),
        *({**sent, name: None} for name in ("body", "properties", "headers", "content-type")),
        *(
            {**sent, "properties": _without(properties, name)}
            for name in ("delivery_tag", "delivery_info", "body_encoding")
        ),
        {**sent, "properties": {**properties, "delivery_info": {}}},
        {**sent, "properties": {**properties, "delivery_tag": "t" * 1000}},
        {**sent, "body": "not base64"},
        {**sent, "body": "\udc80"},
        {**sent, "body": base64.b64encode(bytes(64 * 1024)).decode()},
        {**sent, "content-type": "application/x-python-serialize"},
        {**sent, "content-encoding": "binary"},
        {**sent, "headers": {**sent["headers"], "compression": "application/x-gzip"}},
        *(
            {**sent, "headers": {**sent["headers"], **wrong}}
            for wrong in (
                {"eta": "2036-01-01T00:00:00"},
                {"expires": 1},
                {"id": ["1"]},
                {"task": None},
                {"retries": "many"},
                {"timelimit": 1},
            )
        ),
        *(
            {**sent, "body": base64.b64encode(orjson.dumps(content)).decode()}
            for content in _CONTENTS
        ),
    ]
    for other in others:
        assert not is_ours(other), orjson.dumps(str(other))[:300]


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_its_addresses_are_read_as_kombu_reads_them(scheme: str) -> None:
    url = f"{scheme}://name:p%40ss@host:6390/2?ssl_cert_reqs=required"
    settings = Settings(redis_url=SecretStr(url))
    app = create_app(settings)
    theirs = app.connection_for_read()
    app.conf.broker_transport = NAME
    ours = app.connection_for_read()
    assert isinstance(ours.transport, Transport)
    assert ours.info() == {**theirs.info(), "transport": NAME}
    assert ours.ssl == theirs.ssl
