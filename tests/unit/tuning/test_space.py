"""Fails when a setting that judges, or a wrong one, can be tuned, or when a trial's configuration is not valid."""

from __future__ import annotations

import re

import pytest

from policykd.spine.config.schema import Config
from policykd.spine.config.studies import TuneConfig
from policykd.spine.errors import InputError
from policykd.tuning.space import Knob, applied, current, space_of


def tuned(space: dict[str, object], **sections: object) -> Config:
    return Config(tune=TuneConfig(space=space), **sections)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"evaluate.episodes": [10, 20]}, "tune.space: evaluate.episodes: cannot be tuned"),
        ({"gate.keep": [0.5, 0.9]}, "cannot be tuned"),
        ({"seed": [1, 2]}, "cannot be tuned"),
        ({"rollout.timesteps": [1000, 2000]}, "cannot be tuned"),
        ({"student.width": [4, 8]}, "a family covers it"),
        ({"update.learning_rat": [1e-3]}, "unknown key; did you mean update.learning_rate?"),
        ({"update.learning_rate": 0.1}, "found 0.1, expected a list of values, or"),
        ({"update.learning_rate": []}, "expected a list"),
        ({"update.learning_rate": {"low": 0.1, "high": 0.01}}, "low below high"),
        ({"update.learning_rate": {"low": 0, "high": 0.1, "log": True}}, "above 0 with log"),
        ({"update.learning_rate": {"low": 0.1, "high": 0.2, "step": 2}}, "expected a list"),
        ({"update.learning_rate": {"low": 0.1, "high": 2.0}}, "update.learning_rate: found 2.0"),
        ({"loss.kind": ["forward_kl", "kl"]}, "found the text 'kl', expected forward_kl"),
        ({"update.batch_size": {"low": 1.5, "high": 3.5}}, "update.batch_size: found 1.5"),
    ],
)
def test_what_cannot_be_tuned_is_said_in_one_line(space: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        space_of(tuned(space))
    assert "\n" not in str(caught.value)


def test_ranges_are_whole_where_the_setting_is() -> None:
    space = {"update.batch_size": {"low": 16, "high": 64}, "loss.temperature": {"low": 1, "high": 4}}
    batch, temperature = space_of(tuned(space))
    assert (batch.whole, temperature.whole) == (True, False)


def test_the_default_space_holds_the_settings_as_they_are() -> None:
    for config in (
        tuned({}, update={"n_updates": 300, "batch_size": 100}),
        tuned({}, update={"n_updates": 300}, student={"kind": "gru"}),
        tuned({}, update={"n_updates": 300}, loss={"kind": "mse"}),
    ):
        knobs = space_of(config)
        now = current(config, knobs)
        assert now.keys() == {knob.key for knob in knobs}
        assert applied(config, now) == config


def test_a_trial_changes_its_settings_and_what_follows_from_them() -> None:
    config = tuned({}, rollout={"rounds": 4, "n_envs": 8, "n_steps": 100, "timesteps": 3200})
    changed = applied(config, {"rollout.rounds": 2, "loss.temperature": 2.0})
    assert (changed.rollout.rounds, changed.rollout.timesteps, changed.loss.temperature) == (2, 1600, 2.0)
    with pytest.raises(InputError, match=r"temperature 2\.0 has no sense with kind mse"):
        applied(config, {"loss.kind": "mse", "loss.temperature": 2.0})


def test_a_knob_holds_its_own_values_alone() -> None:
    assert Knob("a", (1, True)).holds(True)
    assert not Knob("a", (1,)).holds(True)
    assert Knob("a", low=1, high=2).holds(1.5)
    assert not Knob("a", low=1, high=2).holds("auto")


def test_a_tree_has_no_default_setting_that_it_would_refuse_or_not_feel() -> None:
    student = {"kind": "tree", "leaves": 4}
    assert [knob.key for knob in space_of(tuned({}, student=student))] == ["rollout.beta.schedule"]
    with pytest.raises(InputError, match="a tree that learns from data.dir has no default"):
        space_of(tuned({}, student=student, data={"dir": "somewhere"}))
