"""Fails when what is learned aside has another gradient than its equation, stays in the student, or is lost."""

from __future__ import annotations

import pytest
import torch

import policykd
from policykd.learn.rounds.labels import asides
from policykd.learn.updates.aside import Aside, Target, pairs_of, targets_of
from policykd.loss.distributions import Categorical
from policykd.spine.config.aside import AsideConfig
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.tracker import NullTracker
from policykd.students.family import Family
from policykd.students.spec import MemberSpec
from policykd.teachers.load import load_teacher
from tests.support.runs import StopsBehind

SPECS = [MemberSpec(1, 3), MemberSpec(2, 4), MemberSpec(2, 6)]
TARGETS = [Target("value", 1, slice(2, 3), 0.7), Target("hint_1_1", 1, slice(3, 5), 0.3)]


def test_the_gradient_is_that_of_the_equation() -> None:
    """Against autograd through the same layers, written plainly."""
    generator = torch.Generator().manual_seed(0)
    family = Family(SPECS, 5, Categorical(2))
    aside = Aside(family, TARGETS)
    inputs, labels = torch.randn(7, 5, generator=generator), torch.randn(7, 5, generator=generator)
    aside.begin(labels, 0)
    saved = list[list[torch.Tensor]]()
    family.forward_saving(inputs, saved)
    for group, layers in zip(family.groups, saved, strict=True):  # heads of padded units stay zero
        alive = (layers[1].abs().sum(1) > 0).float()
        for k in range(len(TARGETS)):
            head = aside._heads[k * len(family.groups) + family.groups.index(group)]
            head[0].copy_(torch.randn(head[0].shape, generator=generator) * alive.unsqueeze(-1))
    family.backward(torch.zeros(3, 7, 2), saved, aside.pull(labels, saved))
    for g, group in enumerate(family.groups):
        first, bias = group.weights[0].clone().requires_grad_(), group.biases[0].clone().requires_grad_()
        hidden = torch.tanh(torch.baddbmm(bias, inputs.expand(len(first), 7, 5), first))
        loss = torch.zeros(())
        for k, target in enumerate(TARGETS):
            weight, _, shift, _ = aside._heads[k * len(family.groups) + g]
            wanted = ((labels - labels.mean(0)) / labels.std(0))[:, target.columns]
            gap = hidden @ weight + shift - wanted
            loss = loss + target.weight / (2 * target.size) * gap.square().sum(-1).mean(1).sum()
        loss.backward()
        torch.testing.assert_close(group.d_weights[0], first.grad, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(group.d_biases[0], bias.grad, atol=1e-6, rtol=1e-4)
        if group.weights[0].shape[0] > 1:
            narrow = group.weights[0][0, :, 4:]
            assert (narrow == 0).all() and (group.d_weights[0][0, :, 4:] == 0).all(), "padded units stay zero"


def test_pairs_are_the_middle_layers_or_those_that_are_named() -> None:
    assert pairs_of(AsideConfig(hints=1), 2, 3) == [(2, 1)]
    found = targets_of(AsideConfig(value=1, hints=2, pairs=[[1, 2], [3, 1]], hint_rounds=4), 2, [5, 6, 7], 2)
    assert [(t.name, t.layer, t.columns) for t in found] == [
        ("value", 2, slice(2, 3)),
        ("hint_1_2", 2, slice(3, 8)),
        ("hint_3_1", 1, slice(8, 15)),
    ]
    assert [found[1].weight_in(r) for r in (0, 2, 4, 9)] == [2.0, 1.0, 0.0, 0.0] and found[0].weight_in(9) == 1.0


SHORT = ["rollout.rounds=4", "rollout.timesteps=6000", "evaluate.episodes=10", "evaluate.select_episodes=4"]


@pytest.mark.parametrize("name", ["hints", "value"])
def test_an_example_learns_and_resumes_to_the_same_bytes(name, tmp_path) -> None:
    config = load_config(f"methods/{name}", SHORT)
    whole = policykd.distill(config, out=tmp_path / "whole")
    assert whole.result["retention"]["value"] > 0.5
    assert whole.result["student"]["params"] == 4 * 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2, "no head is left in it"
    stop = StopsBehind(tmp_path / "cut" / "checkpoints" / "shard-0002.safetensors")
    with pytest.raises(Interrupted):
        policykd.distill(config, out=tmp_path / "cut", stop=stop)
    again = policykd.resume(tmp_path / "cut")
    student = "student.safetensors"
    assert (again.folder / student).read_bytes() == (whole.folder / student).read_bytes()


def test_the_heads_come_to_explain_their_targets(tmp_path) -> None:
    seen = dict[str, list[float]]()

    class Curves(NullTracker):
        def scalars(self, values, step) -> None:
            for key, value in values.items():
                seen.setdefault(key, []).append(value)

    config = load_config("methods/value", [*SHORT, "aside.hints=0.1"])
    policykd.distill(config, out=tmp_path / "run", tracker=Curves())
    assert seen["aside/value"][-1] < 0.5 and seen["aside/hint_1_1"][-1] < 0.9


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["aside.pairs=[[1,1]]"], "set aside.hints"),
        (["aside.hints=1", "student.depth=0"], "of depth 0"),
        (["aside.value=1", "student.kind=gru"], "of kind gru"),
        (["aside.hints=1", "aside.pairs=[[1,3]]"], "names the student's layer 3, and it has 2"),
        (["aside.value=1", "search.attempts=1"], "nothing is learned aside in a search"),
        (["aside.value=1", "progressive.generations=2"], "nothing is learned aside with progressive"),
    ],
)
def test_what_cannot_be_learned_aside_is_refused(overrides, says) -> None:
    with pytest.raises(InputError, match=says):
        load_config(None, overrides)


def test_a_layer_that_the_teacher_lacks_is_refused() -> None:
    config = load_config(None, ["aside.hints=1", "aside.pairs=[[7,1]]"])
    with pytest.raises(InputError, match="has 2 hidden layers, and layer 7 is named"):
        asides(config, load_teacher("builtin:cartpole"))
