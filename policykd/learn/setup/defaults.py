"""What `auto` becomes. Inputs: spaces, the teacher's network and measured episodes; never an environment's name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from policykd.learn.setup.ladder import ladder
from policykd.loss.acting import params_on
from policykd.loss.distributions import is_gaussian
from policykd.rollout.envs import EnvSpec, registered
from policykd.rollout.kernels import kernel_of
from policykd.spine.config.procedures import ProgressiveConfig
from policykd.spine.config.schema import Config
from policykd.spine.config.student import StudentConfig
from policykd.spine.device import resolve_device
from policykd.spine.errors import InputError
from policykd.spine.types import Array, TeacherInfo, TeacherPolicy
from policykd.spine.wrappers import written
from policykd.students.spec import members_of
from policykd.students.view import View

_CHANNELS = 8  # of a student's first convolution: a quarter of those of Mnih et al. 2015
_WIDTH_OF_IMAGES = 64  # of a student's layers beside or behind convolutions at most
_STEPS_PER_ROUND = 4096
_LEAST_ENVS = 4
_LEAVES = 32  # of a tree: five questions deep where it is balanced, and still a page to read
_GATE_TIMESTEPS = 400_000  # of one attempt to show that a student holds what is demanded
_GATE_LEAST, GATE_MOST = 400, 1000  # episodes of one, where gate.most_episodes is auto
_TOP_GAP = 2.0  # median gap of the two best logits of a Q-value teacher: the best action has probability 0.88 or more


@dataclass(frozen=True)
class Measured:
    """What the teacher's selection episodes showed: mean length, and some of the states it visited [K, *O]."""

    episode_length: float
    visited: Array


def resolve(config: Config, info: TeacherInfo, teacher: TeacherPolicy, spec: EnvSpec, measured: Measured) -> Config:
    """The configuration without any `auto`. Raises InputError when the values do not fit together."""
    n_inputs = View.of(config.student.keys, teacher.observation_space, teacher.packing).packing.n_features
    student = config.student
    width = student.width
    if width == "auto":
        width = default_width(n_inputs, teacher.distribution.n_means, info)
    images = student.kind in ("cnn", "multi")
    channels = (_CHANNELS if student.channels in ("auto", None) else student.channels) if images else None
    if images and student.width == "auto":
        width = min(width, _WIDTH_OF_IMAGES)
    leaves = (_LEAVES if student.leaves in ("auto", None) else student.leaves) if student.kind == "tree" else None
    width = "auto" if student.kind == "tree" else width
    student = student.model_copy(update={"width": width, "channels": channels, "leaves": leaves})
    # of a search only some members drive at a time
    drivers = 1 if config.search is None or isinstance(config.rollout.n_envs, int) else config.search.drivers
    members = len(members_of(student, config.loss)) if config.search is None else drivers
    ensemble = config.ensemble
    if ensemble.q_temperatures == "auto":  # of one teacher: `loss.q_temperature` is its own
        ensemble = ensemble.model_copy(update={"q_temperatures": [1.0]})
    update = {
        "progressive": _progressive(config, student, info, n_inputs, teacher.distribution.n_means),
        "ensemble": ensemble,
        "env": config.env.model_copy(
            update={
                "id": spec.recorded_id,
                "kwargs": dict(spec.kwargs),
                "wrappers": written(spec.wrappers),
                "backend": spec.backend,
            }
        ),
        "student": student,
        "rollout": config.rollout.model_copy(
            update={
                **_rollout(config, spec, measured, members),
                "student_stochastic": _student_stochastic(config, teacher),
                "kernel": _kernel(config, teacher),
            }
        ),
        "loss": config.loss.model_copy(update={"q_temperature": _q_temperature(config, teacher, measured)}),
        "data": config.data.model_copy(update={"weighting": _weighting(config, teacher)}),
        "update": config.update.model_copy(update={"n_updates": _n_updates(config, teacher)}),
        "gate": config.gate.model_copy(update={"most_episodes": _most_episodes(config, measured)}),
        "device": resolve_device(config.device),
    }
    return config.model_copy(update=update)


def _progressive(
    config: Config, student: StudentConfig, info: TeacherInfo, n_inputs: int, n_means: int
) -> ProgressiveConfig:
    """The students in between, by their widths. InputError where nothing is known of the teacher's size."""
    progressive = config.progressive
    if progressive.steps != "auto":
        return progressive
    if not info.footprint.params:
        raise InputError(
            f"progressive.steps auto: {info.source} does not say how many parameters it has: name the widths, such as "
            "progressive.steps=[64, 16]"
        )
    (last,) = members_of(student)

    def size(width: int) -> int:
        return replace(last, width=width).footprint(n_inputs, n_means).params

    steps = ladder(info.footprint.params, size, last.width, progressive.factor)
    return progressive.model_copy(update={"steps": steps})


def refuse_shared_seeds(config: Config, selection: int) -> None:
    """InputError where `selection` episodes that choose and those on which the gate claims would share seeds: a claim
    needs episodes that chose nothing."""
    gate, e = config.gate, config.evaluate
    if gate.keep is None:
        return
    most = max(GATE_MOST, gate.least_episodes) if gate.most_episodes == "auto" else gate.most_episodes
    attempts = 1 if config.search is None else config.search.attempts
    report = range(e.first_seed, e.first_seed + attempts * most)
    select = range(e.select_first_seed, e.select_first_seed + selection)
    for name, seeds in (("first_seed", report), ("select_first_seed", select)):
        if seeds.stop > 2**31:
            raise InputError(
                f"evaluate.{name} {seeds.start}: its last seed {seeds.stop - 1} is not below 2^31: lower it"
            )
    if report.start < select.stop and select.start < report.stop:
        raise InputError(
            f"evaluate: the seeds that choose ({select.start} to {select.stop - 1}) overlap the seeds of the gate "
            f"({report.start} to {report.stop - 1}, {attempts} x {most} episodes at most): move select_first_seed or "
            "first_seed"
        )


