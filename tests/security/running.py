"""Runs inputs in the watched process and says what is wrong with each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.security import exports, onnxes
from tests.security.child import GIGABYTE, SECONDS
from tests.security.entry import HOSTILE, STUDENTS, Entry, base
from tests.security.pickles import MARKER
from tests.security.texts import CONFIG, TRAIN, run_folder, zoo_folder

ROOT = Path(__file__).parents[2]
LONGEST = 1_000  # characters of one line


def valid() -> list[Entry]:
    """A valid input of each kind, opened first."""
    settings = {"args.yml": b"env: CartPole-v1\n", "config.yml": b"normalize: false\n"}
    entries = [Entry("valid", path.stem, "teacher", {"model.zip": path.read_bytes()}, "model.zip", "harmless", path.stem)
               for path in sorted(HOSTILE.glob("*.zip"))]  # fmt: skip
    entries += [Entry("valid", path.name, "student", {"s.safetensors": path.read_bytes()}, "s.safetensors", "harmless", path.name)
                for path in sorted(STUDENTS.glob("*.safetensors"))]  # fmt: skip
    both = {"model.zip": base("ppo.zip"), "vecnormalize.pkl": base("vecnormalize.pkl")}
    return [
        *entries,
        Entry("valid", "statistics", "normalizer", both, "vecnormalize.pkl", "harmless", "statistics"),
        Entry("valid", "keyed", "normalizer", {"k.pkl": base("keyed.pkl")}, "k.pkl", "harmless", "keyed statistics"),
        Entry("valid", "with statistics", "teacher+statistics", both, "model.zip", "harmless", "ppo"),
        onnxes.onnx_entry("valid", "onnx", onnxes.good(), "harmless"),
        exports.export_entry("valid", "export", {}, "harmless"),
        run_folder("valid", "run", b'{"algo": "ppo", "env_id": "CartPole-v1"}', "harmless"),
        zoo_folder("valid", "zoo", dict(settings), "harmless"),
        Entry("valid", "config", "config", {"c.yaml": CONFIG}, "c.yaml", "harmless", ""),
        Entry("valid", "train config", "train config", {"c.yaml": TRAIN}, "c.yaml", "harmless", ""),
    ]


def run(entries: Iterable[Entry], folder: Path, seconds: float = 600.0) -> list[tuple[Entry, dict[str, Any] | None]]:
    """Each entry with what came of it; None where its process ended. Valid inputs come first."""
    first = valid()
    pairs, lines = [], []
    for number, entry in enumerate([*first, *entries]):
        place = folder / f"{number:05}"
        entry.write(place)
        pairs.append(entry)
        lines.append(json.dumps({"number": number, "folder": str(place), "opener": entry.opener, "opened": entry.opened,
                                 "warm": number < len(first)}))  # fmt: skip
    jobs, work = folder / "jobs.jsonl", folder / "work"
    jobs.write_text("\n".join(lines))
    work.mkdir()
    command = [sys.executable, "-m", "tests.security.child", str(jobs), str(work)]
    # Tracing for coverage triples the time, and the bounds are promised for the program as users run it.
    env = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    printed = [line for line in lines if not line.startswith('{"number"')]
    found = {result["number"]: result for result in map(json.loads, (line for line in lines if line not in printed))}
    sys.stderr.write(done.stderr[-2000:])
    made = sorted(path.name for path in folder.rglob(MARKER))
    assert not made, f"a gadget ran and left {made}"
    assert not printed, f"an input printed {printed[:5]}"
    for number, result in found.items():
        result["place"] = f"{number:05}"  # a message about a folder names the folder
    return [(entry, found.get(number)) for number, entry in enumerate(pairs)]


def likes(results: Iterable[tuple[Entry, dict[str, Any] | None]]) -> dict[str, str]:
    """The facts of the valid inputs by the name that `Entry.like` uses."""
    return {
        entry.like: result["text"] for entry, result in results if entry.category == "valid" and result and entry.like
    }


def wrong(entry: Entry, result: dict[str, Any] | None, known: dict[str, str]) -> list[str]:
    """What is not as it must be."""
    if result is None:
        return ["its process ended"]
    outcome = result["outcome"]
    faults = [f"event {event}" for event in result["events"]]
    if outcome == "escaped":
        faults.append(f"escaped: {result['text']}")
    elif entry.expect != "either" and outcome != {"refused": "refused", "harmless": "read"}[entry.expect]:
        faults.append(f"was {outcome}, expected {entry.expect}: {result['text'][:200]} {result['lines'][:1]}")
    if outcome == "read" and entry.expect == "harmless" and entry.like and result["text"] != known[entry.like]:
        faults.append(f"read as {result['text']}, expected {known[entry.like]}")
    for line in result["lines"]:
        if len(line.splitlines()) != 1 or not line.isprintable():
            faults.append(f"a message of several lines or with control characters: {line[:300]!r}")
        names = {part.strip() for name in entry.files for part in name.split("/")} | {result["place"]}
        if not any(name in line for name in names):
            faults.append(f"a message without the file's name: {line[:300]!r}")
    if result["longest"] > LONGEST:
        faults.append(f"a line of {result['longest']} characters: {result['lines'][0][:200]!r}")
    if result["seconds"] > SECONDS:
        faults.append(f"{result['seconds']:.1f} s of processor time, at most {SECONDS}")
    if result["peak"] > GIGABYTE:
        faults.append(f"{result['peak'] / GIGABYTE:.2f} GB above idle, at most 1")
    return faults
