"""`python -m benchmarks retention|family [--out FILE] ...`: runs a measurement and prints (or writes) its page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import family, retention

BENCHMARKS = {"retention": retention, "family": family}


def main() -> int:
    """Parses the command line and runs one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--teachers", type=Path, default=Path("../shared/teachers"), help="folder of RL-Zoo teachers")
    parser.add_argument("--only", nargs="*", default=[], help="teachers (ALGO/ENV_1) instead of the named ones")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds or repeats")
    parser.add_argument("--out", type=Path, help="write the page here as well")
    options = parser.parse_args()
    page = BENCHMARKS[options.name].measure(options)
    sys.stdout.write(page)
    if options.out is not None:
        options.out.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
