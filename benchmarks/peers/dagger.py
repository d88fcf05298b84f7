"""The parent's side of imitation's DAgger: its environment, its process, and its student under our judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.plain import as_student
from benchmarks.peers.tasks import Checkpoint, DaggerSetting, Race, Task
from policykd.students.mlp import MlpStudent
from policykd.teachers.base import Teacher
from policykd.teachers.networks import ConstantStd, Dense, Network
from policykd.teachers.normalize import Normalizer

# imitation 1.0.1 takes gymnasium 0.29 and stable-baselines3 2.2 with it; those need an older NumPy, MuJoCo, pyarrow.
PINS = ("imitation==1.0.1", "numpy<2", "mujoco<3", "box2d==2.3.10", "imageio", "datasets<3", "pyarrow<18")
_CHILD = Path(__file__).with_name("dagger_child.py")


def environment(folder: Path) -> Path:
    """The interpreter of imitation's environment, which is made on the first call (minutes, about 2 GB)."""
    python = folder / "imitation" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "imitation" / ".made"
    if not done.is_file():
        sys.stderr.write(f"making {folder / 'imitation'} for {PINS[0]} (minutes, once)\n")
        subprocess.run([sys.executable, "-m", "venv", str(folder / "imitation")], check=True)
        pins = [f"torch=={torch.__version__.partition('+')[0]}", *PINS]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pins], check=True)
        done.touch()
    return python


class Dagger:
    """A process that has imported imitation and holds the teacher's weights."""

    def __init__(self, python: Path, teacher: Teacher, task: Task) -> None:
        self._teacher, self._task = teacher, task
        self._folder = tempfile.TemporaryDirectory()
        weights = Path(self._folder.name) / "teacher.npz"
        np.savez(weights, **_weights(teacher))
        command = [str(python), "-W", "ignore", str(_CHILD), str(weights)]
        self._log = (Path(self._folder.name) / "log").open("w")
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=clean
        )

    def race(self, setting: DaggerSetting, seed: int) -> Race:
        """One run."""
        yield from self._rounds(setting, seed)

    def _rounds(self, setting: DaggerSetting, seed: int) -> Iterator[Checkpoint]:
        order = {"setting": asdict(setting), "seed": seed, "env": self._task.old_env, "width": self._task.width}
        self._tell(order)
        while True:
            told = self._answer()
            if "end" in told:
                return
            wanted = False
            try:
                student = self._student(Path(told["file"]))
                yield Checkpoint(student, told["seconds"], told["cpu"], told["timesteps"], told["updates"])
                wanted = True
            finally:
                self._tell({"go": wanted})

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._log.close()
        self._folder.cleanup()

    def _tell(self, document: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(document) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"imitation ended: {Path(self._log.name).read_text()[-2000:]}")
        return json.loads(line)  # type: ignore[no-any-return]

    def _student(self, path: Path) -> MlpStudent:
        with np.load(path) as file:
            found = {name: torch.from_numpy(file[name]) for name in file.files}
        layers = tuple((found[f"weight{k}"].T.contiguous(), found[f"bias{k}"]) for k in range(3))
        return as_student(self._teacher, layers, found.get("log_std", torch.zeros(0)))


def _weights(teacher: Teacher) -> dict[str, Any]:
    """What `dagger_child` reads."""
    network = teacher.network
    assert isinstance(network, Network)
    found: dict[str, Any] = {}
    for k, layer in enumerate(layer for layer in network.layers if isinstance(layer, Dense)):
        assert layer.bias is not None
        found[f"weight{k}"], found[f"bias{k}"] = layer.weight.numpy(), layer.bias.numpy()
        if k == 0:
            found["activation"] = layer.activation
    if isinstance(network.head, ConstantStd):
        found["log_std"] = network.head.log_std.numpy()
    if isinstance(teacher.normalizer, Normalizer):
        s = teacher.normalizer
        found |= {"mean": s.mean, "var": s.var, "clip": s.clip, "epsilon": s.epsilon}
    return found
