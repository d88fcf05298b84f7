"""Students of equal bytes: distilled small, pruned from wider ones, with weights of 8 bits, and both together."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.latency import act_in_c_us, random_student
from benchmarks.machine import described, table
from policykd import api, load_student
from policykd.compress.int8 import quantised
from policykd.exports.bundle import Wishes
from policykd.exports.manifest import read_manifest
from policykd.spine.config.load import load_config
from policykd.students.spec import MemberSpec
from policykd.students.student import Student

TEACHERS = {"ppo/HalfCheetah-v3_1": (17, 6, 8), "a2c/BipedalWalker-v3_1": (24, 4, 3)}
"""Inputs, actions, and the width of the float32 student that sets the bytes: one that loses something."""
WIDE = 32  # of the students that are pruned
SHORT = ("rollout.rounds=12", "evaluate.episodes=40", "evaluate.select_episodes=8")
HEAD = ("teacher", "student", "width", "bytes", "retention, mean", "of each seed", "C, µs")


@dataclass(frozen=True)
class Way:
    """One way to so many bytes."""

    name: str
    int8: str = "none"
    prune: str = "none"
    larger: bool = False  # as wide as those of 8 bits, in more bytes


WAYS = (
    Way("distilled"),
    Way("pruned, distilled again", prune="taylor"),
    Way("int8 after", int8="after"),
    Way("int8 aware", int8="aware"),
    Way("pruned, int8 aware", int8="aware", prune="taylor"),
    Way("distilled, in more bytes", larger=True),
)


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page; it has no bound."""
    torch.set_num_threads(1)
    rows = list[list[str]]()
    for name in options.only or TEACHERS:
        held, made = defaultdict[Way, list[float]](list), dict[Way, Made]()
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(options.seeds):
                runs = _Runs(str(options.teachers / name), name, seed, Path(folder) / str(seed))
                for way in WAYS:
                    made[way] = runs.of(way)
                    held[way].append(made[way].retention)
                    sys.stderr.write(f"{name} {seed} {way.name} {made[way]}\n")
        rows += [_row(name, way, held[way], made[way]) for way in WAYS]
    page = PAGE.format(
        machine=described(),
        seeds=options.seeds,
        wide=WIDE,
        table=table(HEAD, rows),
        short=" ".join(SHORT),
        one=_one_width(),
    )
    return page, True


@dataclass(frozen=True)
class Made:
    """A student: its retention, width, bytes of constants in C, and microseconds of one action there."""

    retention: float
    width: int
    flash: int
    micros: float


@dataclass
class _Runs:
    """The runs of one teacher and seed in `folder`."""

    teacher: str
    name: str
    seed: int
    folder: Path

    def of(self, way: Way) -> Made:
        """The widest student that this way makes of the bytes."""
        n_inputs, n_outputs, small = TEACHERS[self.name]
        most, whole = _bytes(small, n_inputs, n_outputs, whole=False), way.int8 != "none" or way.larger
        width = max(w for w in range(1, WIDE + 1) if _bytes(w, n_inputs, n_outputs, whole=whole) <= most)
        words = [f"compress.int8={way.int8}", f"compress.prune={way.prune}", f"student.width={width}"]
        if way.prune != "none":
            words.append(f"student.start={self._wide()}")
        out = self.folder / way.name.replace(" ", "-")
        result = self._distilled(words, out)
        return Made(result["retention"]["value"], width, *_in_c(load_student(out), out / "out"))

    def _wide(self) -> Path:
        out = self.folder / "wide"
        if not out.is_dir():
            self._distilled([f"student.width={WIDE}"], out)
        return out

    def _distilled(self, words: list[str], out: Path) -> dict[str, Any]:
        config = load_config(None, [*words, *SHORT, f"seed={self.seed}"], {"teacher": self.teacher})
        return api.distill(config, out=out).result


def _bytes(width: int, n_inputs: int, n_outputs: int, *, whole: bool) -> int:
    """Constants of a student with two hidden layers in C: weights, biases, scales, normaliser."""
    size = MemberSpec(2, width).footprint(n_inputs, n_outputs)
    biases = size.params - size.macs
    return (size.macs + 8 * biases if whole else 4 * size.params) + 4 * size.constants


def _one_width() -> str:
    """Bytes and microseconds of random students, with weights of 32 and of 8 bits."""
    rows = []
    for width in (8, 18, 64):
        plain = random_student(17, width, 6)
        for kind, student in (("float32", plain), ("int8", quantised(plain))):
            with tempfile.TemporaryDirectory() as folder:
                flash, micros = _in_c(student, Path(folder) / "out")
            rows.append([f"17-{width}-{width}-6", kind, f"{flash:,}", f"{micros:.2f}"])
    return table(("student", "weights", "bytes", "C, µs"), rows)


def _in_c(student: Student, folder: Path) -> tuple[int, float]:
    """Bytes of constants, and the median of one action."""
    api.export(student, ["c"], folder, how=Wishes(vectors="synthetic", episodes=0))
    manifest = read_manifest(folder)
    seen = np.random.default_rng(1).standard_normal((64, *(student.observation_space.shape or ()))).astype(np.float32)
    return int(manifest.facts["flash_bytes"]), act_in_c_us(manifest, seen)[0]


def _row(name: str, way: Way, held: list[float], made: Made) -> list[str]:
    each = ", ".join(f"{value:.3f}" for value in held)
    return [name, way.name, str(made.width), f"{made.flash:,}", f"{np.mean(held):.3f}", each, f"{made.micros:.2f}"]


PAGE = """# Students of equal bytes

`python -m benchmarks compress --seeds {seeds} --out docs/benchmarks`: two hidden layers, {seeds} training seeds,
default settings but for {short}; the
episodes' seeds chose nothing. The bytes are the constants of policy.c (weights, biases, scales, normaliser) of a small
student with float32 weights; students with weights of 8 bits are as wide as fits into as many. Pruned students come
from one of width {wide}, which was trained first, and learn again as long as the others: they cost twice the timesteps.
The last is as wide as those of 8 bits. C (-O2) on this machine, one action.

Machine: {machine}.

{table}
Students of one width, with random weights:

{one}"""
