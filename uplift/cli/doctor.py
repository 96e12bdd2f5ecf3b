"""`uplift doctor`: one line for each part, and what to do about it."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Column, Table
from rich.text import Text

from uplift.cli.output import Terminal, echo, json_text
from uplift.doctor import configuration
from uplift.doctor.examine import examine
from uplift.doctor.findings import Finding, Verdict, worst
from uplift.settings import Settings

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs, as one object.")] = False,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Make, read, change and delete a test Patient at each base of each destination"
            " that the deployment logs in to, and say which promise holds.",
        ),
    ] = False,
) -> None:
    """Examine settings, keys, PostgreSQL, Redis, destinations and workers, and say what to do.

    It changes nothing, but for the test Patient of --write.
    Exit code 0 if all works (warnings allowed), 1 if anything fails.
    """
    with Terminal(stderr=True).status("Examining"):
        findings = asyncio.run(_findings(write=write))
    verdict = worst(findings)
    if as_json:
        response = {"verdict": verdict, "findings": [asdict(finding) for finding in findings]}
        echo(json_text(response, indent=True))
    else:
        Terminal().print(_table(findings))
    raise typer.Exit(int(verdict is Verdict.FAIL))


async def _findings(*, write: bool) -> list[Finding]:
    try:
        settings = Settings()
    except ValidationError as error:
        return configuration.refused(error)
    return [finding async for finding in examine(settings, write=write)]


def _table(findings: list[Finding]) -> Table:
    table = Table(
        Column(no_wrap=True), Column(no_wrap=True), Column(overflow="fold"),
        box=None, show_header=False,
    )  # fmt: skip
    for finding in findings:
        said = Text(finding.what)
        if finding.do is not None:
            said.append(f"\n→ {finding.do}", style="dim" if finding.verdict is Verdict.OK else "")
        table.add_row(Text(finding.verdict, style=_STYLES[finding.verdict]), finding.part, said)
    return table