def default_width(n_inputs: int, n_outputs: int, info: TeacherInfo) -> int:
    """Units of each of two hidden layers: twice inputs plus outputs, at most half the teacher's widest layer,
    rounded up to a multiple of 4, at least 8."""
    widest = max((outputs for _, outputs in info.layers[:-1]), default=64)
    width = min(2 * (n_inputs + n_outputs), widest / 2)
    return max(8, 4 * int(np.ceil(width / 4)))


def _rollout(config: Config, spec: EnvSpec, measured: Measured, members: int) -> dict[str, int]:
    """Steps first, since every round starts at a reset and must see an episode end; the environments follow."""
    r = config.rollout
    per_round = r.timesteps // r.rounds if isinstance(r.timesteps, int) else _STEPS_PER_ROUND
    limit = None if spec.factory else registered(spec).max_episode_steps
    if isinstance(r.n_steps, int):
        n_steps = r.n_steps
    elif isinstance(r.n_envs, int) and isinstance(r.timesteps, int):
        n_steps = max(per_round // r.n_envs, 1)
    else:
        n_steps = int(np.ceil(1.5 * measured.episode_length))
        n_steps = min(n_steps, limit or n_steps)
        n_steps = min(n_steps, max(per_round // members, 1)) if isinstance(r.timesteps, int) else n_steps
    if isinstance(r.n_envs, int):
        n_envs = r.n_envs
    else:
        least = 1 if isinstance(r.timesteps, int) else _LEAST_ENVS
        n_envs = max(per_round // n_steps, least)
        n_envs = members * max(n_envs // members, 1)
    total = r.rounds * n_envs * n_steps
    if isinstance(r.timesteps, int) and total > r.timesteps:
        raise InputError(
            f"rollout.timesteps {r.timesteps} is less than {r.rounds} rounds x {n_envs} n_envs x {n_steps} n_steps: "
            "raise it, or lower rollout.rounds or rollout.n_steps"
        )
    if config.data.held_out and n_envs < 2:
        raise InputError(
            f"data.held_out {config.data.held_out}: one environment cannot be divided: raise rollout.n_envs"
        )
    if n_envs % members:
        raise InputError(
            f"rollout.n_envs {n_envs} does not divide among {members} members: use a multiple of {members}, or auto"
        )
    return {"n_envs": n_envs, "n_steps": n_steps, "timesteps": total}


def _most_episodes(config: Config, measured: Measured) -> int:
    """As many as cost about as much as a run, within bounds; never fewer than the least."""
    if config.gate.most_episodes != "auto":
        return config.gate.most_episodes
    fitting = int(np.clip(_GATE_TIMESTEPS / max(measured.episode_length, 1.0), _GATE_LEAST, GATE_MOST))
    return max(fitting, config.gate.least_episodes)


def _student_stochastic(config: Config, teacher: TeacherPolicy) -> bool:
    """Measured on HalfCheetah: students that sampled while collecting fall less often when judged by their mode. The
    softmax of Q-values is a scale of ours and no policy that somebody trained, so there the mode acts."""
    if config.rollout.student_stochastic != "auto":
        return config.rollout.student_stochastic
    return not (teacher.value_teacher or teacher.deterministic_teacher)


def _kernel(config: Config, teacher: TeacherPolicy) -> str:
    """NumPy where it can do the teacher, which acts beside the students or labels what they visit."""
    wanted = config.rollout.kernel
    if wanted == "torch" or (wanted == "auto" and resolve_device(config.device) != "cpu"):
        return "torch"
    possible = resolve_device(config.device) == "cpu" and kernel_of(teacher) is not None
    if wanted == "numpy" and not possible:
        raise InputError(
            "rollout.kernel numpy: it can do a teacher that is a plain MLP on vectors, without masks, on the CPU, and "
            "this one is not; use rollout.kernel=torch, or auto"
        )
    return "numpy" if possible else "torch"


def _weighting(config: Config, teacher: TeacherPolicy) -> str:
    """Measured on CartPole: trees of 16 leaves hold 90 % of the return where states are drawn by q_gap, else 67 %."""
    if config.data.weighting != "auto":
        return config.data.weighting
    return "q_gap" if config.student.kind == "tree" and not is_gaussian(teacher.distribution) else "none"


def _n_updates(config: Config, teacher: TeacherPolicy) -> int:
    """Measured on HalfCheetah: at 400 updates a round students still fall now and then, at 1000 hardly."""
    if config.update.n_updates != "auto":
        return config.update.n_updates
    return 1000 if is_gaussian(teacher.distribution) else 400


def _q_temperature(config: Config, teacher: TeacherPolicy, measured: Measured) -> float:
    """Of one teacher; those of an ensemble have one each (`policykd.learn.setup.weighing`)."""
    if config.loss.q_temperature != "auto":
        return config.loss.q_temperature
    if not teacher.value_teacher or config.ensemble.teachers:
        return 1.0
    return q_temperature(teacher, measured.visited)


def q_temperature(teacher: TeacherPolicy, visited: Array) -> float:
    """t such that the two best actions' logits Q / t differ by 2 at the median of these states [K, *O], which the
    teacher visited."""
    q = torch.cat(list(params_on(teacher, visited)))
    best = q.topk(2, -1).values
    gap = float((best[:, 0] - best[:, 1]).median())
    spread = float((q.max(-1).values - q.min(-1).values).mean())
    return max(gap / _TOP_GAP, 1e-3 * spread, 1e-8)
