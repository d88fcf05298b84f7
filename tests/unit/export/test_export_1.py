"""Fails when an export that an earlier version wrote is no longer read, or no longer taken for its student."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from policykd import api

FOLDER = Path(__file__).parents[2] / "fixtures" / "export-1"
WRITTEN = {
    "onnx": "5ee1231cad0d70a5d9fb51c1a20e711ea71b148a4a3d2f6689edbf1589bb49b8",
    "c": "615a7a507cf17581b9e0ebe00f2555f79fe4bdef6cff7461a80c5e51ae2ce984",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_export_of_format_1_is_verified(name: str) -> None:
    if name == "c" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("needs a C compiler: apt-get install gcc")
    manifest = (FOLDER / name / "manifest.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == WRITTEN[name], "the fixture was written anew"
    assert api.verify(FOLDER / name, episodes=0, trust=True)["passed"]
