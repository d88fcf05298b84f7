"""Files made to attack the ONNX reader, opened in a child process that Python's audit hook watches."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.house.rules import ROOT
from tests.security.onnx_inputs import onnx_inputs


def test_every_hostile_file_is_refused_in_one_line_or_harmless(tmp_path):
    script = ROOT / "tests" / "support" / "open_onnx.py"
    done = subprocess.run(
        [sys.executable, str(script), "0"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]  # a crash of native code would end the process
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report) >= 150
    for entry in report:
        name = entry["name"]
        allowed = {"opens": ["opened"], "refused": ["refused"], "any": ["opened", "refused"]}[entry["expected"]]
        assert entry["outcome"] in allowed, entry
        assert "\n" not in entry["message"], name
        assert len(entry["message"]) < 500, name
        assert entry["seconds"] <= 2, name
        assert entry["touched"] == [], name
        assert (entry["outcome"] == "opened") == (entry["message"] == ""), name


def test_the_same_seed_gives_the_same_files():
    assert [data for _, data, _ in onnx_inputs(3)] == [data for _, data, _ in onnx_inputs(3)]
    assert [data for _, data, _ in onnx_inputs(3)] != [data for _, data, _ in onnx_inputs(4)]


def test_the_hook_sees_what_is_outside(tmp_path):
    """So that an empty `touched` means something."""
    code = (
        "import sys; from tests.support import open_onnx as o; sys.addaudithook(o.watch); n = len(o.touched);"
        "open('/etc/passwd').close(); open('x', 'w').close(); print(len(o.touched) - n)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True, check=True)  # fmt: skip
    assert int(done.stdout) >= 2
