"""How far many calls have come, as a terminal shows it."""

import io

from rich.console import Console

from llmd.cli.progress import Progress


def test_a_bar_tells_how_many_have_ended_how_many_failed_and_how_much_has_come() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with console.capture() as captured, Progress(3, console) as progress:
        progress.heard("llmd.delta", {"index": 0, "text": "hello"})
        progress.heard("llmd.delta", {"index": 1, "reasoning": "hm"})
        progress.heard("llmd.done", {"index": 0, "outcome": "ok"})
        progress.heard("llmd.done", {"index": 1, "outcome": "no_route"})
        progress.heard("llmd.more", {})
    assert "2/3" in captured.get()
    assert "1 failed, 5 characters" in captured.get()
