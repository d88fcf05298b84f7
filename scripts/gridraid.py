"""GridRaid: train a masked teacher on pictures unless there is one, distil it into a small CNN, export it.

`python scripts/gridraid.py [key.sub=value ...]`"""

import sys
from pathlib import Path

from policykd import distill, export, load_config, load_train_config, train_teacher

TEACHER = Path("runs/teachers/gridraid")

if __name__ == "__main__":
    if not (TEACHER / "teacher.zip").is_file():
        train_teacher(load_train_config("teachers/gridraid"), out=TEACHER)
    run = distill(load_config("gridraid", sys.argv[1:]))
    print(run)
    for written in export(run.folder, "onnx,c"):
        print(written["folder"])
