"""What a person reads of teachers that were judged: one row each, best first, and whether the best is clearly so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policykd.report.table import aligned, figure, printable, returns, tail

Json = Mapping[str, Any]


def ranking_table(documents: Sequence[Json]) -> str:
    """The text of what `policykd.api.rank` gives."""
    head = ("", "return ± 95 %", "length", "entropy", "us", "params", "macs", "above random")
    rows = [head, *map(_row, documents)]
    rows.append(("random", returns(documents[0]["judged"]["random"])))
    names = [
        (str(one["judged"]["rank"]), tail(printable(one.get("source") or one.get("file")), 62)) for one in documents
    ]
    return f"{aligned(rows, numeric=True)}\n\n{aligned([*names, *_facts(documents)])}\n"


def _row(document: Json) -> tuple[str, ...]:
    judged = document["judged"]
    costs = (figure(judged[name]) for name in ("length", "entropy", "latency_us", "params", "macs"))
    return str(judged["rank"]), returns(judged["return"]), *costs, "yes" if judged["above_random"] else "NO"


def _facts(documents: Sequence[Json]) -> Iterator[tuple[str, ...]]:
    first = documents[0]["judged"]
    yield "environment", printable(first["env"])
    yield "episodes", f"{first['episodes']:,}, seeds {first['seeds'][0]} to {first['seeds'][1]}"
    gap = first["over_next"]
    if gap:
        low, high = (figure(end) for end in gap["ci95"])
        verdict = "clearly better than 2" if gap["clear"] else "NOT clearly better than 2"
        yield "1 over 2", f"{verdict}: {figure(gap['mean'])}, 95 % interval {low} to {high}"
