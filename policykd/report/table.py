"""What a person reads at the end: tables that fit in 80 columns and make sense without colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

Json = Mapping[str, Any]

_SIDES = ("teacher", "student", "random")
_COSTS = ("params", "constants", "macs", "bytes")


def printable(text: Any) -> str:
    """Text that may come out of a file, with control characters (terminal escapes, line ends) written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def figure(value: float | None) -> str:
    """A number with four digits that count: 0.01235, 244.3, 12,346."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def count(value: float) -> str:
    """A large count in three digits: 950, 41.2k, 1.05M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """0.8 s, 42 s, 3:07, 1:02:03."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def returns(summary: Json | None) -> str:
    """`244.3 ± 7.1`: the mean and half of its 95 % interval."""
    if not summary or summary.get("mean") is None:
        return "-"
    low, high = summary.get("ci95") or (None, None)
    return figure(summary["mean"]) + ("" if low is None or high is None else f" ± {figure((high - low) / 2)}")


def result_table(result: Json) -> str:
    """The text of `result` (the document of result.json, or the part of it that `evaluate` gives)."""
    facts = [*_who(result), *_held(result), *_how(result)]
    blocks = [aligned(_sides(result), numeric=True), aligned(facts), aligned(_robust(result), numeric=True)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def print_result(result: Json, stream: IO[str]) -> None:
    """`result_table` on `stream`; on a terminal the gate's verdict is coloured."""
    from rich.console import Console
    from rich.text import Text

    text = Text(result_table(result))
    text.highlight_regex(r"(?m)^ *gate +passed", "green")
    text.highlight_regex(r"(?m)^ *gate +FAILED", "bold red")
    text.highlight_regex(r"(?m)^  [a-z]+(?= {2})", "cyan")
    Console(file=stream, soft_wrap=True, highlight=False).print(text, end="")


def document_table(document: Json) -> str:
    """Any document as lines `name  value`, one section below the other: what `inspect` and `play` print."""
    return aligned(list(_lines(document))) + "\n"


