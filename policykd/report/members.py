"""The sortable table of report.html: every student of frontier.json."""

from __future__ import annotations

from policykd.report.facts import Facts, Member, number, words
from policykd.report.html import Safe, element
from policykd.report.sections import panel, text_of
from policykd.report.table import percent

_INTERVAL = (
    "of the retention, 95 %; of a student that was tried on fresh seeds, at its attempt's share of the error "
    "(gate.error of result.json for the last one); sorted by the lower end"
)
# of frontier.json, in order: (key, heading, title)
_COLUMNS = (
    ("status", "status", "dropped: left early; failed: not good enough; passed; chosen"),
    ("width", "width", "units of a layer"),
    ("depth", "depth", "layers between input and output"),
    ("channels", "channels", "of the convolutions before the layers"),
    ("seed", "seed", "of its first weights"),
    ("params", "parameters", "weights and biases needed to act"),
    ("constants", "constants", "numbers of the observation normaliser"),
    ("macs", "MACs", "multiply-accumulates for one action"),
    ("bytes", "bytes", "of its float32 constants"),
    ("retention", "retention", "(student - random) / (teacher - random), a point estimate"),
    ("interval", "interval", _INTERVAL),
    ("agreement", "agreement", "share of states with the teacher's action"),
    ("latency_us", "latency, µs", "for one action"),
    ("train_kl", "train KL", "divergence from the teacher on the states it was trained on, in nats"),
    ("validation_kl", "validation KL", "the same on states that it was not trained on"),
    ("episodes", "episodes", "that the retention was measured over"),
    ("seeds", "seeds", "select: those that chose between the students; report: fresh ones, which chose nothing"),
)
_SHARES = {"retention", "agreement"}
_WORDS = {"status", "seeds"}


def members_table(facts: Facts) -> Safe:
    """Every member of the frontier; what no member has is no column."""
    members = facts.members
    columns = [column for column in _COLUMNS if any(_sortable(one, column[0]) is not None for one in members)]
    head = []
    for key, heading, title in columns:
        order = "ascending" if key == "params" else None
        if key == "bytes" and facts.frontier is None:
            title = "of its file"  # noqa: PLW2901
        head.append(element("th", element("button", heading, type="button", title=title), scope="col", aria_sort=order))
    rows = [
        element("tr", *(_cell(one, key) for key, _, _ in columns), id=f"member-{one.index}", class_=_kind(one) or None)
        for one in members
    ]
    table = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *rows),
        class_="sortable",
        id="members",
    )
    box = {"class_": "members scroll", "tabindex": "0", "role": "region", "aria_label": "Table of members"}
    return panel(
        "table",
        "Members",
        element("p", _how_measured(facts), " A click on a heading sorts.", class_="quiet"),
        element("div", table, **box),
    )


def _how_measured(facts: Facts) -> str:
    if facts.frontier is None:
        return "This run trained one student; its figures are those of the report seeds."
    if any(one.says.get("seeds") == "report" for one in facts.members):
        where = "between them, or on fresh seeds where one was tried there (report)"
    else:
        where = "between them"
    return (
        f"Every student that was trained. Their retention was measured on the seeds that chose {where}; the claim for "
        "the chosen one, above, is from fresh seeds."
    )


def _kind(member: Member) -> str:
    """The status as a CSS class: only one that is known."""
    return member.status if member.status in ("dropped", "failed", "passed", "chosen") else ""


def _sortable(member: Member, key: str) -> str | float | None:
    """What a cell is sorted by: exactly the value in frontier.json, of an interval its lower end."""
    value = member.says.get(key)
    if key in _WORDS:
        return words(value, 40)
    if key == "interval":
        return member.interval[0] if member.interval else None
    return value if number(value) is not None else None


def _cell(member: Member, key: str) -> Safe:
    value = _sortable(member, key)
    if value is None:
        return element("td", "–")
    if isinstance(value, str) and key != "status":
        return element("td", value, data_value=value)
    if isinstance(value, str):
        dot = element("span", class_=f"dot {_kind(member)}".strip(), aria_hidden="true")
        return element("td", dot, value, data_value=value)
    if key == "interval":
        shown = f"{100 * value:.1f} – {percent((member.interval or (0, value))[1])}"
    else:
        shown = percent(value) if key in _SHARES else text_of(value)
    return element("td", shown, data_value=repr(value), data_kind="number")
