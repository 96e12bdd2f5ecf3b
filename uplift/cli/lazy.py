"""A group of commands that imports the module of a command only when that command runs.

`uplift --help` needs a line for each command and nothing else. Importing them all takes a second.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command is, and its line in the help of its group."""

    place: str
    """`module:name` of a function, or of a Typer with commands of its own."""
    summary: str
    panel: str | None = None
    """The heading under which the help lists it."""
    hidden: bool = False

    def load(self, name: str) -> Any:
        """Import it. Returns what Typer makes of it: a command or a group."""
        module, _, attribute = self.place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        return typer.main.get_command(alone)


class LazyGroup(TyperGroup):
    """A group whose commands are listed in `table`, by name and in the order of the help."""

    table: ClassVar[dict[str, Command]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            name: TyperCommand(
                name,
                help=command.summary,
                hidden=command.hidden,
                rich_help_panel=command.panel,
            )
            for name, command in self.table.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` name, imported: to run it, or to complete its options."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, (found and self.table[str(name)].load(str(name))), rest
