"""Adds keys that configs/cartpole.yaml names and another run configuration does not, with their default and comment.

    python scripts/dev/fill_configs.py

Every shipped configuration names every setting (tests/unit/config/test_load.py): add a new one to
configs/cartpole.yaml by hand, with its comment, and let this script carry it to the others.
"""

from __future__ import annotations

import re
from pathlib import Path

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_KEY = re.compile(r"( *)([a-z_0-9]+):")


def blocks(text: str) -> list[tuple[str, str]]:
    """(path of the key, its line) in order; a line without a key belongs to the one before it."""
    found, path = list[tuple[str, str]](), list[str]()
    for line in text.splitlines():
        match = _KEY.match(line)
        if match is None:
            found.append(("", line))
            continue
        path = [*path[: len(match[1]) // 2], match[2]]
        found.append((".".join(path), line))
    return found


def filled(model: str, text: str) -> str:
    """`text` with the lines of `model` whose keys it lacks, each behind the key that precedes it in `model`."""
    lines, known = blocks(text), {path for path, _ in blocks(text)}
    before, gap = "", list[str]()
    for path, line in blocks(model):
        if not path:
            gap.append(line)
            continue
        if path not in known:
            parent = path.rpartition(".")[0]
            within = [i for i, (p, _) in enumerate(lines) if p == before or p.startswith(before + ".")]
            place = within[-1] + 1 if within and (not parent or before.startswith(parent)) else len(lines)
            new = [("", g) for g in gap if "." not in path and not g.startswith("#")] + [(path, line)]
            lines[place:place] = new
            known.add(path)
        before, gap = path, []
    return "\n".join(line for _, line in lines) + "\n"


def main() -> None:
    """Rewrites the run configurations that lack something."""
    model = (_CONFIGS / "cartpole.yaml").read_text()
    for path in sorted(_CONFIGS.glob("*.yaml")):
        text = path.read_text()
        new = filled(model, text)
        if new != text:
            path.write_text(new)
            print(f"{path.name}: filled")


if __name__ == "__main__":
    main()
