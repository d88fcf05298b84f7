"""LunarLander: the built-in teacher into a compact student. `python scripts/lunarlander.py [key.sub=value ...]`"""

import sys

from policykd import distill, load_config

if __name__ == "__main__":
    run = distill(load_config("lunarlander", sys.argv[1:]))
    print(run)
