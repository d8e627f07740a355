"""How far many calls have come, on a terminal: a bar, how many have failed, how much text has come."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar


class Progress:
    """Drawn on standard error while it is entered, and gone behind it."""

    def __init__(self, calls: int, console: Console | None = None) -> None:
        words = TextColumn("{task.fields[words]}")
        self._bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            words,
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("calls", total=calls, words="")
        self._failed = 0
        self._characters = 0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def heard(self, method: str, params: Mapping[str, Any]) -> None:
        """A notification of the calls' stream."""
        if method == "llmd.delta":
            self._characters += len(params.get("text", ""))
        elif method == "llmd.done":
            self._failed += params["outcome"] != "ok"
            self._bar.advance(self._task)
        failed = f"{self._failed} failed, " if self._failed else ""
        self._bar.update(self._task, words=f"{failed}{self._characters} characters")
