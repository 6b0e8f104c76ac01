"""How wide tables are."""

from rich.console import Console


def table_console(width: int = 100) -> Console:
    """A console for tables: as wide as the terminal, or ``width`` columns where there is none."""
    return Console(width=None if Console().is_terminal else width)
