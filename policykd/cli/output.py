"""What a command shows: progress on standard error; on standard output a table for people, or JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from policykd.report.console import BarTracker, console_tracker
from policykd.report.ranking import ranking_table
from policykd.report.table import document_table, print_result
from policykd.spine.stop import StopFlag
from policykd.spine.tracker import Tracker


@contextmanager
def watched() -> Iterator[tuple[Tracker, StopFlag]]:
    """Progress from the first moment on, and a flag that a signal raises.

    Importing torch takes seconds: a terminal shows it, and Ctrl-C ends them at once, since the flag is not up yet.
    """
    with console_tracker() as tracker:
        if isinstance(tracker, BarTracker):
            tracker.stage("starting")
        import_module("policykd.api")
        with StopFlag() as stop:
            yield tracker, stop


def print_json(document: Mapping[str, Any] | list[dict[str, Any]]) -> None:
    """The document, or a list of them, as JSON; numbers that JSON does not have (NaN, infinities) become null."""
    sys.stdout.write(json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")


def print_returns(result: Mapping[str, Any], *, as_json: bool = False) -> None:
    """The result of a distillation or of an evaluation."""
    if as_json:
        print_json(result)
    else:
        print_result(result, sys.stdout)


def print_document(document: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Any other document."""
    if as_json:
        print_json(document)
    else:
        sys.stdout.write(document_table(document))


def print_documents(documents: list[dict[str, Any]], *, as_json: bool = False) -> None:
    """One document as it is, several as a list, or one below the other."""
    if as_json:
        print_json(documents[0] if len(documents) == 1 else documents)
    else:
        sys.stdout.write("\n".join(map(document_table, documents)))


def print_ranking(documents: list[dict[str, Any]], *, as_json: bool = False) -> None:
    """Teachers that were judged, best first."""
    if as_json:
        print_json(documents[0] if len(documents) == 1 else documents)
    else:
        sys.stdout.write(ranking_table(documents))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
