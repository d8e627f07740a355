"""Text that others chose, made safe to print."""


def tame(text: str) -> str:
    """Escaped where it is not print: a name must not move the cursor or turn the text around."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
