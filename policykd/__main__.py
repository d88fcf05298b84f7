"""`python -m policykd`."""

from __future__ import annotations

import sys

from policykd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
