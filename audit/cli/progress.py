"""Progress on standard error: a bar with counts on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

_EVERY_SECONDS = 10.0  # between two plain lines of one stage


class TerminalProgress:
    """A context manager that satisfies audit.progress.Progress."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._fancy = sys.stderr.isatty()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}", style="dim"),
            console=self._console,
            transient=True,
            disable=not self._fancy,
        )
        self._task: TaskID | None = None
        self._name, self._done, self._total, self._said = "", 0, 0, 0.0
        self._status = ""

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_stage()
        self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # said here because typer turns an interrupt into exit code 130 without a word
            self._console.quiet = False
            self.note("interrupted; what was finished is kept: the same command goes on from there")

    def stage(self, name: str, total: int) -> None:
        self._close_stage()
        self._name, self._done, self._total, self._said = name, 0, total, time.monotonic()
        self._status = ""
        if self._fancy:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=total or None, status="")
        elif total:
            self._line(f"{name}: {total}")

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if self._fancy and self._task is not None:
            self._bar.advance(self._task, steps)
        elif not self._fancy and time.monotonic() - self._said >= _EVERY_SECONDS:
            self._said = time.monotonic()
            self._line(f"{self._name}: {self._done} of {self._total}" + (f" ({self._status})" if self._status else ""))

    def status(self, text: str) -> None:
        self._status = text
        if self._fancy and self._task is not None:
            self._bar.update(self._task, status=text)

    def steps(self, name: str) -> Callable[[int, int, str], None]:
        """A callback (steps done, steps in all, what is going on) that draws one stage."""

        def report(done: int, total: int, what: str) -> None:
            if (self._name, self._total) != (name, total):
                self.stage(name, total)
            if self._fancy and self._task is not None:
                self._bar.update(self._task, description=f"{name} ({what})" if what else name)
            self.advance(done - self._done)

        return report

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _close_stage(self) -> None:
        if not self._fancy and self._total:
            end = f": {self._done} of {self._total}, done" if self._done >= self._total else ""
            self._line(self._name + end + (f" ({self._status})" if self._status else ""))
        self._total = 0

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
