"""Folders of `policykd export`: hostile values in the manifest, damage in the vectors with a hash that fits."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.security.entry import JSON_VALUES, STUDENTS, Entries, Entry, Expect, cuts, flips, paths, replaced

_SHORT = ("null", "minus one", "2^63", "1e999", "NaN", "lines", "empty list", "empty object", "text times a number",
          "code", "long text", "deep list", "4000 digits", "surrogate")  # fmt: skip
_VECTORS = "vectors.safetensors"
LIKE = "export"


@cache
def whole() -> dict[str, bytes]:
    """The files of an export that is as it was written, but for the model itself, which is not opened here."""
    from policykd import api, load_student
    from policykd.exports.bundle import Wishes

    student = load_student(sorted(STUDENTS.glob("*.safetensors"))[0])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "out"
        api.export(student, "onnx", folder, how=Wishes(vectors="synthetic", verify=False, episodes=0))
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def export_entry(category: str, name: str, changed: dict[str, bytes], expect: Expect) -> Entry:
    """The folder with some files changed; hashes fit, but for those of a manifest that is given."""
    files = {**whole(), **changed}
    if "manifest.json" not in changed:
        document = json.loads(files["manifest.json"])
        document["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in document["files"]}
        files["manifest.json"] = json.dumps(document).encode()
    return Entry(category, name, "export", files, ".", expect, LIKE if expect == "harmless" else "")


def manifests() -> Entries:
    """Hostile values at every place, names that leave the folder, damage."""
    raw = whole()["manifest.json"]
    document: dict[str, Any] = json.loads(raw)
    for way in paths(document):
        if way[0] in ("provenance", "spaces", "units", "size"):
            continue
        for label in _SHORT:
            text = replaced(document, way, JSON_VALUES[label]).encode("utf-8", "surrogatepass")
            name = f"{'.'.join(map(str, way))} is {label}"
            yield export_entry("Export: manifests", name, {"manifest.json": text}, "either")
    for name in ("../x", "/etc/passwd", "a/../../x", "..", "", ".", "a\\..\\x", "\x00", "x" * 5000, "manifest.json"):
        text = json.dumps({**document, "files": {**document["files"], name: "0" * 64}}).encode()
        yield export_entry("Export: manifests", f"a file {name[:20]!r}", {"manifest.json": text}, "refused")
    for number, text in enumerate([*flips(raw, 60, 95), *cuts(raw, 20, 96)]):
        yield export_entry("Export: manifests", f"damage {number}", {"manifest.json": text}, "either")


def vectors() -> Entries:
    """Flipped and cut vectors, hashed anew."""
    raw = whole()[_VECTORS]
    for number, data in enumerate(flips(raw[:1200], 80, 97)):
        yield export_entry("Export: vectors", f"flipped {number}", {_VECTORS: data + raw[1200:]}, "either")
    for number, data in enumerate(cuts(raw, 30, 98)):
        yield export_entry("Export: vectors", f"cut {number}", {_VECTORS: data}, "refused")


MAKERS = (manifests, vectors)
