"""Pendulum: the built-in teacher into a compact student. `python scripts/pendulum.py [key.sub=value ...]`"""

import sys

from policykd import distill, load_config

if __name__ == "__main__":
    run = distill(load_config("pendulum", sys.argv[1:]))
    print(run)
