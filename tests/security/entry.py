"""What a hostile input is: the files, the one that is opened and by whom, and what must come of it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Expect = Literal["refused", "harmless", "either"]
Opener = Literal["teacher", "teacher+statistics", "normalizer", "student", "config", "train config", "export"]

FIXTURES = Path(__file__).parents[1] / "fixtures"
HOSTILE, STUDENTS = FIXTURES / "hostile", FIXTURES / "artifact-1"


@dataclass(frozen=True)
class Large:
    """A file of `size` bytes that begins with `head` and is a hole behind it: it takes no room on the disk."""

    size: int
    head: bytes = b""


@dataclass(frozen=True)
class Entry:
    """One hostile input.

    `category` is the row of the table in docs/security.md; `files` lie in a folder of their own; `opened` is what the
    opener gets (a file, or "." for the folder). `expect`: refused (InputError that names a file, one line), harmless
    (read, finite, with the shapes and spaces of the base `like`), either (one of the two, but finite where read).
    """

    category: str
    name: str
    opener: Opener
    files: Mapping[str, bytes | Large]
    opened: str
    expect: Expect
    like: str = ""

    def write(self, folder: Path) -> None:
        """The files, in `folder`."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(content.head if isinstance(content, Large) else content)
                if isinstance(content, Large):
                    file.truncate(content.size)


Entries = Iterator[Entry]
Maker = Callable[[], Entries]


def unzipped(data: bytes) -> dict[str, bytes]:
    """The members of a zip by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with right checksums; equal content gives equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compresslevel=1) as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, data, method, 1)
    return buffer.getvalue()


def flips(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` copies with one to three flipped bits each."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 1 + int(rng.integers(3))):
            changed[at] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


def cuts(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` proper prefixes; the shortest is empty, the longest lacks one byte."""
    rng = np.random.default_rng(seed)
    for end in [0, len(data) - 1, *rng.integers(1, len(data) - 1, count - 2)]:
        yield data[: int(end)]


def base(name: str) -> bytes:
    """A valid input, as SB3 or an earlier policykd wrote it."""
    return (HOSTILE / name if (HOSTILE / name).is_file() else STUDENTS / name).read_bytes()


def paths(document: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document, the sections themselves included."""
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(document, dict):
        items = iter(document.items())
    elif isinstance(document, list):
        items = iter(enumerate(document))
    for key, value in items:
        yield (*above, key)
        yield from paths(value, (*above, key))


def replaced(document: Any, way: tuple[Any, ...], raw: str) -> str:
    """The document as JSON text with the value at `way` replaced by the text `raw` (which need not be JSON)."""
    copy = json.loads(json.dumps(document))
    target = copy
    for key in way[:-1]:
        target = target[key]
    target[way[-1]] = "@HERE@"
    return json.dumps(copy).replace('"@HERE@"', raw)


# JSON texts that a reader may trip over: kinds, sizes, depths, and numbers that Python or numpy treat specially
JSON_VALUES = {
    "null": "null", "true": "true", "minus one": "-1", "zero": "0", "half": "0.5", "2^31": str(2**31),
    "2^63": str(2**63), "4000 digits": "9" * 4000, "5000 digits": "9" * 5000, "1e999": "1e999", "NaN": "NaN",
    "-Infinity": "-Infinity", "empty text": '""', "text": '"x"', "code": '"__import__(\'os\').getpid()"',
    "lines": '"a\\nb\\r\\nc\\u2028d\\u001b[2J"', "long text": '"' + "x" * 200_000 + '"', "NUL": '"\\u0000"',
    "empty list": "[]", "empty object": "{}", "list of null": "[null]", "list of text": '["x", 3]',
    "text times a number": '["ab", 900000000]', "list times a number": "[[1], 900000000]",
    "many nines": "[" + "9," * 200_000 + "9]", "petabytes": f"[{2**50}]", "long sizes": "[" + "9" * 4000 + "," + "9" * 4000 + "]",
    "deep list": "[" * 400 + "]" * 400, "deep object": '{"a":' * 400 + "1" + "}" * 400, "surrogate": '"\\ud800"',
    "deep space": '{"type":"Dict","spaces":{"a":' * 300 + '{"type":"Discrete","n":2,"start":0}' + "}}" * 300,
}  # fmt: skip
