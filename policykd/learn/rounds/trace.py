"""What a round leaves in TensorBoard and on the progress bar. docs/tensorboard.md lists the names."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policykd.learn.rounds.states import Fresh, LearningState
from policykd.learn.setup.session import Session
from policykd.learn.updates.update import Learner, UpdateMetrics
from policykd.rollout.schedules import beta_schedule
from policykd.students.spec import MemberSpec


def trace_round(
    session: Session,
    state: LearningState,
    index: int,
    visited: dict[str, Tensor],
    metrics: list[UpdateMetrics],
    fresh: Fresh,
) -> None:
    """Scalars of one round: `update/*` over optimizer steps, all others over timesteps."""
    config, tracker = session.config, session.work.tracker
    names = member_names(state)
    for m in metrics:
        values = {} if m.learning_rate is None else {"update/learning_rate": m.learning_rate}
        values |= {f"loss/{config.loss.kind}{name}": value for name, value in zip(names, m.loss, strict=True)}
        values |= {f"update/grad_norm{name}": value for name, value in zip(names, m.grad_norm, strict=False)}
        tracker.scalars(values, m.update)
    values = {"data/states": float(len(state.dataset))}
    if len(visited["params"]):
        values["teacher/entropy"] = float(session.teacher.distribution.entropy(visited["params"][:4096]).mean())
    if config.data.dir is None:
        values |= _rollout(session, state, index)
    for beside in (state.learner.aside, state.learner.attention) if isinstance(state.learner, Learner) else ():
        for what, parts in beside.unexplained.items() if beside is not None else ():
            values |= {f"aside/{what}{name}": value for name, value in zip(names, parts.tolist(), strict=True)}
    if state.held.losses:
        values["loss/held_out"] = state.held.losses[-1]
    for curve, of_members in (("agreement/student_states", fresh.agreement), ("loss/validation", fresh.loss)):
        pairs = zip(names, of_members, strict=False)
        values |= {f"{curve}{name}": value for name, value in pairs if not np.isnan(value)}
    values |= _returns(state, visited, names, bool(fresh.agreement), int(config.rollout.n_envs))
    for name, value in zip(names, state.selection.returns.get(index, []), strict=False):
        values[f"return/select{name}"] = value
    tracker.scalars(values, state.timesteps)
    speed = {name: values[f"rollout/{name}"] for name in ("timesteps_per_s",) if f"rollout/{name}" in values}
    tracker.status(kl=min(metrics[-1].loss), **speed)
    if fresh.agreement:
        tracker.status(agreement=float(np.nanmax(fresh.agreement)))


def _rollout(session: Session, state: LearningState, index: int) -> dict[str, float]:
    r = session.config.rollout
    return {
        "rollout/beta": beta_schedule(r.beta, r.rounds)(min(index, r.rounds - 1)),
        "rollout/timesteps": state.timesteps,
        "rollout/timesteps_per_s": state.timesteps / max(session.work.seconds.get("collect", 0.0), 1e-9),
    }


def member_names(state: LearningState) -> list[str]:
    """`` for the single student of a distillation, else `/d2_w16_s0` and so on, of convolutions `/c8_d1_w32_s0`, of
    trees `/l16_s0`, and `/d2_w16_t4_s0` where members differ in their temperature; in a search the last member of a
    generation keeps its name."""
    if len(state.family) == 1 and state.session.config.search is None:
        return [""]
    return [f"/{_member_name(spec)}" for spec in state.family.specs]


def _member_name(spec: MemberSpec) -> str:
    if spec.leaves:
        return f"l{spec.leaves}_s{spec.seed}"
    maps = [f"c{spec.channels}"] if spec.channels else []
    return "_".join([*maps, f"d{spec.depth}", f"w{spec.width}", *spec.taught, f"s{spec.seed}"])


def _returns(
    state: LearningState, visited: dict[str, Tensor], names: list[str], student_driven: bool, n_envs: int
) -> dict[str, float]:
    """Mean return of the episodes that ended inside the round, of whoever drove."""
    returns, slot = visited["returns"], visited["slot"]
    if not len(returns):
        return {}
    if not student_driven:
        return {"return/rollout_teacher": float(returns.mean())}
    member = torch.from_numpy(state.driver_of_slot(n_envs))[slot]
    means = {name: returns[member == i] for i, name in enumerate(names)}
    return {f"return/rollout{name}": float(values.mean()) for name, values in means.items() if len(values)}
