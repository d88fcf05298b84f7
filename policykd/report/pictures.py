"""The pictures of report.html: the frontier, learning curves, the teacher's entropy, disagreement by feature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from policykd.report.charts import Line, bars, lines
from policykd.report.curves import thinned
from policykd.report.facts import Facts, Json, number, numbers, section
from policykd.report.frontier_plot import COLOURS, few, gate_words
from policykd.report.html import Safe, element
from policykd.report.sections import panel, share_of, text_of
from policykd.report.table import figure, percent

_SHOWN_FEATURES = 8
_SHOWN_CURVES = 100
# of TensorBoard: (name, heading, whether it is a share)
_CURVES = (
    ("return/select", "Return on the selection seeds", False),
    ("agreement/student_states", "Agreement on the student's states", True),
    ("loss/forward_kl", "Loss, in nats, over optimizer steps", False),
    ("loss/reverse_kl", "Loss (reverse KL), in nats, over optimizer steps", False),
    ("loss/validation", "Loss on states it had not learned from, in nats", False),
)


def picture(facts: Facts, svg: str) -> Safe:
    """The frontier, drawn by matplotlib, in the page's colours."""
    words = gate_words(section(facts.result, "gate")) or gate_words(section(facts.frontier, "gate"))
    gate = f"; the gate line is {words}" if words else ""
    label = f"Retention against parameters of {len(facts.members)} students, with the teacher at 100 %{gate}."
    caption = (
        "Retention against parameters (log scale): 100 % is the teacher's return, 0 % a random policy's. Small marks "
        "stand for measurements on the seeds that chose between the students or, of one that was tried on fresh seeds, "
        "on these, with their intervals where they have any (95 %; on fresh seeds at the attempt's error); the star is "
        "the chosen student on fresh seeds, with its 95 % interval."
    )
    drawing = element(
        "div", inlined(svg, "frontier-", label), class_="scroll", tabindex="0", role="region", aria_label=label
    )
    return panel(
        "picture", "How small it can get", element("figure", drawing, element("figcaption", caption), class_="picture")
    )


def inlined(svg: str, prefix: str, label: str) -> Safe:
    """An SVG that matplotlib drew, as part of a page: ids of its own, colours as variables, no comments."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r"url\(#", f"url(#{prefix}", body).replace('xlink:href="#', f'xlink:href="#{prefix}')
    for name, colour in COLOURS.items():
        body = re.sub(rf"(?<=: ){colour}\b", f"var(--{name})", body)
    head = re.compile(r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", re.DOTALL)
    start = element("svg", role="img", aria_label=label)[: -len("></svg>")]
    return Safe(head.sub(lambda match: f"{start} {match[1]}>", body, count=1).strip())


def learning_curves(facts: Facts) -> Safe | None:
    """Retention over timesteps, from the frontier; without it TensorBoard's curves. None where there are none."""
    figures = [chart for chart in (_retention_curves(facts), *_tracked_curves(facts)) if chart is not None]
    if not figures:
        return None
    note = "" if len(facts.members) == 1 else " The chosen student stands out; the pointer names the others."
    intro = element("p", f"Over timesteps, unless said otherwise.{note}", class_="quiet")
    return panel("curves", "Learning curves", intro, element("div", *figures, class_="charts"))


def _retention_curves(facts: Facts) -> Safe | None:
    drawn = []
    for one in few([one for one in facts.members if len(one.curve) > 1], _SHOWN_CURVES):
        name = f"{one.shape} seed {text_of(one.says.get('seed'))}, {one.status}"
        drawn.append(Line(thinned(one.curve), name, one.status == "chosen"))
    if not drawn:
        return None
    return _figure("Retention", lines(drawn, (1.0, "teacher"), "Retention over timesteps", as_percent=True))


def _tracked_curves(facts: Facts) -> list[Safe]:
    own = any(len(one.curve) > 1 for one in facts.members)
    chosen = next((one.says for one in facts.members if one.status == "chosen"), {})
    maps = f"c{chosen['channels']}_" if "channels" in chosen else ""
    sizes = f"l{chosen['leaves']}" if "leaves" in chosen else f"d{chosen.get('depth')}_w{chosen.get('width')}"
    key = f"{maps}{sizes}_s{chosen.get('seed')}"
    found = []
    for name, heading, as_percent in _CURVES:
        matching = [curve for curve in facts.curves if curve.name == name]
        if not matching or (own and name == "return/select"):
            continue
        drawn = [Line(one.points, one.member or one.name, one.member in ("", key)) for one in matching[:_SHOWN_CURVES]]
        mean = number(section(facts.result, "teacher", "return").get("mean"))
        level = (mean, "teacher, report seeds") if name == "return/select" and mean is not None else None
        found.append(_figure(heading, lines(drawn, level, heading, as_percent=as_percent)))
    return found


