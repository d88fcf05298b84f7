"""The errors that policykd raises on purpose; the command line turns each into an exit code and one line."""

from __future__ import annotations


class PolicykdError(Exception):
    """Base of every error raised on purpose. `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(PolicykdError):
    """Wrong input. The message is one line: the file or key, what was found, what was expected, what to do."""

    exit_code = 2


class ConfigError(InputError):
    """Every mistake of a configuration at once: one line each, in `problems`, each with its dotted path."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class NumericsError(InputError):
    """A NaN or infinity; the message names the quantity (observation, reward, label, loss, gradient) and the place."""


class Interrupted(PolicykdError):
    """A signal asked for a stop; what is needed to resume has been written."""

    exit_code = 130
