"""What a push shows while it runs: bars on a terminal, elsewhere plain lines."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_SECONDS_BETWEEN_LINES = 5.0
_LABEL_COLUMNS = 50


class PushProgress(Protocol):
    """Shows the progress of a push, in records."""

    def reading(self, label: str) -> None:
        """The record or file that is read now."""

    def sent(self, done: int, total: int) -> None:
        """`done` of about `total` were sent or skipped."""

    def settled(self, done: int, total: int) -> None:
        """`done` of `total` accepted ones have an outcome."""


class Silent:
    """Shows nothing."""

    def reading(self, label: str) -> None:
        """Ignored."""

    def sent(self, done: int, total: int) -> None:
        """Ignored."""

    def settled(self, done: int, total: int) -> None:
        """Ignored."""


class _Rate(ProgressColumn):
    """Records a second."""

    def render(self, task: Task) -> Text:
        """As in `120/s`."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}/s", justify="right")


class ConsoleProgress:
    """Bars with rate and time left on a terminal; elsewhere one line every few seconds."""

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        doing: str = "Sending to Uplift",
        done: str = "Sent",
    ) -> None:
        self.begun = False
        """Whether anything was sent."""
        self._console = console
        self._clock = clock
        self._started = self._said = clock()
        self._label = ""
        self._done = done
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[label]}", markup=False),
                console=console,
            )
            self._sending = self._bars.add_task(doing, total=None, label="")
            self._waiting = self._bars.add_task(
                "Arriving at the destination", total=None, visible=False, label=""
            )

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def reading(self, label: str) -> None:
        """Shown with the next bar or line."""
        self._label = label

    def sent(self, done: int, total: int) -> None:
        """Shows the first bar or line."""
        self.begun = True
        total = max(done, total)
        if self._bars is not None:
            label = self._label[-_LABEL_COLUMNS:] if done < total else ""
            self._bars.update(self._sending, completed=done, total=total, label=label)
        elif done >= total:
            self._line(f"{self._done} {done} of {total}", last=True)
        else:
            self._line(f"{self._done} {done} of {total}{self._speed(done, total)}", last=False)

    def settled(self, done: int, total: int) -> None:
        """Shows the second bar or line."""
        if self._bars is not None:
            self._bars.update(self._waiting, completed=done, total=total, visible=True)
        else:
            self._line(f"{done} of {total} have an outcome", last=done >= total)

    def _speed(self, done: int, total: int) -> str:
        seconds = self._clock() - self._started
        if seconds <= 0 or done <= 0:
            return ""
        left = (total - done) * seconds / done
        return f" ({done / seconds:.0f}/s, {left:.0f} s left), {self._label}".rstrip(", ")

    def _line(self, text: str, *, last: bool) -> None:
        now = self._clock()
        if last or now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            self._console.print(text, soft_wrap=True)
