"""The configuration: frozen, typed, each hyper-parameter documented once, where it is declared.

`auto` means: derived from spaces, the teacher's distribution and measured statistics when the run starts
(`policykd.learn.defaults`), never from an environment's name; the resolved value is saved with the run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.robust import RobustConfig
from policykd.spine.config.section import Auto, Positive, Section, Seed
from policykd.spine.config.student import StudentConfig


class EnvConfig(Section):
    """The environment; by default the one the teacher was trained in."""

    id: str | None = None
    """A registered id, or `package:Id` with `allow_import`; None takes the teacher's."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of `gymnasium.make`."""
    wrappers: list[str | dict[str, dict[str, Any]]] = []
    """Wrappers, innermost first: the name of a class of `gymnasium.wrappers`, TimeFeatureWrapper, AtariWrapper,
    StackFrames, one of minigrid.wrappers that only observes (docs/students.md), `package.module:Class` with
    `allow_import`, or {name: {keyword: value}}; none takes the teacher's."""
    allow_import: bool = False
    """Whether ids and wrappers may import a package that they name, those of the teacher's folder included."""
    backend: Literal["auto", "native", "sync", "async", "envpool"] = "auto"
    """How the environments are stepped: native (the environment's own vector class), sync (one after the other), async
    (in worker processes, one a core, which pays where a step takes long) or envpool (that package's own
    implementation, `policykd[envpool]`); auto: native where there is such a class, else sync. Episodes are judged by
    async or envpool where it is chosen, else one after the other, since a vector class has no seed for each."""
    step_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that a worker process of the async backend may take for a step before the run gives up."""


class LossConfig(Section):
    """What pulls the student to the teacher."""

    kind: Literal["forward_kl", "reverse_kl"] = "forward_kl"
    """KL(teacher || student), or KL(student || teacher)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Softening in the loss; what it multiplies follows from `convention`."""
    convention: Literal["hinton", "rusu", "untempered"] = "hinton"
    """hinton: both sides tempered, loss x temperature^2. rusu: only the teacher tempered. untempered: temperature 1."""

    q_temperature: Auto | Annotated[float, Field(gt=0)] = "auto"
    """What the Q-values of DQN and QR-DQN teachers are divided by to become logits; auto: from their spread."""

    @model_validator(mode="after")
    def _temperature_used(self) -> Self:
        if self.convention == "untempered" and self.temperature != 1.0:
            raise ValueError(
                f"temperature {self.temperature} has no effect with convention untempered: use hinton or rusu, or 1.0"
            )
        return self


class BetaConfig(Section):
    """The probability that the teacher acts, per round (Ross et al. 2011)."""

    schedule: Literal["first_round", "constant", "linear", "exponential"] = "first_round"
    """first_round: 1 in round 0, then 0. linear: from 1 to `final` over the rounds. exponential: `decay`^round."""
    value: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The probability of `constant`."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last probability of `linear`."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The base of `exponential`."""


class RolloutConfig(Section):
    """Who acts, and how much."""

    rounds: Positive = 16
    """Collect-and-fit cycles; round 0 is the teacher's."""
    timesteps: Auto | Positive = "auto"
    """Environment steps of the whole run, all environments counted."""
    n_envs: Auto | Positive = "auto"
    n_steps: Auto | Positive = "auto"
    """Steps of each environment in a round; at least one episode, since every round starts at a reset."""
    beta: BetaConfig = BetaConfig()
    teacher_stochastic: bool = True
    """Whether an acting teacher samples; one without a distribution of its own acts with `noise` instead."""
    student_stochastic: Auto | bool = "auto"
    """Whether an acting student samples, which shows it the states beside its path; auto: where the teacher has a
    distribution of its own to imitate."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Exploration of a deterministic acting teacher: standard deviation as a fraction of the action range, or the
    probability of a uniformly random discrete action."""
    kernel: Auto | Literal["numpy", "torch"] = "auto"
    """What computes actions and labels while collecting: NumPy is faster in small batches and can do plain MLPs on a
    CPU; auto: NumPy for such a teacher. It is part of the result: another one changes the last bits."""

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if not isinstance(self.timesteps, int):
            return self
        least = self.rounds * (self.n_envs if isinstance(self.n_envs, int) else 1)
        if self.timesteps < least:
            raise ValueError(
                f"timesteps {self.timesteps} is less than one step of each environment in {self.rounds} rounds "
                f"({least}): raise it, or lower rounds or n_envs"
            )
        if (
            isinstance(self.n_envs, int)
            and isinstance(self.n_steps, int)
            and self.n_envs * self.n_steps * self.rounds != self.timesteps
        ):
            raise ValueError(
                f"timesteps {self.timesteps} is not rounds x n_envs x n_steps = {self.rounds} x {self.n_envs} x "
                f"{self.n_steps} = {self.n_envs * self.n_steps * self.rounds}: leave one of them auto"
            )
        return self


class DataConfig(Section):
    """The labelled states."""

    max_states: Annotated[int, Field(ge=1000)] = 1_000_000
    """Bound of the data set; the oldest states are dropped first."""


class UpdateConfig(Section):
    """How the family is fitted to the labelled states."""

    n_updates: Auto | Positive = "auto"
    """Optimizer steps per round; auto: 400 for discrete actions, 1000 for continuous ones, which need precision."""
    batch_size: Positive = 256
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-2
    """Of Adam, in round 0; it falls linearly over all updates."""
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 1e-4
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Bound on each member's gradient norm; None for no bound."""


