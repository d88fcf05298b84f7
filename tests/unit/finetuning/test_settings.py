"""Fails when `policykd finetune` takes a setting that it has no use for, or refuses one of the student's own run."""

from __future__ import annotations

from pathlib import Path

import pytest

from policykd.finetuning.run import finetune_config, fitting
from policykd.learn.run import open_task
from policykd.spine.artifact import save_artifact
from policykd.spine.config.load import load_config, resolved_yaml
from policykd.spine.errors import InputError
from tests.support.exported import OBSERVATIONS, student_on

RANDOM = ["finetune.start=random", "student.width=4"]
UNUSED = {
    "loss.kind": ["loss.kind=reverse_kl"],
    "loss.alpha, loss.hard": ["loss.alpha=0.5", "loss.hard=sample"],
    "rollout.rounds": ["rollout.rounds=3"],
    "rollout.beta.schedule": ["rollout.beta.schedule=linear"],
    "data.dir": ["data.dir=nowhere"],
    "data.held_out, update.patience": ["data.held_out=0.1", "update.patience=3"],
    "update.learning_rate": ["update.learning_rate=0.5"],
    "augment.jitter": ["augment.jitter=0.1"],
    "aside.value": ["aside.value=1.0"],
    "compress.int8": ["compress.int8=after"],
}


@pytest.mark.parametrize("names", UNUSED)
def test_what_fine_tuning_has_no_use_for_is_refused_by_name(names: str) -> None:
    with pytest.raises(InputError, match=f"^{names}: of no use to policykd finetune") as caught:
        finetune_config(load_config(None, [*RANDOM, *UNUSED[names]]))
    assert "\n" not in str(caught.value)


def test_what_it_uses_is_taken() -> None:
    words = ["loss.q_temperature=2.0", "robust.delay=1", "robust.evaluate=true", "gate.keep=0.9", "threads=2"]
    finetune_config(load_config(None, [*RANDOM, *words, "evaluate.episodes=7", "seed=3"]))


def test_what_the_students_own_run_said_is_not_what_the_user_gave_now(tmp_path: Path) -> None:
    save_artifact(tmp_path / "student.safetensors", *student_on(OBSERVATIONS["box"], "categorical").to_artifact())
    theirs = [word for words in UNUSED.values() for word in words if not word.startswith("data.dir")]
    own = load_config(None, [*theirs, "student.width=7", "seed=5"])
    (tmp_path / "config.yaml").write_text(resolved_yaml(own))
    config = finetune_config(load_config(None), tmp_path)
    assert config.student.width == 7 and config.seed == 0
    with pytest.raises(InputError, match=r"student\.width: of no use to .*, which keeps its architecture"):
        finetune_config(load_config(None, ["student.width=9"]), tmp_path)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("finetune.n_envs=3", r"finetune\.n_envs: of no use to SAC"),
        ("finetune.proximal=true", r"finetune\.proximal: of no use to SAC"),
        ("student.seeds=2", r"student\.seeds 2: policykd finetune trains one student"),
    ],
)
def test_what_the_learner_has_no_use_for(word: str, reason: str) -> None:
    config = finetune_config(load_config(None, [*RANDOM, word, "teacher=builtin:pendulum"]))
    with pytest.raises(InputError, match=reason):
        fitting(open_task(config, None, None))
