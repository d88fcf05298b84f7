"""BipedalWalker: train a teacher unless there is one, then distil it. `python scripts/bipedalwalker.py [key=value]`"""

import sys
from pathlib import Path

from policykd import distill, load_config, load_train_config, train_teacher

TEACHER = Path("runs/teachers/bipedalwalker")

if __name__ == "__main__":
    if not (TEACHER / "teacher.zip").is_file():
        train_teacher(load_train_config("teachers/bipedalwalker"), out=TEACHER)
    run = distill(load_config("bipedalwalker", sys.argv[1:]))
    print(run)
