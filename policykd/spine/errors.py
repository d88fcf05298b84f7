"""The errors that policykd raises on purpose; the command line turns each into an exit code and one line."""

from __future__ import annotations


def brief(found: object, limit: int = 160) -> str:
    """What a file said, for a message: one printable line of at most `limit` characters, however hostile the file.

    Text (also an error's) stays as it is, anything else is shown by its repr.
    """
    try:
        text = str(found) if isinstance(found, str | Exception) else repr(found)
    except (ValueError, RecursionError):  # a number of more than 4300 digits, lists too deep to print
        text = f"a {type(found).__name__}"
    line = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    short = " ".join(line.split())
    return short if len(short) <= limit and len(text) <= 4 * limit else f"{short[: limit - 3]}..."


MAX_LINE = 900  # characters of one line of a refusal


def clipped(line: str, limit: int = MAX_LINE) -> str:
    """The line, or its beginning and its end, which says what to do, where a file made it longer than `limit`."""
    if len(line) <= limit:
        return line
    tail = limit // 3
    return f"{line[: limit - tail - 5]} ... {line[-tail:]}"


class PolicykdError(Exception):
    """Base of every error raised on purpose. `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(PolicykdError):
    """Wrong input. The message is one line: the file or key, what was found, what was expected, what to do."""

    exit_code = 2


class ConfigError(InputError):
    """Every mistake of a configuration at once: one line each, in `problems`, each with its dotted path and
    of at most `MAX_LINE` characters."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = [clipped(line) for line in problems]
        super().__init__("\n".join(self.problems))


class NumericsError(InputError):
    """A NaN or infinity; the message names the quantity (observation, reward, label, loss, gradient) and the place."""


class Interrupted(PolicykdError):
    """A signal asked for a stop; what is needed to resume has been written."""

    exit_code = 130
