"""What a command prints on standard output: a table for people, or one JSON document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from policykd.report.table import document_table, print_result


def print_json(document: Mapping[str, Any]) -> None:
    """The document as JSON; numbers that JSON does not have (NaN, infinities) become null."""
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


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
