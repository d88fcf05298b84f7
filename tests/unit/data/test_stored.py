"""Fails when a stored step is not what the environment did, when a shard's order or its ends are wrong, when a backend
tells of ends otherwise, or when altered data is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policykd.data.stored import Sizes, Stored, layout_of, new_stored, open_stored, refuse_other, returns_of, table
from policykd.rollout.collect import Rollout, Shard, collect, label
from policykd.rollout.envs import EnvSpec
from policykd.spine.checkpoint import pack
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.errors import InputError
from policykd.spine.files import sha256_of, write_json
from policykd.spine.seeding import SeedKey
from tests.support.core import Quiet
from tests.unit.rollout.test_collect import cartpole_teacher

KEY = SeedKey(3, "collect", 1)
ENVS, STEPS = 3, 60
LAYOUT = layout_of(((4,), "float32"), ((), "int64"), Sizes(2))
ABOUT = {"teacher": {"sha256": "a" * 64, "fingerprint": "b" * 64}, "observation_space": {"type": "Box"}}


def gathered(backend: Any = "sync", kernel: Any = "torch") -> Rollout:
    wrappers = (("TimeLimit", {"max_episode_steps": 12}),) if backend != "native" else ()
    kwargs = {"max_episode_steps": 12} if backend == "native" else {}
    spec = EnvSpec("CartPole-v1", kwargs, wrappers, backend=backend)
    teacher = cartpole_teacher()
    shard = Shard(KEY, ENVS, STEPS, 0.5, RolloutConfig(kernel=kernel), whole=True)
    return collect(shard, spec, teacher, lambda x: -teacher.function(x), Quiet())


def columns_of(rollout: Rollout) -> dict[str, Any]:
    return table(rollout, label(rollout, cartpole_teacher(), Quiet()))


def episodes(columns: dict[str, Any]) -> list[slice]:
    begins = np.flatnonzero(columns["start"])
    return [slice(a, b) for a, b in zip(begins, [*begins[1:], len(columns["start"])], strict=True)]


def test_the_recorded_actions_replay_to_the_recorded_steps() -> None:
    columns = columns_of(gathered())
    parts, last = episodes(columns), iter(columns["last"])
    seeds = [KEY.episode_seed(slot, n) for slot in range(ENVS) for n in range(40)]
    env = gym.wrappers.TimeLimit(gym.make("CartPole-v1"), max_episode_steps=12)
    firsts = {tuple(env.reset(seed=seed)[0]): seed for seed in seeds}
    ended = {"terminated": 0, "truncated": 0}
    for part in parts:
        seen = columns["observation"][part]
        env.reset(seed=firsts[tuple(seen[0])])
        for i in range(part.start, part.stop):
            after, reward, terminated, truncated, _ = env.step(int(columns["action"][i]))
            truncated = truncated and not terminated
            assert (reward, terminated, truncated) == tuple(
                columns[name][i].item() for name in ("reward", "terminated", "truncated")
            )
            over = terminated or truncated
            if over or i + 1 < part.stop:
                np.testing.assert_array_equal(after, next(last) if over else columns["observation"][i + 1])
            ended["terminated"] += terminated
            ended["truncated"] += truncated
    assert ended["terminated"] > 2
    assert ended["truncated"] > 2
    assert next(last, None) is None
    assert sum(p.stop - p.start for p in parts) == ENVS * STEPS
    assert set(columns["actor"].tolist()) == {-1, 0}
    assert len(returns_of(columns)) == len(columns["last"]) == sum(ended.values())


def test_worker_processes_tell_the_same_ends() -> None:
    one, other = columns_of(gathered("sync")), columns_of(gathered("async"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_vector_classes_tell_their_ends() -> None:
    columns = columns_of(gathered("native"))
    cut, fell = columns["truncated"], columns["terminated"]
    over = cut | fell
    assert cut.any() and fell.any() and not (cut & fell).any()
    outside = np.abs(columns["last"][:, 2]) > 0.2095  # CartPole's own rule: it fell
    np.testing.assert_array_equal(outside | (np.abs(columns["last"][:, 0]) > 2.4), fell[over])
    lengths = [p.stop - p.start for p in episodes(columns) if over[p.stop - 1]]
    assert max(lengths) == 12
    np.testing.assert_allclose(returns_of(columns), lengths)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    made = new_stored(tmp_path, ABOUT, {})
    made.add(columns_of(gathered()), {"beta": 0.5, "return": None})
    return open_stored(tmp_path)


def test_what_is_written_is_read(stored: Stored) -> None:
    expected, found = columns_of(gathered()), stored.read(0, LAYOUT)
    assert stored.rows == [ENVS * STEPS]
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def _rewrite(stored: Stored, **changes: Any) -> None:
    """The shard with other columns, and an index that vouches for it."""
    data = pack({**columns_of(gathered()), **changes})
    (stored.path / "shard-0000.safetensors").write_bytes(data)
    stored.shards[0].update(bytes=len(data), sha256=sha256_of(data))


def test_altered_data_is_refused(stored: Stored) -> None:
    file = stored.path / "shard-0000.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"sha256 is not the one in index\.json"):
        stored.read(0, LAYOUT)
    file.write_bytes(whole + b"\0" * 100_000)
    with pytest.raises(InputError, match="bytes, expected"):
        stored.read(0, LAYOUT)
    stored.shards[0]["bytes"] += 100_000  # the index may lie as well
    with pytest.raises(InputError, match="bytes, expected"):
        stored.read(0, LAYOUT)
    file.unlink()
    with pytest.raises(InputError, match=r"missing, but index\.json names it"):
        stored.read(0, LAYOUT)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("params", lambda x: np.full_like(x, np.nan), "params holds numbers that are not finite"),
        ("params", lambda x: np.full_like(x, -np.inf), "params holds numbers that are not finite"),
        ("observation", lambda x: np.full_like(x, np.inf), "observation holds numbers"),
        ("params", lambda x: x.reshape(2, -1), "params is float32"),
        ("reward", lambda x: x.view(np.int64), "reward is int64"),
        ("start", np.zeros_like, "does not begin with an episode"),
    ],
)
def test_odd_columns_are_refused(stored: Stored, name: str, change: Any, words: str) -> None:
    _rewrite(stored, **{name: change(columns_of(gathered())[name])})
    with pytest.raises(InputError, match=words):
        stored.read(0, LAYOUT)


_HEAD = '"kind": "labelled data", "format": 1, "about": {}'
_ENTRY = '"rows": 5, "episodes": 1, "bytes": 100, "sha256": "ab"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "holds list"),
        ("{", "not JSON"),
        ("{}", "found None of format None"),
        ('{"kind": "labelled data", "format": 2}', "of format 2"),
        ('{"kind": "labelled data", "format": 1, "about": {}, "shards": [{"rows": -1}]}', "incomplete"),
        ('{"kind": "labelled data", "format": 1, "about": {}, "shards": {"a": 1}}', "incomplete"),
        ("[" * 100_000, "index"),
        (f'{{{_HEAD}, "complete": "no", "shards": []}}', "incomplete"),
        (f'{{{_HEAD}, "complete": true, "shards": [{{{_ENTRY}}}]}}', "incomplete"),
        (f'{{{_HEAD}, "complete": true, "shards": [{{{_ENTRY}, "return": "much"}}]}}', "incomplete"),
    ],
)
def test_odd_indices_are_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        open_stored(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_name_in_the_index_leads_to_another_file(stored: Stored, tmp_path: Path) -> None:
    document = json.loads((stored.path / "index.json").read_text())
    document["shards"][0]["file"] = "../elsewhere.safetensors"
    write_json(stored.path / "index.json", document)
    assert open_stored(stored.path).read(0, LAYOUT)


def test_data_of_another_teacher_or_space_is_refused(stored: Stored) -> None:
    refuse_other(stored, ABOUT)
    with pytest.raises(InputError, match="labelled by another teacher"):
        refuse_other(stored, {**ABOUT, "teacher": {"sha256": "a" * 64, "fingerprint": "c" * 64}})
    with pytest.raises(InputError, match="its observation space is"):
        refuse_other(stored, {**ABOUT, "observation_space": {"type": "Discrete"}})
