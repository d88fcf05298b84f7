"""The entry point: runs a command and turns what it raises into an exit code and plain lines.

0 done; 2 wrong input; 3 the gate was not passed; 130 stopped by a signal. Anything else is a bug, with its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from policykd.cli import export_commands, report_commands, shrink_commands, study_commands
from policykd.cli.commands import app
from policykd.report.table import printable
from policykd.spine.errors import ConfigError, Interrupted, PolicykdError
from policykd.spine.stop import terminated_as_interrupted

STOPPED = Interrupted.exit_code
__all__ = [
    "export_commands",
    "main",
    "report_commands",
    "shrink_commands",
    "study_commands",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `policykd` with `arguments` (by default the process's own); returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        with terminated_as_interrupted():
            code = app(words, prog_name="policykd", standalone_mode=False)
    except ConfigError as error:
        complain(*error.problems)
        return error.exit_code
    except PolicykdError as error:
        complain(str(error))
        return error.exit_code
    except typer.TyperException as error:  # options and arguments that do not parse
        complain(f"{' '.join(error.format_message().split())} (see {_command_of(error)} --help)")
        return 2
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    if code == STOPPED:
        complain("stopped")
    return int(code or 0)


def _command_of(error: typer.TyperException) -> str:
    """`policykd distill`, where the mistake is one of that command's options."""
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context is not None else "policykd"


def complain(*lines: str) -> None:
    """Lines for the user on standard error; what they quote from a file cannot drive the terminal."""
    for line in lines:
        sys.stderr.write(f"policykd: {printable(line)}\n")
