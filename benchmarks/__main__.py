"""`python -m benchmarks [NAME ...] [--out docs/benchmarks]`: measures, prints pages; exit 1 when a bound is missed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import (
    collection,
    compact,
    compress,
    envs,
    evaluation,
    examples,
    family,
    honesty,
    latency,
    memory,
    methods,
    peers,
    retention,
    shrink,
    updates,
    warm_start,
)

BENCHMARKS = {
    "retention": retention,
    "family": family,
    "latency": latency,
    "collection": collection,
    "evaluation": evaluation,
    "envs": envs,
    "compact": compact,
    "compress": compress,
    "warm_start": warm_start,
    "methods": methods,
    "examples": examples,
    "memory": memory,
    "honesty": honesty,
    "shrink": shrink,
    "updates": updates,
    "peers": peers,
}


def main() -> int:
    """Parses the command line and runs the benchmarks asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; all without a name")
    parser.add_argument("--teachers", type=Path, default=Path("../shared/teachers"), help="folder of RL-Zoo teachers")
    parser.add_argument("--only", nargs="*", default=[], help="teachers (ALGO/ENV_1) instead of all")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds or repeats")
    parser.add_argument("--repeats", type=int, default=200, help="simulated searches of each kind (honesty)")
    parser.add_argument("--search", action="store_true", help="search every side's settings first (peers; an hour)")
    venvs = Path.home() / ".cache" / "policykd"
    parser.add_argument("--venvs", type=Path, default=venvs, help="where environments of others are made (peers)")
    parser.add_argument("--out", type=Path, help="a folder for the pages")
    options = parser.parse_args()
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: expected {' or '.join(BENCHMARKS)}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    good = True
    for name in options.names or BENCHMARKS:
        page, met = BENCHMARKS[name].measure(options)
        good = good and met
        sys.stdout.write(page)
        if options.out is not None:
            (options.out / f"{name}.md").write_text(page, "utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
