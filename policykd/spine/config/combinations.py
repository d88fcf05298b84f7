"""Settings of different sections that make no sense together: refused as soon as the configuration is read."""

from __future__ import annotations

from policykd.spine.config.aside import AsideConfig
from policykd.spine.config.augment import AugmentConfig
from policykd.spine.config.compress import CompressConfig
from policykd.spine.config.data import DataConfig
from policykd.spine.config.loss import LossConfig
from policykd.spine.config.robust import RobustConfig
from policykd.spine.config.rollout import BetaConfig, RolloutConfig
from policykd.spine.config.student import StudentConfig


def refuse_misfits(student: StudentConfig, data: DataConfig, loss: LossConfig, *, searching: bool) -> None:
    """Raises ValueError with the reason and the alternative."""
    if student.kind == "gru" and data.weighting not in ("auto", "none"):
        raise ValueError(
            f"data.weighting {data.weighting}: a gru learns whole sequences, whose states cannot be drawn one by one: "
            "use data.weighting=none"
        )
    if student.kind == "tree" and loss.model_copy(update={"q_temperature": "auto"}) != LossConfig():
        raise ValueError(
            "loss: a tree (student.kind tree) is grown on the teacher's actions and follows no loss: leave all of loss "
            "but loss.q_temperature as it is, or choose another student.kind"
        )
    lists = [name for name in ("temperature", "alpha") if isinstance(getattr(loss, name), list)]
    if searching and (lists or loss.adapt != "none" or loss.hard_rounds):
        name = lists[0] if lists else ("adapt" if loss.adapt != "none" else "hard_rounds")
        raise ValueError(
            f"loss.{name} {getattr(loss, name)}: a search has no rounds of its own for it, and its family differs in "
            "size alone: try it with policykd distill, and give shrink the best"
        )


def refuse_offline(data: DataConfig, rollout: RolloutConfig, robust: RobustConfig, loss: LossConfig) -> None:
    """Raises ValueError where data that lies ready is given, and settings that need somebody who acts."""
    if data.dir is None:
        return
    if rollout.beta != BetaConfig():
        raise ValueError("rollout.beta has no effect with data.dir, since nobody acts: leave one of them out")
    if robust.collect:
        raise ValueError(
            "robust.collect has no effect with data.dir, since nothing is collected: give it to policykd collect, and "
            "leave it out here"
        )
    if loss.adapt != "none":
        raise ValueError(
            f"loss.adapt {loss.adapt}: follows the agreement on states that the students visit, and with data.dir they "
            "visit none: use loss.adapt=none"
        )


def refuse_augmented_sequences(student: StudentConfig, augment: AugmentConfig, *, together: bool) -> None:
    """Raises ValueError for a student with a memory: what it remembers was made of the states that were visited; for a
    tree, and for one student of several tasks."""
    if student.kind == "tree" and augment.active:
        raise ValueError(
            "augment: a tree is fitted to the states as they are, and nothing is added to them: leave augment out, or "
            "choose another student.kind"
        )
    if student.kind == "gru" and augment.active:
        raise ValueError(
            "augment: a gru remembers what it saw, which single jittered states do not fit: use robust.noise with "
            "robust.collect, which is there while the states are visited"
        )
    if together and augment.active:
        raise ValueError("augment: one student of several tasks is not augmented: leave it out, or use one task")


def refuse_patience(data: DataConfig, loss: LossConfig, patience: int | None) -> None:
    """Raises ValueError where patience waits for what is not there, or would end a run before its last rounds."""
    if patience is not None and not data.held_out:
        raise ValueError(f"update.patience {patience}: it waits for the loss on held-out states: set data.held_out")
    if patience is not None and loss.hard_rounds:
        raise ValueError(
            f"update.patience {patience}: a run that ends early never comes to the {loss.hard_rounds} loss.hard_rounds "
            "at its end, which the held-out loss does not measure either: leave one of the two out"
        )


def refuse_held_out(student: StudentConfig, data: DataConfig, elsewhere: str | None) -> None:
    """Raises ValueError where nothing can be held out; `elsewhere` says where."""
    if student.kind == "gru":
        elsewhere = "with a gru, which learns whole sequences"
    if student.kind == "tree":
        elsewhere = "with a tree, which is fitted anew in every round"
    if data.held_out and (elsewhere or data.dir is not None):
        where = elsewhere or "with data.dir, whose states belong to no round"
        raise ValueError(f"data.held_out {data.held_out} is not there {where}: leave it out")


def refuse_compression(student: StudentConfig, compress: CompressConfig, *, several: bool) -> None:
    """Raises ValueError where nothing can be made smaller, or by a search, which makes members of other sizes."""
    if compress.prune != "none" and student.start is None:
        raise ValueError(
            f"compress.prune {compress.prune}: there is nothing to remove units from: name a wider student in "
            "student.start, or leave compress.prune out"
        )
    if compress.int8 != "none" and student.kind != "mlp":
        raise ValueError(
            f"compress.int8 {compress.int8}: only students of kind mlp have weights of 8 bits, and this is a "
            f"{student.kind}: leave compress.int8 out"
        )
    if several and (student.start is not None or compress.int8 != "none"):
        raise ValueError(
            "student.start and compress belong to a distillation of one family: a search, a chain of students and one "
            "student of several tasks make others; leave them out"
        )


def refuse_aside(student: StudentConfig, aside: AsideConfig, augment: AugmentConfig, elsewhere: str | None) -> None:
    """Raises ValueError where there is no hidden layer or map of one family to learn aside with."""
    depths = student.depth if isinstance(student.depth, list) else [student.depth]
    if aside.heads and (student.kind != "mlp" or 0 in depths):
        what = f"kind {student.kind}" if student.kind != "mlp" else "depth 0"
        other = "use aside.attention" if student.kind in ("cnn", "multi") else "leave aside out"
        raise ValueError(
            f"aside: only an mlp with hidden layers learns hints and values, and this is of {what}: {other}"
        )
    if aside.attention and student.kind not in ("cnn", "multi"):
        raise ValueError(
            f"aside.attention: compares what convolutions give, and a student of kind {student.kind} has none: use "
            "student.kind=cnn or multi, or aside.hints with an mlp"
        )
    if aside.attention and augment.shift:
        raise ValueError(
            f"augment.shift {augment.shift}: moves the image, and the teacher's attention maps stay where they were: "
            "leave one of augment.shift and aside.attention out"
        )
    if aside.active and elsewhere:
        raise ValueError(f"aside: nothing is learned aside {elsewhere}: leave it out")
    if aside.pairs is not None and max(ours for _, ours in aside.pairs) > min(depths):
        deepest = max(ours for _, ours in aside.pairs)
        raise ValueError(f"aside.pairs names the student's layer {deepest}, and it has {min(depths)}: name one of them")
