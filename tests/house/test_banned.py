from __future__ import annotations

import pytest

from tests.house.rules import ROOT, banned_problems, machine_problems, sources, tracked, writing_problems

# Modules that may open what SB3 or torch wrote with their own loaders: what this process has just written, or after an
# explicit --trust.
TRUSTED: set[str] = {"policykd/teachers/trusted.py", "policykd/exports/trusted_loads.py"}
# Modules that may write archives with pickles inside, and read none: exports, and the zips of `policykd train`.
EXPORT_WRITER = "policykd/exports/pickled.py"
WRITERS: set[str] = {EXPORT_WRITER, "policykd/learn/train/archive.py"}


@pytest.mark.parametrize(
    "path", [path for path in sources() if path.as_posix() not in TRUSTED | {EXPORT_WRITER}], ids=str
)
def test_nothing_that_a_file_says_is_executed(path):
    assert list(banned_problems((ROOT / path).read_text("utf-8"))) == []


def test_what_writes_pickles_reads_none():
    problems = [problem.partition(": ")[2] for problem in banned_problems((ROOT / EXPORT_WRITER).read_text("utf-8"))]
    assert problems == ["import of pickle"]


@pytest.mark.parametrize("path", [path for path in sources() if path.as_posix() not in WRITERS], ids=str)
def test_pickles_are_written_in_one_place(path):
    assert list(writing_problems((ROOT / path).read_text("utf-8"))) == []


@pytest.mark.parametrize("path", sorted(TRUSTED | WRITERS))
def test_the_exceptions_are_still_there(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import dumps",
        "import torch\ntorch.save(x, p)",
        "from torch import save",
        "import torch as t\nt.export.save(program, p)",
        "from torch.export import save as write",
        "from stable_baselines3.common.save_util import save_to_zip_file",
        "import stable_baselines3 as s\ns.common.save_util.data_to_json(d)",
    ],
)
def test_finds_what_writes_pickles(text):
    assert list(writing_problems(text)) != []


@pytest.mark.parametrize("text", ["image.save(p)", "import numpy as np\nnp.save(p, x)", "import json\njson.dump(d, f)"])
def test_accepts_what_writes_none(text):
    assert list(writing_problems(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import cloudpickle",
        "import dill",
        "import marshal",
        "import shelve",
        "def f():\n    import _pickle",
        "import torch\ntorch.load(p, weights_only=True)",
        "import torch as t\nread = t.load",
        "import torch\ntorch.export.load(p)",
        "from torch.export import load",
        "from torch import load as read",
        "import torch.storage\ntorch.storage._load_from_bytes(b)",
        "eval(text)",
        "exec(text)",
        "run = eval",
        "import builtins\nbuiltins.exec(text)",
        "import yaml\nyaml.load(f, Loader=yaml.SafeLoader)",
        "import yaml as y\ny.unsafe_load(f)",
        "from yaml import full_load",
        "from yaml import UnsafeLoader",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=flag)",
        "import os\nos.system('ls')",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import joblib\njoblib.load(p)",
        "from stable_baselines3 import PPO\nPPO.load(p)",
        "import sb3_contrib as c\nc.TQC.load(p)",
        "from stable_baselines3.common.vec_env import VecNormalize as V\nV.load(p, env)",
        "from stable_baselines3.common.save_util import load_from_zip_file",
    ],
)
def test_finds_what_is_banned(text):
    assert list(banned_problems(text)) != []


@pytest.mark.parametrize(
    "text",
    [
        "import pickletools",
        "model.eval()",
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import yaml\nyaml.safe_load(f)",
        "import json\njson.load(f)",
        "loader.load(path)",
        "from stable_baselines3 import PPO\nPPO('MlpPolicy', env).save(p)",
    ],
)
def test_accepts_what_is_safe(text):
    assert list(banned_problems(text)) == []


def test_no_trace_of_the_machine():
    found = []
    for path in tracked():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            found += [f"{path}:{problem}" for problem in machine_problems(data.decode("utf-8", "replace"))]
    assert found == []


@pytest.mark.parametrize("path", ["work/main", "root/.cache", "home/me/x", "Users/me"])
def test_finds_paths_of_a_machine(path):
    assert list(machine_problems(f'open("/{path}")')) != []
    assert list(machine_problems(f"https://example.com/{path}")) == []


@pytest.mark.parametrize("line", ["--index-{} https://h/simple", "--extra-index-{} x", "x @ https://files.python{}.x"])
def test_finds_where_packages_come_from(line):
    assert list(machine_problems(line.format("url" if "index" in line else "hosted"))) != []
