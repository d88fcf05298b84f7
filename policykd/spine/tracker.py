"""Where a run tells how it is going: one small Protocol, TensorBoard, and several trackers at once.

The stages of a distillation are baseline, then in every round collect, label, update and select, then report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from policykd.spine.files import make_folder, write_atomic

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


PICTURE_SUFFIX = ".report"  # of the event file that holds the report's picture


class Tracker(Protocol):
    """Told by the loops what happens; it never influences them."""

    def stage(
        self,
        name: str,
        *,
        round: int | None = None,  # noqa: A002
        rounds: int | None = None,
        total: int | None = None,
    ) -> None:
        """A stage begins, which ends the one before. `round` counts from 0; `total` is what `advance` adds up to."""
        ...

    def advance(self, n: int = 1) -> None:
        """`n` more of the stage's total (timesteps, updates, episodes) are done."""
        ...

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Points of curves, by name (`update/loss`), at `step`."""
        ...

    def status(self, **values: float) -> None:
        """Figures worth watching now: kl, agreement, timesteps_per_s, retention ..."""
        ...

    def note(self, line: str) -> None:
        """One line for the user."""
        ...

    def hparams(self, config: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """The configuration of the run, and the figures it ended with."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class NullTracker:
    """Listens to nothing."""

    def stage(
        self,
        name: str,
        *,
        round: int | None = None,  # noqa: A002
        rounds: int | None = None,
        total: int | None = None,
    ) -> None:
        """Nothing."""

    def advance(self, n: int = 1) -> None:
        """Nothing."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def status(self, **values: float) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    def hparams(self, config: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Prefixed:
    """Another tracker, whose curves have a prefix before their names: those of one part of a run."""

    def __init__(self, tracker: Tracker, prefix: str) -> None:
        self._tracker, self._prefix = tracker, prefix
        self.stage, self.advance, self.status = tracker.stage, tracker.advance, tracker.status
        self.note, self.hparams, self.close = tracker.note, tracker.hparams, tracker.close

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Points of this part's curves."""
        self._tracker.scalars({self._prefix + name: value for name, value in values.items()}, step)


class Fanout:
    """Tells several trackers, in order."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self.trackers = list(trackers)

    def stage(
        self,
        name: str,
        *,
        round: int | None = None,  # noqa: A002
        rounds: int | None = None,
        total: int | None = None,
    ) -> None:
        """Tell all."""
        for tracker in self.trackers:
            tracker.stage(name, round=round, rounds=rounds, total=total)

    def advance(self, n: int = 1) -> None:
        """Tell all."""
        for tracker in self.trackers:
            tracker.advance(n)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Tell all."""
        for tracker in self.trackers:
            tracker.scalars(values, step)

    def status(self, **values: float) -> None:
        """Tell all."""
        for tracker in self.trackers:
            tracker.status(**values)

    def note(self, line: str) -> None:
        """Tell all."""
        for tracker in self.trackers:
            tracker.note(line)

    def hparams(self, config: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Tell all."""
        for tracker in self.trackers:
            tracker.hparams(config, figures)

    def close(self) -> None:
        """Close all."""
        for tracker in self.trackers:
            tracker.close()


class TensorBoardTracker(NullTracker):
    """Curves, and the HPARAMS tab, as TensorBoard events in `folder`.

    `purge_step`, for a resumed run: the first step that will be written again, or that step for each prefix of names
    ({"update/": 801, "": 40961}; "" is every other name). Points of the earlier run from there on are dropped.
    """

    def __init__(self, folder: Path, *, purge_step: int | Mapping[str, int] | None = None) -> None:
        self._folder = folder
        self._opened: SummaryWriter | None = None
        if purge_step is not None:
            drop_points(folder, purge_step if isinstance(purge_step, Mapping) else {"": purge_step})

    @property
    def _writer(self) -> SummaryWriter:
        """Opened at the first point, so that a run that never started leaves no file."""
        if self._opened is None:
            from torch.utils.tensorboard import SummaryWriter

            make_folder(self._folder)
            self._opened = SummaryWriter(str(self._folder))
        return self._opened

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def hparams(self, config: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """The row of the HPARAMS tab.

        `SummaryWriter.add_hparams` opens a second run in a sub-folder; the same three records in the run's own file
        give the row the run's name and its curves.
        """
        from torch.utils.tensorboard.summary import hparams

        metrics = {name: float(value) for name, value in figures.items()}
        for summary in hparams(flat(config), metrics):
            self._writer._get_file_writer().add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, 0)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._opened is not None:
            self._opened.close()


def drop_points(folder: Path, first_step: Mapping[str, int]) -> None:
    """Rewrites the event files of `folder` without the points at or after `first_step` of the longest prefix that fits.

    SummaryWriter's own purge_step is one number for all curves, and only some of TensorBoard's readers obey it.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

    prefixes = sorted(first_step, key=len, reverse=True)

    def stands(name: str, step: int) -> bool:
        fitting = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        return fitting is None or step < first_step[fitting] or name.startswith("_hparams_")

    for path in folder.glob("events.out.tfevents.*"):
        kept = BytesIO()
        writer = RecordWriter(kept)
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            values = [value for value in event.summary.value if stands(value.tag, event.step)]
            if values or not event.summary.value:
                del event.summary.value[:]
                event.summary.value.extend(values)
                writer.write(event.SerializeToString())
        write_atomic(path, kept.getvalue())


def write_picture(folder: Path, name: str, png: bytes, size: tuple[int, int], time: float) -> None:
    """A picture for the IMAGES tab, in an event file of its own that the next one replaces.

    `size` is (width, height); `time` is what TensorBoard shows as its time, in seconds since 1970.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter

    image = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=png)
    file = BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=time, file_version="brain.Event:2").SerializeToString())
    summary = Summary(value=[Summary.Value(tag=name, image=image)])
    writer.write(Event(wall_time=time, step=0, summary=summary).SerializeToString())
    write_atomic(folder / f"events.out.tfevents.{int(time)}{PICTURE_SUFFIX}", file.getvalue())


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, int | float | str]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; numbers stay numbers, everything else becomes text."""
    result: dict[str, int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            result[prefix + key] = value
        else:
            result[prefix + key] = str(value)
    return result