def _figure(heading: str, chart: Safe, caption: str | None = None) -> Safe:
    return element("figure", element("h3", heading), chart, element("figcaption", caption) if caption else None)


def differences(facts: Facts) -> Safe:
    """The teacher's entropy and where the two disagree: analysis.json."""
    found = facts.analysis
    if found is None:
        return panel(
            "differences", "Entropy and disagreement", element("p", "This run has no analysis.json.", class_="quiet")
        )
    episodes, differ = number(found.get("episodes")), number(found.get("differ"))
    played = "episodes" if episodes is None else f"{text_of(episodes)} episodes"
    intro = f"Over {text_of(found.get('states'))} states of the student's {played} on selection seeds."
    if differ is not None:
        intro += f" There teacher and student differ in {percent(differ)}."
    features = found.get("disagreement")
    listed = [one for one in features[:64] if isinstance(one, Mapping)] if isinstance(features, list) else []
    charts = [
        chart for chart in map(_feature, [one for one in listed if number(one.get("spread"))]) if chart is not None
    ]
    return panel(
        "differences",
        "Entropy and disagreement",
        element("p", intro, class_="quiet"),
        element("h3", "Entropy of the teacher"),
        _entropy(section(found, "entropy")),
        element("h3", "Disagreement by feature, the most telling first"),
        element(
            "p",
            "Share of the states in which they differ, over bins of about as many states each; their ends stand below.",
            class_="quiet",
        ),
        element("div", *charts[:_SHOWN_FEATURES], class_="charts")
        if charts
        else element("p", "No feature tells where they differ.", class_="quiet"),
    )


def _entropy(entropy: Json) -> Safe:
    mean = number(entropy.get("mean"))
    if mean is None:
        why = "Not known: the teacher has no distribution of its own (Q-values, a fixed spread), or a memory."
        return element("p", why, class_="quiet")
    quantiles = section(entropy, "quantiles")
    median, high = text_of(quantiles.get("0.5")), text_of(quantiles.get("0.95"))
    words = f"Mean {figure(mean)} nats; median {median}, 95 % below {high}."
    drawn = _histogram(section(entropy, "histogram"))
    return element("div", element("figure", drawn, element("figcaption", words)), class_="charts")


def _histogram(histogram: Json) -> Safe | None:
    edges, counts = numbers(histogram.get("edges")), numbers(histogram.get("count"))
    if not edges or not counts or len(edges) != len(counts) + 1 or sum(counts) <= 0 or min(counts) < 0:
        return None
    total = sum(counts)
    shares = [one / total for one in counts]
    tips = [
        f"{figure(a)} to {figure(b)} nats: {percent(share)} of the states"
        for a, b, share in zip(edges, edges[1:], shares, strict=False)
    ]
    return bars(shares, tips, (f"{figure(edges[0])} nats", f"{figure(edges[-1])} nats"), "Entropy of the teacher")


def _feature(says: Mapping[str, Any]) -> Safe | None:
    """Bars of one feature; None where its lists do not fit each other."""
    edges, shares, counts = (numbers(says.get(key)) for key in ("edges", "share", "count"))
    if not edges or not shares or not counts or not len(edges) - 1 == len(shares) == len(counts) or min(shares) < 0:
        return None
    values = numbers(says.get("values"))
    if values and len(values) == len(shares):
        places = [figure(value) for value in values]
        ends = (places[0], places[-1])
    else:
        places = [f"{figure(a)} to {figure(b)}" for a, b in pairwise(edges)]
        ends = (figure(edges[0]), figure(edges[-1]))
    tips = [
        f"{place}: they differ in {share_of(share)} of {text_of(number)} states"
        for place, share, number in zip(places, shares, counts, strict=True)
    ]
    name = text_of(says.get("name"))
    return _figure(name, bars(shares, tips, ends, f"Disagreement over {name}"))
