"""Teachers from the Hub, from a real server on loopback; HF_ENDPOINT is read when huggingface_hub is imported, so
every command runs in a process of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from policykd.teachers.load import BUILTIN_FOLDER, load_teacher
from tests.house.rules import ROOT
from tests.support.extractors import Waves
from tests.support.hub_server import Hub, serving
from tests.support.teachers import Spaces, box

OLD, NEW = "a" * 40, "0123456789" * 4
ARGS = b"!!python/object/apply:collections.OrderedDict\n- - - algo\n    - ppo\n  - - env\n    - CartPole-v1\n"
CONFIG = b"!!python/object/apply:collections.OrderedDict\n- - - n_envs\n    - 8\n"
ZIP = "ppo-CartPole-v1.zip"


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("normalised")
    from gymnasium import spaces

    venv = VecNormalize(DummyVecEnv([lambda: Spaces(box(4), spaces.Discrete(2))]))
    model = A2C("MlpPolicy", venv, device="cpu", seed=0, policy_kwargs={"net_arch": [4]})
    model.learn(30)
    model.save(folder / "m.zip")
    venv.save(str(folder / "v.pkl"))
    return {
        "a2c-CartPole-v1.zip": (folder / "m.zip").read_bytes(),
        "vec_normalize.pkl": (folder / "v.pkl").read_bytes(),
    }


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The zip of a model with a features extractor of its own."""
    path = tmp_path_factory.mktemp("own") / "m.zip"
    PPO("MlpPolicy", "CartPole-v1", device="cpu", policy_kwargs={"features_extractor_class": Waves}).save(path)
    return path.read_bytes()


@pytest.fixture
def hub(normalised: dict[str, bytes], own: bytes) -> Iterator[Hub]:
    teacher = (BUILTIN_FOLDER / "cartpole.zip").read_bytes()
    files = {
        ZIP: teacher,
        "args.yml": ARGS,
        "config.yml": CONFIG,
        "env_kwargs.yml": b"render_mode: rgb_array\nsutton_barto_reward: true\n",
        "train_eval_metrics.zip": b"PK",
        "replay.mp4": b"film",
        "README.md": b"# card",
        "ppo-CartPole-v1/policy.pth": b"never read",
    }
    config = b"!!python/object/apply:collections.OrderedDict\n- - - normalize\n    - true\n"
    repos = {
        "sb3/ppo-CartPole-v1": {OLD: {ZIP: b"older"}, NEW: files},
        "me/bare": {NEW: {ZIP: teacher}},
        "me/normal": {NEW: {**normalised, "config.yml": config}},
        "me/lost": {NEW: {"a2c-CartPole-v1.zip": normalised["a2c-CartPole-v1.zip"], "config.yml": config}},
        "me/two": {NEW: {"a.zip": teacher, "b.zip": teacher}},
        "me/named": {NEW: {"a.zip": b"not this", "named.zip": teacher}},
        "me/own": {NEW: {"ppo-CartPole-v1.zip": own}},
        "me/none": {NEW: {"README.md": b"# card"}},
    }
    with serving(Hub(repos)) as server:
        yield server


def policykd(hub: Hub, home: Path, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "policykd", *map(str, words)]
    environment = {**hub.environment(home), **more}
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False)


def inspected(hub: Hub, home: Path, source: str, **more: str) -> dict[str, object]:
    done = policykd(hub, home, "inspect", source, "--json", **more)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_only_the_files_of_a_teacher_are_asked_for_and_nothing_tells_on_the_user(hub: Hub, tmp_path: Path) -> None:
    # The variables by which huggingface_hub would ask for a list of programs to report, were it not turned off.
    said = inspected(hub, tmp_path, "hf:sb3/ppo-CartPole-v1", AI_AGENT="x")
    local = load_teacher("builtin:cartpole")
    assert said["source"] == f"hf:sb3/ppo-CartPole-v1@{NEW}"
    assert (said["algo"], said["env"], said["env_kwargs"]) == ("ppo", "CartPole-v1", {"sutton_barto_reward": True})
    assert (said["sha256"], said["params"]) == (local.info.sha256, local.info.footprint.params)
    assert f"hf:sb3/ppo-CartPole-v1 is at commit {NEW}" in said["notes"]
    wanted = ("config.yml", "args.yml", "env_kwargs.yml", ZIP)
    fetched = [f"/sb3/ppo-CartPole-v1/resolve/{NEW}/{file}" for file in wanted]
    assert hub.requests()[0] == ("GET", "/api/models/sb3/ppo-CartPole-v1")
    assert hub.requests()[1:] == [(method, path) for path in fetched for method in ("HEAD", "GET")]
    assert all("torch" not in agent and "agent/" not in agent for _, _, agent in hub.seen)