def aligned(rows: Sequence[tuple[str, ...]], *, numeric: bool = False) -> str:
    """Columns two spaces apart; `numeric` right-aligns all but the first."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if numeric and i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=False))]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def _present(result: Json) -> list[tuple[str, Json]]:
    own = [("policy", result)] if "return" in result else []  # of `evaluate`, which judges any policy
    return own + [(name, result[name]) for name in _SIDES if result.get(name)]


def _sides(result: Json) -> list[tuple[str, ...]]:
    present = _present(result)
    used = [name for name in _COSTS if any(side.get(name) is not None for _, side in present)]
    rows: list[tuple[str, ...]] = [("", "return ± 95 %", *used)] if present else []
    for name, side in present:
        rows.append((name, returns(side.get("return")), *(figure(side[cost]) if cost in side else "" for cost in used)))
    return rows


def _robust(result: Json) -> list[tuple[str, ...]]:
    """Teacher and student under each disturbance."""
    conditions = (result.get("robust") or {}).get("conditions") or {}
    rows: list[tuple[str, ...]] = [("disturbed", "teacher", "student", "retention", "95 % interval")]
    for name, found in conditions.items():
        held = found["retention"]
        returned = (figure(found[who]["return"]["mean"]) for who in ("teacher", "student"))
        told = (percent(held["value"]), _interval(held["ci95"])) if held else ("-", "teacher no better than random")
        rows.append((printable(name), *returned, *told))
    return rows if conditions else []


def _who(result: Json) -> Iterable[tuple[str, ...]]:
    if result.get("source"):
        yield "policy", tail(printable(result["source"]))
    if result.get("env"):
        yield "environment", printable(result["env"])
    teacher = result.get("teacher") or {}
    if teacher.get("source"):
        algo = f" ({printable(teacher['algo'])})" if teacher.get("algo") else ""
        yield "teacher", tail(printable(teacher["source"])) + algo


def _held(result: Json) -> Iterable[tuple[str, ...]]:
    retention = result.get("retention")
    if retention:
        yield "retention", f"{percent(retention['value'])}, 95 % interval {_interval(retention.get('ci95'))}"
    for name in ("over_before", "over_teacher") if result.get("finetune") else ():
        over = result["finetune"][name]
        low, high = map(figure, over["ci95"])
        yield name.replace("_", " "), f"{figure(over['mean'])}, 95 % interval {low} to {high}"
    if result.get("gate"):
        yield "gate", _gate(result["gate"])
    if result.get("compression") is not None:
        yield "compression", f"{times(result['compression'])} x fewer parameters"
    if result.get("agreement") is not None:
        yield "agreement", f"{percent(result['agreement'])} of the student's states"
    if result.get("worst_decile") is not None:
        yield "worst tenth", _worst(result)
    changes = [(name, side.get("action_change")) for name, side in _present(result)]
    told = [f"{name} {percent(value)}" for name, value in changes if value is not None]
    if told:
        yield "smoothness", "action change a step: " + ", ".join(told)
    if result.get("success") is not None:
        yield "success", percent(result["success"])


def _how(result: Json) -> Iterable[tuple[str, ...]]:
    if result.get("episodes"):
        yield "episodes", _episodes(result)
    if result.get("timesteps"):
        yield "timesteps", f"{result['timesteps']:,}"
    if result.get("seconds"):
        yield from _seconds(result["seconds"])


def _worst(result: Json) -> str:
    """The mean of the lowest tenth of the returns, of each side."""
    worst = result["worst_decile"]
    if not isinstance(worst, Mapping):
        sides = {name: result[name].get("worst_decile") for name in _SIDES if result.get(name)}
        worst = {"policy": worst, **sides}
    return ", ".join(f"{name} {figure(value)}" for name, value in worst.items() if value is not None)


def _episodes(result: Json) -> str:
    seeds = result.get("seeds")
    seeds = seeds.get("report") if isinstance(seeds, Mapping) else seeds
    how = ", deterministic" if result.get("deterministic") else ", stochastic" if "deterministic" in result else ""
    return f"{result['episodes']:,}" + (f", seeds {seeds[0]} to {seeds[-1]}" if seeds else "") + how


def _seconds(seconds: Json) -> Iterable[tuple[str, ...]]:
    spent = [f"{name} {value:.1f}" for name, value in seconds.items() if name != "total" and value]
    total = seconds.get("total")
    yield "seconds", f"{total:.1f}" if total is not None else ""
    for start in range(0, len(spent), 4):
        yield "", ", ".join(spent[start : start + 4])


def _gate(gate: Json) -> str:
    verdict = "passed" if gate.get("passed") else "FAILED"
    asked = f"non-inferior to {100 * gate['keep']:g} %, margin {100 * gate['margin']:g} points"
    return f"{verdict}: {asked}; lower end {100 * gate['lower']:.2f} %"


def tail(text: str, width: int = 50) -> str:
    """The end of a long path, which tells more than its beginning."""
    return text if len(text) <= width else "..." + text[3 - width :]


def times(ratio: float) -> str:
    """1,379 or 61.4 or 5.45: at least three digits."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def percent(value: float) -> str:
    """One decimal; what only rounds to 100 % does not say so."""
    text = f"{100 * value:.1f}"
    return f"{math.floor(10_000 * value) / 100:.2f} %" if text == "100.0" and value < 1 else f"{text} %"


def _interval(ends: Any) -> str:
    return f"{percent(ends[0])} to {percent(ends[1])}" if ends else "-"


def _lines(document: Json, depth: int = 0) -> Iterable[tuple[str, ...]]:
    simple_first = sorted(document.items(), key=lambda item: isinstance(item[1], Mapping) and bool(item[1]))
    for name, value in simple_first:
        label = "  " * depth + printable(name)
        if isinstance(value, Mapping) and value:
            yield (label,)
            yield from _lines(value, depth + 1)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield (label,)
            for item in value:  # its first entry names it
                first, *rest = item.items()
                yield f"{'  ' * (depth + 1)}{_cell(first[1])}", _cell(dict(rest))
        else:
            yield label, _cell(value)


def _cell(value: Any) -> str:
    if value is None or value in ({}, [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return figure(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(name)} {_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        text = ", ".join(f"[{_cell(v)}]" if isinstance(v, list | tuple) else _cell(v) for v in value[:6])
        return text + (f", ... ({len(value)})" if len(value) > 6 else "")
    text = printable(value)
    return text if len(text) <= 200 else text[:197] + "..."
