"""Fails when a round's loss does not follow its settings, or settings without effect are taken."""

from __future__ import annotations

import pytest
from gymnasium import spaces

from policykd.learn.combinations import refuse_combinations
from policykd.learn.rounds.targets import family_loss, round_loss
from policykd.spine.config.load import load_config
from policykd.spine.config.loss import LossConfig
from policykd.spine.errors import InputError
from policykd.students.spec import members_of
from policykd.teachers.custom import make_custom_teacher
from policykd.teachers.ensemble import ensemble_of

NAN = float("nan")


def test_lists_are_axes_of_the_family() -> None:
    config = load_config(None, ["student.width=[4,8]", "loss.temperature=[1,4]", "loss.alpha=[0.5,1]"])
    specs = members_of(config.student, config.loss)
    assert len(specs) == 8 and len({s.name for s in specs}) == 8
    assert specs[0].name == "d2-w4-t1-a0.5-s0"
    loss = family_loss(config.loss, specs, masked=False)
    assert [loss.of(m) for m in range(4)] == [(1.0, 0.5), (1.0, 1.0), (4.0, 0.5), (4.0, 1.0)]


def test_hard_rounds_come_last() -> None:
    config = LossConfig(hard_rounds=2)
    loss = family_loss(config, members_of(load_config(None, ["student.width=4"]).student), masked=False)
    assert [round_loss(config, loss, (r, 5), []).of(0)[1] for r in range(5)] == [1, 1, 1, 0, 0]


def test_what_adapts_follows_each_members_agreement() -> None:
    config = LossConfig(temperature=5.0, alpha=0.2, adapt="both")
    student = load_config(None, ["student.width=[4,8,12]"]).student
    loss = family_loss(config, members_of(student), masked=False)
    now = round_loss(config, loss, (3, 9), [NAN, 0.5, 1.0])
    assert now.of(0) == (5.0, 1.0)
    assert now.of(1) == (pytest.approx(3.0), pytest.approx(0.6))
    assert now.of(2) == (pytest.approx(1.0), pytest.approx(0.2))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["loss.kind=mse", "loss.temperature=2"], "compares logits and means and no probabilities"),
        (["loss.hard=sample"], "no effect with alpha 1.0"),
        (["loss.adapt=temperature"], "no effect with temperature 1.0"),
        (["loss.adapt=alpha"], "no effect with alpha 1.0"),
        (["loss.convention=untempered", "loss.temperature=[1,2]"], "no effect with convention untempered"),
        (["loss.temperature=[1,2]", "search.attempts=1"], "give shrink the best"),
    ],
)
def test_settings_without_effect_are_refused(overrides, says) -> None:
    with pytest.raises(InputError, match=says):
        load_config(None, overrides)


def test_nothing_is_drawn_from_a_teacher_that_draws_nothing() -> None:
    box = spaces.Box(-1.0, 1.0, (1,))
    plain = make_custom_teacher(lambda x: x, box, box, kind="deterministic", env_id="Own-v0", name="ddpg")
    config = load_config(None, ["loss.hard=sample", "loss.alpha=0.5"])
    for teacher in (plain, ensemble_of([plain, plain], "mixture", [1.0, 1.0])):
        with pytest.raises(InputError, match="spread of its labels is ours and not its own: use loss.hard=mode"):
            refuse_combinations(config, teacher)
        refuse_combinations(load_config(None, ["loss.alpha=0.5"]), teacher)
