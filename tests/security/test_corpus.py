"""Fails when a hostile file makes a reader run, import, write or fetch something, or costs more than it may, or when
its refusal is no single line that names it. `python -m tests.security --count` prints what is tried."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.security import costly, exports, kinds, onnxes, texts, weights, zips
from tests.security.child import GIGABYTE, SECONDS
from tests.security.corpus import MAKERS, MUTANTS, corpus, sums_are_right, table
from tests.security.entry import Entry, Large, Maker
from tests.security.pickles import GADGETS, MARKER, TRIPS, pickled
from tests.security.running import ROOT, likes, run, wrong
from tests.support.teachers import needs_shared, shared_folder, shared_index

GROUPS = {"zips": zips.MAKERS, "weights": weights.MAKERS, "kinds": kinds.MAKERS, "costly": costly.MAKERS,
          "texts": texts.MAKERS, "onnxes": onnxes.MAKERS, "exports": exports.MAKERS}  # fmt: skip
DANGEROUS_TAGS = {"apply", "new", "open", "exec", "module", "object", "state", "subprocess", "import"}
pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux' /proc")


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_runs_and_little_is_spent(group: str, tmp_path: Path) -> None:
    results = run((entry for maker in GROUPS[group] for entry in maker()), tmp_path)
    known = likes(results)
    faults = [f"{e.category}: {e.name}: {fault}" for e, result in results for fault in wrong(e, result, known)]
    assert not faults, f"{len(faults)} faults, the first are\n" + "\n".join(faults[:20])


def test_every_maker_is_in_a_group() -> None:
    assert {maker for group in GROUPS.values() for maker in group} == set(MAKERS)


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    """All inputs, without the content of the large ones."""
    kept = []
    for entry in corpus():
        small = all(isinstance(raw, Large) or len(raw) < 2**17 for raw in entry.files.values())
        kept.append(entry if small or entry.category in MUTANTS else replace(entry, files={}))
    return kept


def test_there_are_enough_and_they_differ(entries: list[Entry]) -> None:
    assert len(entries) >= 3000
    assert len({(entry.category, entry.name) for entry in entries}) == len(entries)
    read = [entry for entry in entries if entry.expect == "harmless"]
    assert len(read) >= 300 and all(entry.like for entry in read)
    assert sum(entry.expect == "refused" for entry in entries) >= 2000


def test_half_of_the_mutants_have_right_sums(entries: list[Entry]) -> None:
    mutants = [entry for entry in entries if entry.category in MUTANTS]
    right = sum(map(sums_are_right, mutants))
    assert len(mutants) >= 1500
    assert right >= len(mutants) / 2, f"{right} of {len(mutants)}"


def test_two_runs_make_the_same_bytes() -> None:
    assert _digest(zips.damage) == _digest(zips.damage)
    assert _digest(texts.students) == _digest(texts.students)


def _digest(maker: Maker) -> str:
    digest = hashlib.sha256()
    for entry in maker():
        for content in entry.files.values():
            digest.update(content.head if isinstance(content, Large) else content)
    return digest.hexdigest()


def test_the_documentation_counts_what_is_tried(entries: list[Entry]) -> None:
    counted = table(Counter(entry.category for entry in entries))
    assert counted in (ROOT / "docs" / "security.md").read_text(), "docs/security.md: python -m tests.security --count"


def test_the_same_gadgets_run_in_the_loaders_of_others(tmp_path: Path) -> None:
    """The control: hook and gadgets work, so that their silence elsewhere means something."""
    command = [sys.executable, "-m", "tests.security.child", "--control", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"loader"')]
    tripped, silent = set(), []
    for result in results:
        loader, gadget = result["loader"], result["gadget"]
        if loader == "yaml.unsafe_load":
            if gadget in DANGEROUS_TAGS and not result["events"]:
                silent.append((loader, gadget))
        elif not any(TRIPS[gadget] in event for event in result["events"]):
            silent.append((loader, gadget))
        tripped.add((loader, gadget))
    assert not silent
    assert tripped >= {
        (loader, gadget) for loader in ("PPO.load", "VecNormalize.load", "torch.load") for gadget in GADGETS
    }
    assert tripped >= {("yaml.unsafe_load", tag) for tag in DANGEROUS_TAGS}
    assert (tmp_path / MARKER).exists()


def _result(**changes: Any) -> dict[str, Any]:
    good = {
        "outcome": "refused",
        "text": "",
        "lines": ["a/m.zip: no"],
        "longest": 11,
        "seconds": 0.1,
        "peak": 1,
        "events": [],
    }
    return good | {"place": "00001"} | changes


@pytest.mark.parametrize(
    "result",
    [
        None,
        _result(outcome="escaped", text="ValueError"),
        _result(outcome="read"),
        _result(lines=["no name"]),
        _result(lines=["m.zip: a\nb"]),
        _result(lines=["m.zip: \x1b[2J"]),
        _result(longest=5000),
        _result(seconds=SECONDS + 0.1),
        _result(peak=GIGABYTE + 1),
        _result(events=["os.system"]),
    ],
    ids=["ended", "escaped", "read", "name", "lines", "control", "long", "slow", "large", "event"],
)
def test_each_fault_is_seen(result: dict[str, Any] | None) -> None:
    entry = Entry("c", "n", "teacher", {"m.zip": b""}, "m.zip", "refused")
    assert wrong(entry, _result(), {}) == []
    assert wrong(entry, result, {}) != []


def test_a_change_of_what_was_read_is_seen() -> None:
    entry = Entry("c", "n", "teacher", {"m.zip": b""}, "m.zip", "harmless", "ppo")
    read = _result(outcome="read", text="Box", lines=[])
    assert wrong(entry, read, {"ppo": "Box"}) == []
    assert wrong(entry, read, {"ppo": "Discrete"}) != []


@needs_shared
def test_real_teachers_with_gadgets_in_their_fields(tmp_path: Path) -> None:
    entries = list(_real())
    assert len(entries) >= 2 * len(shared_index())
    results = run(entries, tmp_path)
    faults = [f"{entry.name}: {fault}" for entry, result in results for fault in wrong(entry, result, likes(results))]
    assert not faults, "\n".join(faults[:20])
    texts_of = {entry.name: result["text"] for entry, result in results if result and entry.category == "real"}
    for name, text in texts_of.items():
        assert text == texts_of[name.partition(", ")[0]], name


def _real() -> Iterator[Entry]:
    """The folders of RL-Zoo that lie beside the checkout, as they are and with a gadget before every field's value."""
    gadgets = list(GADGETS)
    for number, record in enumerate(shared_index()):
        folder = shared_folder(record)
        files = {f"{'/'.join(folder.parts[-2:])}/{path.relative_to(folder)}": path.read_bytes()
                 for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size < 2**25}  # fmt: skip
        opened = "/".join(folder.parts[-2:])
        yield Entry("real", record["folder"], "teacher", files, opened, "harmless")
        label = gadgets[number % len(gadgets)]
        evil = base64.b64encode(pickled(GADGETS[label])).decode()
        hurt = {name: _hurt(raw, evil) if name.endswith(".zip") else raw for name, raw in files.items()}
        yield Entry("real", f"{record['folder']}, {label}", "teacher", hurt, opened, "harmless")


def _hurt(raw: bytes, evil: str) -> bytes:
    content = zips.unzipped(raw)
    data = json.loads(content["data"])
    for key, value in data.items():
        if isinstance(value, dict) and ":serialized:" in value and key not in ("observation_space", "action_space"):
            data[key] = value | {":serialized:": evil}
    return zips.with_data(content, data)