class EvaluateConfig(Section):
    """Returns against the teacher, and the seeds that choose nothing."""

    episodes: Annotated[int, Field(ge=2, le=1_000_000)] = 100
    """Report episodes; episode i has seed `first_seed` + i, the same for teacher, student and random policy."""
    first_seed: Seed = 10_000
    select_episodes: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    """Episodes that choose which round and member to keep, and that judge the teacher beforehand."""
    select_first_seed: Seed = 1_000_000
    deterministic: bool = True
    """Whether teacher and student act by the mode of their distribution."""

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        report = range(self.first_seed, self.first_seed + self.episodes)
        select = range(self.select_first_seed, self.select_first_seed + self.select_episodes)
        for name, seeds in (("first_seed", report), ("select_first_seed", select)):
            if seeds.stop > 2**31:
                raise ValueError(f"{name} {seeds.start}: its last seed {seeds.stop - 1} is not below 2^31: lower it")
        if report.start < select.stop and select.start < report.stop:
            raise ValueError(
                f"the seeds that choose ({select.start} to {select.stop - 1}) overlap the seeds that are reported "
                f"({report.start} to {report.stop - 1}): move select_first_seed or first_seed"
            )
        return self


class GateConfig(Section):
    """What the student must hold. Without `keep` nothing is required."""

    keep: Annotated[float, Field(gt=0, le=2)] | None = None
    """Retention that must be held: the run passes when the interval's lower end is at least keep - margin."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Slack below `keep`."""
    least_episodes: Annotated[int, Field(ge=2, le=100_000)] = 200
    """Report episodes that a pass takes at least, in the place of evaluate.episodes; a hopeless student is given up
    after half of them."""
    most_episodes: Auto | Annotated[int, Field(ge=2, le=100_000)] = "auto"
    """Where the test gives up; auto: about 400,000 timesteps, at least 400 and at most 1000 episodes."""

    @model_validator(mode="after")
    def _margin_of_something(self) -> Self:
        if self.keep is None and self.margin != GateConfig.model_fields["margin"].default:
            raise ValueError(f"margin {self.margin} has no effect without keep: set gate.keep (--keep) as well")
        if isinstance(self.most_episodes, int) and self.most_episodes < self.least_episodes:
            raise ValueError(f"most_episodes {self.most_episodes} is less than least_episodes {self.least_episodes}")
        return self


class SearchConfig(Section):
    """How `policykd shrink` looks for the smallest student that passes the gate. student.width and student.depth are
    the grid; where the width is `auto`, it goes from a linear policy (of a gru: from one number that is remembered) up
    to the teacher's own size."""

    generations: Positive = 4
    """Families that are trained one after the other at most, each nearer to the border, on one growing data set. The
    first takes rollout.rounds rounds."""
    refine_rounds: Positive = 8
    """Rounds of each later generation."""
    seeds: Positive = 3
    """Members per architecture near the border, which differ by their initial weights."""
    drivers: Positive = 6
    """Members that drive environments in a round: those nearest to the border."""
    attempts: Annotated[int, Field(ge=1, le=3)] = 3
    """Times that a student may be tried on fresh seeds; the error is split among them."""
    max_params: Positive | None = None
    """Weights and biases of the student at most."""
    max_bytes: Positive | None = None
    """Bytes of constants of the exported C at most, the normaliser's included."""
    max_us: Annotated[float, Field(gt=0)] | None = None
    """Microseconds of one action of the exported C at most, on this machine."""


class Config(Section):
    """One complete run."""

    teacher: str = "builtin:cartpole"
    """An SB3 zip, an RL-Zoo folder, a run folder of ours, `builtin:NAME`, or `hf:ORG/REPO[@COMMIT]`."""
    vec_normalize: str | None = None
    """Statistics (vecnormalize.pkl or our normalizer.json) to apply instead of those that the source brings."""
    trust: bool = False
    """Whether stable-baselines3's own loader, which runs what a file holds, may open the teacher where only the file's
    own code understands it. In a file it counts only where the user says --trust as well."""
    env: EnvConfig = EnvConfig()
    student: StudentConfig = StudentConfig()
    loss: LossConfig = LossConfig()
    rollout: RolloutConfig = RolloutConfig()
    data: DataConfig = DataConfig()
    update: UpdateConfig = UpdateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    robust: RobustConfig = RobustConfig()
    search: SearchConfig | None = None
    """Of `policykd shrink` only."""
    seed: Seed = 0
    """The root of every random number of the run."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """CPU threads of one operation. It is part of the result: another number changes the last bits."""


class TrainConfig(Section):
    """A teacher trained with stable-baselines3 or sb3-contrib."""

    env: EnvConfig
    algo: Literal[
        "ppo", "a2c", "dqn", "sac", "td3", "ddpg", "trpo", "qrdqn", "tqc", "ars", "maskable_ppo", "recurrent_ppo"
    ]
    timesteps: Positive
    n_envs: Positive = 1
    seed: Seed = 0
    device: str = "auto"
    threads: Positive = 1
    hyperparameters: dict[str, Any] = {}
    """Keyword arguments of the algorithm's class; a number may be {linear: start} for a schedule that falls to 0."""
    policy_kwargs: dict[str, Any] = {}
    """net_arch, activation_fn (by name: tanh, relu, elu), log_std_init ... of the policy."""
    normalize: bool = False
    """VecNormalize on observations and rewards; the statistics are saved beside the zip."""
    evaluate: EvaluateConfig = EvaluateConfig()
