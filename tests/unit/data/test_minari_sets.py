"""Fails when Minari cannot read what is written, when an episode there is not the shard's, or one is overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from policykd.data.minari_sets import _unpacked, minari_root, refuse_taken, write_minari
from policykd.data.stored import Stored, new_stored
from policykd.rollout.envs import EnvSpec
from policykd.spine.errors import InputError
from policykd.spine.packing import packing_of
from tests.support.core import Quiet
from tests.unit.data.test_stored import LAYOUT, columns_of, episodes, gathered

minari = pytest.importorskip("minari", reason="Minari is not installed: pip install 'policykd[minari]'")
SPEC = EnvSpec("CartPole-v1")
NAME = "cart/pole/teacher-v0"


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    about = {"env": SPEC.id, "teacher": {"algo": "ppo", "sha256": "a" * 64}}
    made = new_stored(tmp_path, about, {})
    made.add(columns_of(gathered()), {})
    return made


def test_minari_reads_the_episodes_back(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = stored.read(0, LAYOUT)
    write_minari(stored, LAYOUT, SPEC, NAME, Quiet())
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(minari_root(stored.path)))
    data = minari.load_dataset(NAME)
    assert NAME in minari.list_local_datasets()
    assert data.spec.env_spec.id == "CartPole-v1"
    parts, last = episodes(columns), iter(columns["last"])
    assert data.total_episodes == len(parts)
    for part, episode in zip(parts, data.iterate_episodes(), strict=True):
        over = bool((columns["terminated"] | columns["truncated"])[part.stop - 1])
        steps = slice(part.start, part.stop if over else part.stop - 1)
        end = next(last) if over else columns["observation"][steps.stop]
        np.testing.assert_array_equal(episode.observations, [*columns["observation"][steps], end])
        np.testing.assert_array_equal(episode.actions, columns["action"][steps])
        np.testing.assert_array_equal(episode.rewards, columns["reward"][steps])
        np.testing.assert_array_equal(episode.terminations, columns["terminated"][steps])
        np.testing.assert_array_equal(episode.infos["teacher_params"], columns["params"][steps])
        np.testing.assert_array_equal(episode.infos["actor"], columns["actor"][steps])
        assert bool(episode.terminations[-1]) != bool(episode.truncations[-1])
        assert not episode.truncations[:-1].any()


def test_nothing_is_overwritten_and_what_was_begun_is_begun_anew(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = minari_root(stored.path)
    (root / "cart/pole/.teacher-v0.policykd/data").mkdir(parents=True)  # as a killed process leaves it
    place = write_minari(stored, LAYOUT, SPEC, NAME, Quiet())
    before = sorted(place.rglob("*"))
    assert write_minari(stored, LAYOUT, SPEC, NAME, Quiet()) == place
    del stored.document["minari"]  # somebody else's
    with pytest.raises(InputError, match="exists; choose another --minari ID"):
        write_minari(stored, LAYOUT, SPEC, NAME, Quiet())
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    with pytest.raises(InputError, match="exists; choose another --minari ID"):
        refuse_taken(NAME)
    assert sorted(place.rglob("*")) == before


def test_packed_observations_become_the_spaces_own() -> None:
    space = spaces.Dict(
        {
            "picture": spaces.Box(0, 255, (2, 3), np.uint8),
            "pair": spaces.Tuple([spaces.Discrete(4), spaces.Box(-1, 1, (2,))]),
        }
    )
    space.seed(0)
    samples = [space.sample() for _ in range(5)]
    packing = packing_of(space)
    tree = _unpacked(np.stack([packing.pack(sample) for sample in samples]), packing)
    for t, sample in enumerate(samples):
        np.testing.assert_array_equal(tree["picture"][t], sample["picture"])
        assert tree["pair"][0][t] == sample["pair"][0]
        np.testing.assert_array_equal(tree["pair"][1][t], sample["pair"][1])
    assert tree["picture"].dtype == np.uint8
