"""`policy.pt2`: torch.export of a student, with a batch of any size."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from policykd.exports.interface import interface_from_json, interface_of, random_noise
from policykd.exports.of_student import graph_of
from policykd.exports.reference import run
from policykd.exports.targets import torch_program
from policykd.exports.targets.table import Options, Target, target
from policykd.spine.errors import InputError
from tests.support.core import FAMILIES, student
from tests.support.exported import ELSEWHERE, OBSERVATIONS, batch_of, feed_of, mask_of, student_on

SPACES = OBSERVATIONS | ELSEWHERE


def _exported(graph, folder):
    torch_program.check(graph, Options())
    facts = json.loads(json.dumps(torch_program.write(graph, folder, Options())))
    contract = interface_from_json(interface_of(graph).to_json())
    return torch_program.load(folder, contract, facts), facts


def test_is_a_target():
    module: Target = target("torch")
    assert module.RUNS_CODE


@pytest.mark.parametrize(("activation", "hidden"), [("tanh", (6, 5)), ("relu", (7,)), ("tanh", ())])
@pytest.mark.parametrize("family", FAMILIES)
def test_acts_as_the_student(tmp_path, family, activation, hidden):
    policy = student(family, activation, hidden=hidden)
    runtime, facts = _exported(graph_of(policy), tmp_path)
    batch = batch_of(policy.observation_space)
    feed = feed_of(policy, batch)
    expected, _ = policy.predict(batch, deterministic=True)
    for rows in (slice(0, 1), slice(3, 5), slice(None)):
        assert np.array_equal(runtime(feed.rows(rows))["action"], expected[rows])
    assert [path.name for path in tmp_path.iterdir()] == facts["files"] == ["policy.pt2"]
    assert facts["bytes"] == (tmp_path / "policy.pt2").stat().st_size


@pytest.mark.parametrize("space", SPACES)
def test_takes_every_observation(tmp_path, space):
    policy = student_on(SPACES[space])
    runtime, facts = _exported(graph_of(policy), tmp_path)
    batch = batch_of(SPACES[space])
    feed = feed_of(policy, batch)
    assert np.array_equal(runtime(feed)["action"], policy.predict(batch, deterministic=True)[0])
    assert [entry["shape"][1:] for entry in facts["inputs"]] == [list(part.shape[1:]) for part in feed.observations]


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_masks_and_distribution(tmp_path, family):
    masked = family in ("categorical", "multi", "bernoulli")
    policy = student_on(OBSERVATIONS["numbers by key"], family, masked=masked)
    graph = graph_of(policy, stochastic=True, with_distribution=True)
    noise = random_noise(graph.head.law, (256, graph.head.size), np.random.default_rng(1))
    mask = mask_of(graph.head.mask_size, graph.head.branches or (2,) * graph.head.size) if masked else None
    feed = feed_of(policy, batch_of(OBSERVATIONS["numbers by key"]), mask, noise)
    runtime, facts = _exported(graph, tmp_path)
    found, expected = runtime(feed), run(graph, feed)
    np.testing.assert_allclose(found["action"], expected.action, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[graph.distribution_names[0]], expected.outputs, rtol=1e-5, atol=1e-5)
    extra = ["action_masks", "noise"] if masked else ["noise"]
    assert [entry["name"] for entry in facts["inputs"]] == ["z", "a", "m", *extra]
    assert [entry["name"] for entry in facts["outputs"]] == ["action", *graph.distribution_names]


def test_equal_students_give_equal_bytes_without_paths(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch_program.write(graph_of(student("multi")), tmp_path / name, Options())
    data = (tmp_path / "one" / "policy.pt2").read_bytes()
    assert data == (tmp_path / "two" / "policy.pt2").read_bytes()
    with zipfile.ZipFile(tmp_path / "one" / "policy.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"module.py" not in content
    assert b"site-packages" not in content


def test_opens_without_policykd(tmp_path):
    policy = student("gaussian")
    _exported(graph_of(policy), tmp_path)
    batch = batch_of(policy.observation_space)
    np.save(tmp_path / "batch.npy", batch)
    code = (
        "import sys, numpy as np, torch\n"
        "policy = torch.export.load('policy.pt2').module()\n"
        "(action,) = policy(torch.from_numpy(np.load('batch.npy')))\n"
        "assert not any(name.startswith('policykd') for name in sys.modules)\n"
        "np.save('action.npy', action.numpy())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert np.array_equal(np.load(tmp_path / "action.npy"), policy.predict(batch, deterministic=True)[0])


def test_a_damaged_archive_is_one_line(tmp_path):
    policy = student("gaussian")
    graph = graph_of(policy)
    _exported(graph, tmp_path)
    path = tmp_path / "policy.pt2"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"policy\.pt2: torch\.export\.load cannot open it") as error:
        torch_program.load(tmp_path, interface_of(graph), {})
    assert "\n" not in str(error.value)


def test_another_contract_is_one_line(tmp_path):
    _exported(graph_of(student("gaussian")), tmp_path)
    other = student_on(OBSERVATIONS["numbers by key"])
    runtime = torch_program.load(tmp_path, interface_of(graph_of(other)), {})
    with pytest.raises(InputError, match="does not fit the manifest") as error:
        runtime(feed_of(other, batch_of(OBSERVATIONS["numbers by key"])))
    assert "\n" not in str(error.value)
