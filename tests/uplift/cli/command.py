"""The command line as tests call it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from typer.testing import CliRunner, Result

from uplift.cli.main import app
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

Told = TypeVar("Told")


class Cli:
    """The command line, with the environment of a deployment."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, *arguments: str, stdin: str | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        assert result.exit_code == code, result.output
        return result

    def on_relay(self, use: Callable[[Relay], Awaitable[Told]]) -> Told:
        async def opened() -> Told:
            async with open_relay(self.settings) as relay:
                return await use(relay)

        return asyncio.run(opened())
