"""PendulumNoVel: the built-in Pendulum teacher, which sees the speed, into a GRU that does not; then export it.

`python scripts/pendulumnovel.py [key.sub=value ...]`"""

import sys

from policykd import distill, export, load_config
from policykd.exports.bundle import Wishes
from policykd.spine.config.schema import EnvConfig

if __name__ == "__main__":
    run = distill(load_config("pendulumnovel", ["env.allow_import=true", *sys.argv[1:]]))
    print(run)
    for written in export(run.folder, "onnx,c", how=Wishes(env=EnvConfig(id="PendulumNoVel-v0"))):
        print(written["folder"])
