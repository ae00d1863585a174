"""The console of progress bars and log lines, shared so that lines are printed above a bar."""

from rich.console import Console

ERROR_CONSOLE = Console(stderr=True)
"""The error stream: results on the standard output stay free of both."""
