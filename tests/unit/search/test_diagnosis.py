"""Why nothing smaller passes, said of standings made by hand; and frontier.json of the same."""

from __future__ import annotations

import json

import pytest

from policykd.evaluation.confirm import Attempt
from policykd.evaluation.gate import interval
from policykd.learn.judging.proof import Proof
from policykd.search.diagnosis import diagnose
from policykd.search.frontier import frontier_document
from policykd.search.grid import fixed_bytes
from policykd.search.latency import Latencies
from policykd.search.shrink import Outcome
from policykd.students.spec import MemberSpec
from tests.support.standings import cartpole, put, standing

SMALL, NEAR, CHOSEN, LARGE = (MemberSpec(1, w) for w in (1, 2, 4, 8))
GOOD = {"train_kl": 0.01, "validation_kl": 0.012, "agreement": 0.9}


def outcome(found, tried, passed=True, others=()):
    """`tried` was the last attempt; `others` failed before."""
    attempts = {}
    for candidate in (*others, tried):
        paired = found.judge(candidate.key, 1).first(50)
        held = passed and candidate is tried
        attempts[candidate.key] = Attempt(range(10_000, 10_050), paired, 0.0125, 0.971, 1.02, held)
    attempt = attempts[tried.key]
    proof = Proof(attempt.seeds, attempt.paired, 0.95, None, attempt)
    return Outcome(tried, proof, attempts, found, Latencies(found.session), 1000)


@pytest.mark.parametrize(
    ("limit", "measured", "words"),
    [
        ("data", {"train_kl": 0.01, "validation_kl": 0.1, "agreement": 0.9}, "rollout.timesteps"),
        ("horizon", {"train_kl": 0.01, "validation_kl": 0.011, "agreement": 0.99}, "rollout.rounds"),
        ("capacity", {"train_kl": 0.2, "validation_kl": 0.21, "agreement": 0.97}, "0.2"),
        ("capacity", {"train_kl": 0.9, "validation_kl": 3.0, "agreement": 0.99}, "0.9"),
        ("capacity", {}, "capacity"),
    ],
)
def test_three_limits(tmp_path, limit, measured, words):
    found = standing(tmp_path)
    put(found, SMALL, 0.2, train_kl=0.5)
    put(found, NEAR, 0.93, **measured)
    chosen = put(found, CHOSEN, 1.0, **GOOD)
    said = diagnose(outcome(found, chosen))
    assert said.limit == limit
    assert said.to_json() == {"limit": limit, "lines": list(said.lines)}
    assert f"{NEAR.footprint(4, 2).params} parameters" in said.lines[0], "the nearest, not the worst"
    assert words in " ".join(said.lines)
    assert "nan" not in " ".join(said.lines)
    assert all("\n" not in line for line in said.lines)


def test_nothing_to_explain_where_the_smallest_passed(tmp_path):
    found = standing(tmp_path)
    chosen = put(found, SMALL, 1.0, **GOOD)
    put(found, LARGE, 0.5, **GOOD)
    said = diagnose(outcome(found, chosen))
    assert (said.limit, said.lines) == (None, ())


def test_where_nothing_passed_the_best_is_explained(tmp_path):
    found = standing(tmp_path)
    put(found, SMALL, 0.2, train_kl=1.0)
    best = put(found, LARGE, 0.9, train_kl=0.01, validation_kl=0.5, agreement=0.8)
    said = diagnose(outcome(found, best, passed=False))
    assert said.limit == "data"
    assert f"{LARGE.footprint(4, 2).params} parameters" in said.lines[0]


def test_who_failed_on_fresh_seeds_only_is_explained_too(tmp_path):
    found = standing(tmp_path)
    lucky = put(found, SMALL, 1.0, agreement=0.99, train_kl=0.01)
    said = diagnose(outcome(found, lucky, passed=False))
    assert said.limit == "horizon"


# --- frontier.json ----------------------------------------------------------------------------------------------------

KEYS = {"width", "depth", "seed", "params", "constants", "macs", "retention", "agreement", "latency_us", "episodes"}
KEYS |= {"status", "bytes", "interval", "seeds", "train_kl", "validation_kl", "curve"}
RESULT = {"gate": {"keep": 0.99}, "teacher": {"params": 1, "return": {"mean": 1.0}, "algo": "ppo"}}


@pytest.fixture
def document(tmp_path):
    found = standing(tmp_path)
    dropped = put(found, SMALL, 0.2, 8)
    put(found, NEAR, 0.9, **GOOD)
    lost, chosen = put(found, MemberSpec(1, 3), 1.0, **GOOD), put(found, CHOSEN, 1.0, index=5, **GOOD)
    put(found, CHOSEN, 0.9, 8, index=4)
    put(found, LARGE, 1.0, **GOOD)
    put(found, MemberSpec(1, 12), 1.0, 8, **GOOD)
    found.dropped.add(dropped.spec)
    made = outcome(found, chosen, others=[lost])
    return made, frontier_document(made, RESULT)


def test_frontier_has_every_key_and_every_status(document):
    _, found = document
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"format", "gate", "teacher", "members"}
    assert found["teacher"] == {"params": 1, "return": {"mean": 1.0}}
    assert all(set(member) == KEYS for member in found["members"])
    assert [(m["width"], m["status"]) for m in found["members"]] == [
        (1, "failed"),
        (2, "failed"),
        (3, "failed"),
        (4, "chosen"),
        (8, "passed"),
        (12, "dropped"),
    ]
    for member in found["members"]:
        assert member["bytes"] == 4 * member["params"] + fixed_bytes(cartpole())
        assert member["latency_us"] is None or member["latency_us"] > 0
        low, high = member["interval"]
        assert low <= member["retention"] <= high


def test_who_was_confirmed_shows_what_the_confirmation_said(document):
    made, found = document
    for member in found["members"]:
        tried = member["width"] in (3, 4)
        assert member["seeds"] == ("report" if tried else "select")
        if tried:
            (attempt,) = (a for key, a in made.attempts.items() if f"-w{member['width']}-" in key)
            assert member["episodes"] == 50
            assert member["interval"] == [attempt.lower, attempt.upper] == [0.971, 1.02]
            assert member["retention"] == attempt.paired.retention
        else:
            (candidate,) = made.standing.of(MemberSpec(1, member["width"]))
            paired = made.standing.judge(candidate.key, 1)
            assert member["interval"] == list(interval(paired))
            assert member["episodes"] == len(paired)
    (chosen,) = (m for m in found["members"] if m["status"] == "chosen")
    assert [timesteps for timesteps, _ in chosen["curve"]] == [400, 500]


def test_episodes_that_show_no_gain_of_the_teacher_have_no_retention(tmp_path):
    found = standing(tmp_path)
    chosen = put(found, CHOSEN, 1.0, **GOOD)
    made = outcome(found, chosen)
    put(found, SMALL, 0.5, 8)
    found.reference._known["teacher"][:8] = [-1.0] * 8
    member = frontier_document(made, RESULT)["members"][0]
    assert (member["retention"], member["interval"], member["curve"]) == (None, None, [])
