"""Nothing leaves the machine: no module of the package imports what could, but the one that downloads when asked."""

from __future__ import annotations

import pytest

from tests.house.rules import ROOT, network_problems, sources

# The one module that may download, and only a teacher that the user names (hf:...).
MAY_DOWNLOAD = "policykd/teachers/hub.py"


@pytest.mark.parametrize("path", [path for path in sources() if path.as_posix() != MAY_DOWNLOAD], ids=str)
def test_nothing_reaches_another_machine(path):
    assert list(network_problems((ROOT / path).read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import socket",
        "import http.client",
        "from urllib.request import urlopen",
        "from urllib import request",
        "import requests as r",
        "def f():\n    import huggingface_hub",
        "from torch import hub",
        "import torch.hub",
        "import importlib\nimportlib.import_module('urllib.request')",
        "__import__('socket')",
    ],
)
def test_finds_what_reaches_another_machine(text):
    assert list(network_problems(text)) != []


@pytest.mark.parametrize(
    "text", ["import json", "from torch import nn", "from policykd.teachers.hub import fetch", "f(1)"]
)
def test_accepts_what_stays(text):
    assert list(network_problems(text)) == []
