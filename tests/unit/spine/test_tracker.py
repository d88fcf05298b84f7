from __future__ import annotations

import subprocess
import sys

import pytest

from policykd.spine.errors import InputError
from policykd.spine.tracker import Fanout, NullTracker, TensorBoardTracker, Tracker, flat


class Recorder:
    """Keeps every call."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def tell(tracker: Tracker) -> None:
    tracker.stage("collect", round=0, rounds=4, total=100)
    tracker.advance(64)
    tracker.scalars({"loss": 1.0}, 5)
    tracker.status(kl=0.1)
    tracker.note("a line")
    tracker.hparams({"a": 1}, {"final": 2.0})
    tracker.close()


def test_fanout_tells_all_the_same_in_order():
    one, two = Recorder(), Recorder()
    tell(Fanout([one, two]))
    alone = Recorder()
    tell(alone)
    assert one.calls == two.calls == alone.calls


def test_null_tracker_takes_everything():
    assert tell(NullTracker()) is None


def test_flat():
    config = {"a": {"b": 1, "c": {"d": 0.5}, "e": {}}, "f": True, "g": None, "h": [1, 2], "i": "x"}
    assert flat(config) == {
        "a.b": 1,
        "a.c.d": 0.5,
        "a.e": "{}",
        "f": "True",
        "g": "None",
        "h": "[1, 2]",
        "i": "x",
    }


def points(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, round(e.value, 3)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def write(folder, steps, **kwargs):
    tracker = TensorBoardTracker(folder, **kwargs)
    for step in steps:
        tracker.scalars({"loss": step / 10, "update/lr": 1.0}, step)
        tracker.scalars({"return": 1.0}, 100 * step)
    tracker.close()


def test_curves(tmp_path):
    write(tmp_path / "run", range(3))
    assert points(tmp_path / "run")["loss"] == [(0, 0.0), (1, 0.1), (2, 0.2)]


def test_a_resumed_run_drops_what_it_writes_again(tmp_path):
    write(tmp_path, range(5))
    write(tmp_path, range(3, 6), purge_step={"": 3, "return": 300})
    found = points(tmp_path)
    assert [step for step, _ in found["loss"]] == [0, 1, 2, 3, 4, 5]
    assert [step for step, _ in found["return"]] == [0, 100, 200, 300, 400, 500]


def test_one_number_purges_all_and_a_missing_prefix_nothing(tmp_path):
    write(tmp_path / "a", range(5))
    write(tmp_path / "a", [], purge_step=2)
    assert points(tmp_path / "a") == {
        "loss": [(0, 0.0), (1, 0.1)],
        "update/lr": [(0, 1.0), (1, 1.0)],
        "return": [(0, 1.0)],
    }
    write(tmp_path / "b", range(3))
    write(tmp_path / "b", [], purge_step={"update/": 1})
    found = points(tmp_path / "b")
    assert (len(found["loss"]), len(found["update/lr"])) == (3, 1)


def test_a_file_that_a_kill_cut_short_is_kept_up_to_the_cut(tmp_path):
    write(tmp_path, range(4))
    (file,) = tmp_path.glob("events.*")
    file.write_bytes(file.read_bytes()[:-7])
    write(tmp_path, [9], purge_step=3)
    assert [step for step, _ in points(tmp_path)["loss"]] == [0, 1, 2, 9]


def test_the_hparams_row_lies_in_the_run_itself(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    tracker = TensorBoardTracker(tmp_path)
    tracker.hparams({"student": {"width": 8}, "device": "cpu"}, {"final/retention": 0.5})
    tracker.close()
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["student.width"].number_value == 8
    assert values["device"].string_value == "cpu"
    assert {"_hparams_/experiment", "_hparams_/session_end_info"} <= set(events.summary_metadata)
    assert points(tmp_path) == {"final/retention": [(0, 0.5)]}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    tracker = TensorBoardTracker(tmp_path / "file")
    with pytest.raises(InputError):
        tracker.scalars({"a": 1.0}, 0)


def test_the_module_is_light():
    probe = "import sys, policykd.spine.tracker; assert not {'torch', 'tensorboard'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True)