def test_a_pinned_commit_is_opened_again_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    pinned = f"hf:sb3/ppo-CartPole-v1@{NEW}"
    first = inspected(hub, tmp_path, pinned)
    assert not [note for note in first["notes"] if "commit" in note]
    hub.seen.clear()
    assert inspected(hub, tmp_path, pinned) == first
    assert hub.requests() == [("GET", f"/api/models/sb3/ppo-CartPole-v1/revision/{NEW}")]
    hub.seen.clear()
    offline = inspected(hub, tmp_path, pinned, HF_HUB_OFFLINE="1")
    assert (offline["source"], offline["sha256"], hub.seen) == (pinned, first["sha256"], [])
    assert any("HF_HUB_OFFLINE" in note for note in offline["notes"])


def test_a_run_records_the_commit_and_repeats_it(hub: Hub, tmp_path: Path) -> None:
    small = ("rollout.rounds=2", "rollout.timesteps=2000", "update.n_updates=20", "evaluate.episodes=5", "device=cpu")
    words = ("--teacher", "hf:me/bare", "--out", "run", "evaluate.select_episodes=2", *small)
    done = policykd(hub, tmp_path, "distill", *words)
    assert done.returncode == 0, done.stderr
    assert f"hf:me/bare is at commit {NEW}" in done.stderr
    assert json.loads((tmp_path / "run/result.json").read_text())["teacher"]["source"] == f"hf:me/bare@{NEW}"
    assert f"teacher: hf:me/bare@{NEW}\n" in (tmp_path / "run/config.yaml").read_text()


def test_statistics_come_with_the_zip_and_are_missed(hub: Hub, tmp_path: Path, normalised: dict[str, bytes]) -> None:
    said = inspected(hub, tmp_path, "hf:me/normal")
    (tmp_path / "s.pkl").write_bytes(normalised["vec_normalize.pkl"])
    (tmp_path / "m.zip").write_bytes(normalised["a2c-CartPole-v1.zip"])
    expected = load_teacher(tmp_path / "m.zip", vec_normalize=tmp_path / "s.pkl")
    assert expected.normalizer is not None
    assert said["normaliser"] == expected.normalizer.to_json()
    assert np.size(said["normaliser"]["mean"]) == 4
    assert f"statistics of hf:me/normal@{NEW}: vec_normalize.pkl are applied" in said["notes"]
    assert said["env"] == "CartPole-v1"  # of the zip's name, where there is no args.yml
    lost = policykd(hub, tmp_path, "inspect", "hf:me/lost")
    assert lost.returncode == 2
    assert "missing, but" in lost.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf:me/unknown", "no such repository, or a private one"),
        (f"hf:sb3/ppo-CartPole-v1@{'b' * 40}", "no such commit or branch"),
        ("hf:me/two", "several zips (a.zip, b.zip), none of them two.zip"),
        ("hf:me/none", "holds no zip of a stable-baselines3 model (found README.md)"),
        ("hf:repo", "expected hf:ORG/REPO or hf:ORG/REPO@COMMIT"),
        ("hf:../../etc/passwd", "expected hf:ORG/REPO"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(hub: Hub, tmp_path: Path, source: str, said: str) -> None:
    done = policykd(hub, tmp_path, "inspect", source)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"policykd: {source}: ")
    assert said in done.stderr


def test_the_zip_named_like_the_repository_is_taken_and_a_branch_is_a_revision(hub: Hub, tmp_path: Path) -> None:
    assert inspected(hub, tmp_path, "hf:me/named@main")["source"] == f"hf:me/named@{NEW}"


def test_trust_opens_what_the_hub_gave_and_says_its_sha256(hub: Hub, tmp_path: Path, own: bytes) -> None:
    refused = policykd(hub, tmp_path, "inspect", "hf:me/own")
    assert refused.returncode == 2
    assert "--trust" in refused.stderr
    opened = policykd(hub, tmp_path, "inspect", "hf:me/own", "--trust", "--json", PYTHONPATH=str(ROOT))
    assert opened.returncode == 0, opened.stderr
    assert f"sha256 {hashlib.sha256(own).hexdigest()} is opened by stable-baselines3's own loader" in opened.stderr
    assert any("Waves" in note for note in json.loads(opened.stdout)["notes"])


def test_no_network_and_a_broken_hub(hub: Hub, tmp_path: Path) -> None:
    offline = policykd(hub, tmp_path, "inspect", "hf:me/bare", HF_HUB_OFFLINE="1")
    nobody = policykd(hub, tmp_path, "inspect", "hf:me/bare", HF_ENDPOINT="http://127.0.0.1:9")
    hub.broken = True
    broken = policykd(hub, tmp_path, "inspect", "hf:me/bare")
    for done, said in ((offline, "HF_HUB_OFFLINE"), (nobody, "check the network"), (broken, "answers with 500")):
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr


def test_without_huggingface_hub_it_says_how_to_install_it(hub: Hub, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from policykd.cli.main import main; sys.exit(main(['inspect', 'hf:me/bare']))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=hub.environment(tmp_path), capture_output=True, text=True, check=False)
    assert (done.returncode, hub.seen) == (2, [])
    assert done.stderr == (
        "policykd: hf:me/bare: needs huggingface_hub, which is not installed: pip install 'policykd[hub]'\n"
    )
