"""`python -m tests.security --count` prints the table of docs/security.md; `--write FOLDER` writes the inputs."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.security.corpus import corpus, counts, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--count", action="store_true", help="print how many inputs each category has")
    group.add_argument("--write", type=Path, metavar="FOLDER", help="write each input to a folder of its own")
    arguments = parser.parse_args()
    if arguments.count:
        print(table(counts()))
        return
    for number, entry in enumerate(corpus()):
        entry.write(arguments.write / f"{number:05}")
        print(f"{number:05} {entry.category}: {entry.name} ({entry.opener}, {entry.expect})")


if __name__ == "__main__":
    main()
