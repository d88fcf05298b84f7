"""Confirming goes on with the candidates that it began with, whatever was played in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policykd.evaluation.confirm import Attempt
from policykd.learn.judging.proof import Proof
from policykd.search import shrink as module
from policykd.search.shrink import Shrink
from policykd.search.standing import Standing
from policykd.spine.errors import Interrupted
from policykd.students.spec import MemberSpec
from tests.support.standings import put, session

CONFIG = {
    "student": {"width": [1, 2, 4], "depth": [1]},
    "gate": {"keep": 0.99, "most_episodes": 400},
    "evaluate": {"select_episodes": 96},
}
SMALL, MIDDLE, LARGE = MemberSpec(1, 1), MemberSpec(1, 2), MemberSpec(1, 4)


def search(own):
    """A search that is trained: the smallest passes, two tickets of the next are alike, the largest passes."""
    found = Shrink(own)
    standing = found.standing
    put(standing, SMALL, 1.0, index=9)
    put(standing, MIDDLE, 1.02, 8, index=8)
    put(standing, MIDDLE, 1.01, 8, index=9)
    put(standing, LARGE, 1.0, index=9)
    return found


@pytest.fixture
def attempts(monkeypatch):
    """Every attempt fails but that of the largest; the middle one's first ticket shows its true colours when played."""
    tried = []

    def prove(one, student, *, number, before):
        tried.append(student.footprint.params)
        passed = student.layers[0][0].shape[1] == 4
        attempt = Attempt(range(100), before, 0.0125, 0.98 if passed else 0.9, 1.0, passed)
        return Proof(range(100), before, 1.0, None, attempt, number, before)

    def play(self, keys, n):
        for key in keys:
            done = self._judged.setdefault(key, [])
            teacher, random = self.reference.on(range(1_000_000, 1_000_000 + n))
            missing = slice(len(done), n)
            true = 0.5 if key.startswith("d1-w2-s0-r8") else 1.0
            done.extend((random + true * (teacher - random))[missing].tolist())
        self.session.folder.save_facts("judged", self._judged)

    monkeypatch.setattr(module, "prove", prove)
    monkeypatch.setattr(Standing, "play", play)
    return tried


def test_a_search_that_is_stopped_while_it_confirms_ends_the_same(tmp_path, attempts, monkeypatch):
    whole = search(session(tmp_path / "a", **CONFIG))._confirm(0)
    assert [key.split("-")[1] for key in whole.attempts] == ["w1", "w4"], "the middle one fell while it was looked at"
    inner, calls = module.prove, []

    def stopped(*args, **how):
        calls.append(args)
        if len(calls) == 2:
            raise Interrupted("stopped by test")
        return inner(*args, **how)

    monkeypatch.setattr(module, "prove", stopped)
    first = search(session(tmp_path / "b", **CONFIG))
    with pytest.raises(Interrupted):
        first._confirm(0)
    again = search(first.session)
    again.standing._judged.update(first.standing._judged)
    resumed = again._confirm(0)
    assert list(resumed.attempts) == list(whole.attempts)
    assert resumed.candidate.key == whole.candidate.key
    assert np.isfinite(resumed.proof.paired.gap) and replace(resumed.proof, number=0).number == 0
