"""--max-us: measured on the compiled C, once for each architecture, before anything is trained."""

from __future__ import annotations

import shutil

import pytest
import torch

from policykd.exports.of_student import graph_of
from policykd.search.latency import Latencies, measured_us, refuse_impossible
from policykd.spine.errors import InputError
from policykd.students.spec import MemberSpec
from tests.support.core import FAMILIES, student
from tests.support.standings import blank, cartpole, put, session, standing

pytestmark = pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler")
SPECS = [MemberSpec(1, 1), MemberSpec(2, 2), MemberSpec(1, 8), MemberSpec(2, 32), MemberSpec(1, 64), MemberSpec(2, 64)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_action_can_be_timed(family):
    assert 0 < measured_us(graph_of(student(family))) < 1000


def test_a_larger_network_takes_longer():
    small, large = (measured_us(graph_of(blank(MemberSpec(2, width)))) for width in (1, 128))
    assert small < large


def test_what_is_timed_computes_as_much_as_a_trained_student_does():
    """tanh of zero takes a third of the time: its inputs must be as large as usual."""
    one = blank(MemberSpec(2, 64))
    hidden = torch.randn(100, 4) @ one.layers[0][0]
    assert 0.5 < float(hidden.std()) < 2 and 0.1 < float((torch.tanh(hidden) @ one.layers[1][0]).std()) < 2


def test_an_architecture_is_measured_once_and_kept(tmp_path):
    found = standing(tmp_path)
    one, other = put(found, MemberSpec(1, 4), 1.0), put(found, MemberSpec(1, 4, 1), 1.0)
    first = Latencies(found.session)
    measured = first.of(one)
    assert first.of(other) == measured
    assert Latencies(found.session).of(one) == measured, "also after a resume"


def test_of_each_depth_up_to_the_first_that_is_too_slow(tmp_path):
    one = session(tmp_path)
    known = {"1x1": 1.0, "2x2": 2.0, "1x8": 1.5, "2x32": 9.0, "1x64": 3.0}
    one.folder.save_facts("latency", known)
    latencies = Latencies(one)
    assert latencies.within(SPECS, 3.0) == [SPECS[0], SPECS[1], SPECS[2], SPECS[4]]
    assert one.folder.load_facts("latency") == known, "what is larger than one too slow is not compiled"
    assert latencies.within(SPECS[:1], 0.1) == SPECS[:1], "the smallest was fast enough when the run began"


def test_what_nobody_can_reach_is_refused():
    with pytest.raises(InputError, match=r"search\.max_us: found 1e-06, but an action of the smallest student takes"):
        refuse_impossible(cartpole(), MemberSpec(0, 0), "tanh", 1e-6)
    refuse_impossible(cartpole(), MemberSpec(0, 0), "tanh", 1e6)


def test_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert measured_us(graph_of(blank(MemberSpec(0, 0)))) is None
    with pytest.raises(InputError, match=r"search\.max_us: needs a C compiler"):
        refuse_impossible(cartpole(), MemberSpec(0, 0), "tanh", 5.0)
