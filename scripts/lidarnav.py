"""LidarNav: train a teacher that sees the map unless there is one, distil it into a GRU that sees lidar, export it.

`python scripts/lidarnav.py [key.sub=value ...]`"""

import sys
from pathlib import Path

from policykd import distill, export, load_config, load_train_config, train_teacher

TEACHER = Path("runs/teachers/lidarnav")

if __name__ == "__main__":
    if not (TEACHER / "teacher.zip").is_file():
        train_teacher(load_train_config("teachers/lidarnav"), out=TEACHER)
    run = distill(load_config("lidarnav", sys.argv[1:]))
    print(run)
    for written in export(run.folder, "onnx,c"):
        print(written["folder"])
