"""`python -m tests.security.make_bases FOLDER` writes the bases of the other kinds of policy, as they lie in
tests/fixtures/hostile. A zip holds addresses and versions, so its bytes differ from run to run: the corpus uses the
files that are committed."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from tests.security.entry import unzipped, zipped
from tests.support.teachers import Spaces, box

_KEPT = ("data", "policy.pth", "_stable_baselines3_version")
_DICT = spaces.Dict({"a": box(2), "b": spaces.Discrete(3)})
_IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)


def models() -> dict[str, Any]:
    """A small model of each kind, untrained, with seed 0."""
    from sb3_contrib import CrossQ, MaskablePPO, RecurrentPPO
    from stable_baselines3 import PPO

    def made(algorithm: Any, policy: str, seen: spaces.Space[Any], acted: spaces.Space[Any], **more: Any) -> Any:
        kwargs = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [6]}} | more
        return algorithm(policy, Spaces(seen, acted), **kwargs)

    three, small = spaces.Discrete(3), {"n_steps": 8, "batch_size": 8}
    flat: dict[str, Any] = {"net_arch": [], "features_extractor_kwargs": {"features_dim": 4}}
    found = {
        "gsde": made(PPO, "MlpPolicy", box(4), box(3), use_sde=True, **small),
        "cnn": made(PPO, "CnnPolicy", _IMAGE, three, policy_kwargs=flat, **small),
        "dict": made(PPO, "MultiInputPolicy", _DICT, three, **small),
        "recurrent": made(RecurrentPPO, "MlpLstmPolicy", box(4), three,
                          policy_kwargs={"net_arch": [], "lstm_hidden_size": 4}, **small),
        "maskable": made(MaskablePPO, "MlpPolicy", box(4), three, **small),
        "crossq": made(CrossQ, "MlpPolicy", box(4), box(2, low=-1.0, high=1.0), buffer_size=10,
                       policy_kwargs={"net_arch": {"pi": [5], "qf": [4]}}),
    }  # fmt: skip
    for name, weight in found["cnn"].policy.named_parameters():
        if ".cnn." in name:
            weight.data.fill_(0.01)  # equal numbers pack well
    return found


def main(folder: Path) -> None:
    """The zips, and statistics of one entry of the Dict."""
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    for name, model in models().items():
        model.save(folder / f"{name}.zip")
        content = unzipped((folder / f"{name}.zip").read_bytes())
        content = {member: content[member] for member in _KEPT}
        (folder / f"{name}.zip").write_bytes(zipped(content, zipfile.ZIP_DEFLATED))
    venv = VecNormalize(DummyVecEnv([lambda: Spaces(_DICT, spaces.Discrete(3))]), norm_obs_keys=["a"])
    venv.seed(0)
    venv.reset()
    for _ in range(5):
        venv.step(np.zeros(1, np.int64))
    venv.save(str(folder / "keyed.pkl"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
