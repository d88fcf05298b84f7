"""Making environments from a description: registered ids, imports only when allowed, wrappers by name, factories."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from policykd.rollout.disturbance import Disturbance
from policykd.rollout.wrappers import HINT, one_line, wrap
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError, brief
from policykd.spine.packing import Packing
from policykd.spine.types import TeacherInfo
from policykd.spine.wrappers import Wrappers, imports, judged_by, parsed, seen_by, written

if TYPE_CHECKING:
    import gymnasium as gym

    AnyEnv = gym.Env[Any, Any]
    VectorEnv = gym.vector.VectorEnv[Any, Any, Any]

Backend = Literal["native", "sync", "async", "envpool"]
_FUNCTION = "function:"

_MAX_ID = 200  # looking for names that are near takes a time that grows with the square of the length


@dataclass(frozen=True)
class EnvSpec:
    """All that is needed to make the environment again, here or in another process.

    `factory`, when given, is called with render_mode and returns a single environment; `id` is then only a name.
    `masked`: the environment's `action_masks()` is asked before every action. `packing`: how its observations become
    one array, where a policy takes the entries of a Dict in another order than the environment has them.
    `disturbance`: what is done to it (`make_env` varies its parameters, `make_batch` does the rest).
    `student_wrappers`: through which the student sees it, where that is not as its teacher does, through those of
    `wrappers` that change observations (`policykd.rollout.two_views`).
    """

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: Wrappers = ()
    allow_import: bool = False
    backend: Backend = "sync"
    factory: Callable[..., Any] | None = None
    masked: bool = False
    packing: Packing | None = None
    step_timeout: float = 60.0  # seconds that a worker process of the async backend may take for a step
    disturbance: Disturbance | None = None
    student_wrappers: Wrappers = ()

    @property
    def recorded_id(self) -> str:
        """What a configuration says of it; a function cannot be written down."""
        return f"{_FUNCTION}{self.id}" if self.factory else self.id


def env_spec(
    config: EnvConfig, teacher_env: str | None = None, teacher_kwargs: dict[str, Any] | None = None
) -> EnvSpec:
    """The environment that the configuration or else the teacher names, with the backend chosen.

    Raises InputError when neither names one, when it is not registered, or when it would have to be imported.
    """
    name = config.id or teacher_env
    if name is None:
        raise InputError("the teacher names no environment: say which one with --env ID")
    if name.startswith(_FUNCTION):
        raise InputError(
            f"env {brief(name)}: it was a Python function: give it again with env=..., or name another with --env"
        )
    own = name == teacher_env  # named by the user or not: its arguments stay with it
    kwargs = dict(config.kwargs) if config.kwargs or not own else dict(teacher_kwargs or {})
    wrappers = tuple(parsed(entry) for entry in config.wrappers)
    spec = EnvSpec(name, kwargs, wrappers, config.allow_import, step_timeout=config.step_timeout)
    return replace(spec, backend=_choose_backend(spec, config.backend))


def teacher_spec(config: EnvConfig, info: TeacherInfo) -> EnvSpec:
    """The environment for a teacher: that of the configuration or else its own, in its own wrappers unless the
    configuration names some.

    InputError as in `env_spec`, and for a wrapper that only the teacher's files name and that would be imported.
    """
    if config.wrappers or not info.wrappers:
        return env_spec(config, info.env_id, info.env_kwargs)
    foreign = [name for name, _ in info.wrappers if imports(name)]
    if foreign and not config.allow_import:
        raise InputError(
            f"{info.source}: its environment is wrapped in {', '.join(foreign)}, which would be imported: add "
            "--allow-import if its package is installed and you trust it, or name other wrappers with env.wrappers"
        )
    return env_spec(config.model_copy(update={"wrappers": written(info.wrappers)}), info.env_id, info.env_kwargs)


def factory_spec(factory: Callable[..., Any], config: EnvConfig = EnvConfig()) -> EnvSpec:  # noqa: B008
    """The description of a user's own environment: a function that returns a gymnasium.Env.

    It may accept `render_mode`; without it, the environment cannot be filmed. `config.wrappers` are applied to it.
    """
    if config.kwargs:
        raise InputError("env.kwargs have no effect on an environment function: build them into it")
    name = getattr(factory, "__name__", type(factory).__name__)
    wrappers = tuple(parsed(entry) for entry in config.wrappers)
    if config.backend == "envpool":
        raise InputError(f"env.backend envpool: it has no environment function {brief(name)}; use sync or async")
    backend: Backend = "async" if config.backend == "async" else "sync"
    timeout = config.step_timeout
    return EnvSpec(name, {}, wrappers, config.allow_import, backend, factory=factory, step_timeout=timeout)


def with_views(spec: EnvSpec, student_wrappers: Wrappers, wanted: str) -> EnvSpec:
    """The environment that the student sees through wrappers of its own; `wanted` is env.backend, and `auto` becomes
    single environments. InputError for a backend without any."""
    if wanted in ("native", "envpool"):
        raise InputError(
            f"env.backend {wanted}: has no single environments, which student.wrappers need; use sync or async"
        )
    return replace(spec, student_wrappers=student_wrappers, backend="async" if wanted == "async" else "sync")


def students_own(spec: EnvSpec) -> EnvSpec:
    """The environment as the student alone sees it: worth the same, through its own wrappers."""
    if not spec.student_wrappers:
        return spec
    return replace(spec, wrappers=(*judged_by(spec.wrappers), *spec.student_wrappers), student_wrappers=())


def make_env(spec: EnvSpec, render_mode: str | None = None) -> AnyEnv:
    """One environment. Never pass a render mode while collecting: it makes some environments 9 times slower."""
    import gymnasium as gym

    if spec.factory is not None:
        env = spec.factory(render_mode=render_mode) if render_mode else spec.factory()
        if not isinstance(env, gym.Env):
            raise InputError(f"env factory {spec.id} returned {type(env).__name__}, expected a gymnasium.Env")
    else:
        entry = registered(spec)
        extra = {"render_mode": render_mode} if render_mode else {}
        try:
            with _quiet_making(entry):
                env = gym.make(spec.id, disable_env_checker=True, **{**spec.kwargs, **extra})
        except (gym.error.Error, TypeError, ValueError, AttributeError, ImportError) as error:
            raise InputError(f"env {brief(spec.id)}: cannot be made ({one_line(error)}); {HINT}") from None
    seen = _seen(env, spec)
    if spec.disturbance is None or not spec.disturbance.parameters:
        return seen
    from policykd.rollout.randomised import RandomParameters

    return RandomParameters(seen, spec.disturbance.parameters, spec.id)


def _seen(env: AnyEnv, spec: EnvSpec) -> AnyEnv:
    """The environment through its wrappers, or through those of teacher and student."""
    if not spec.student_wrappers:
        return wrap(env, spec.wrappers, spec.allow_import)
    from policykd.rollout.two_views import TwoViews

    base = wrap(env, judged_by(spec.wrappers), spec.allow_import)
    return TwoViews(base, seen_by(spec.wrappers), spec.student_wrappers, spec.allow_import)


def make_native(spec: EnvSpec, n_envs: int) -> VectorEnv:
    """The environment's own vector class."""
    import gymnasium as gym

    return gym.make_vec(spec.id, num_envs=n_envs, vectorization_mode="vector_entry_point", **spec.kwargs)


def registered(spec: EnvSpec) -> Any:
    """The registry's entry; InputError with a suggestion when there is none or when it needs a forbidden import."""
    import gymnasium as gym

    from policykd.rollout.atari import register_games
    from policykd.rollout.grids import register_grids

    if len(spec.id) > _MAX_ID:
        raise InputError(f"env {brief(spec.id)}: an id of {len(spec.id)} characters, expected at most {_MAX_ID}")
    if ":" in spec.id:
        module, _, name = spec.id.partition(":")
        if not spec.allow_import:
            raise InputError(
                f"env {brief(spec.id)}: would import the package {brief(module)}; add --allow-import if you trust it"
            )
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(
                f"env {brief(spec.id)}: cannot import {module} ({one_line(error)}); install the package"
            ) from None
    else:
        name = spec.id
        if name not in gym.registry and not (register_games(name) or register_grids(name)):
            _register_own()
    try:
        entry = gym.spec(name)
    except gym.error.Error:
        close = difflib.get_close_matches(name, list(gym.registry), n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(close)}?" if close else "is its package installed and imported?"
        raise InputError(f"env {brief(spec.id)}: not a registered environment; {hint}") from None
    if entry.entry_point is None:
        raise InputError(
            f"env {brief(spec.id)}: has only a vector class, and episodes are judged in single environments"
        )
    return entry


def _register_own() -> None:
    """Registers the environments of policykd's own wheel, by its entry point: Gymnasium, since 1.0, reads none."""
    for entry in entry_points(group="gymnasium.envs"):
        if entry.dist is not None and entry.dist.name == "policykd":
            entry.load()()


def _choose_backend(spec: EnvSpec, wanted: str) -> Backend:
    entry = registered(spec)
    plain = not spec.wrappers and not spec.kwargs
    if wanted == "auto":
        return "native" if entry.vector_entry_point and plain else "sync"
    if wanted == "native" and not (entry.vector_entry_point and not spec.wrappers):
        reason = "has no vector class of its own" if not entry.vector_entry_point else "has wrappers"
        raise InputError(f"env.backend native: {brief(spec.id)} {reason}; use env.backend=sync")
    if wanted == "envpool":
        _check_pool(spec, plain)
    chosen: dict[str, Backend] = {"native": "native", "async": "async", "envpool": "envpool"}
    return chosen.get(wanted, "sync")


def _check_pool(spec: EnvSpec, plain: bool) -> None:
    """InputError where envpool is not installed or does not have this environment as it is described."""
    from policykd.rollout.pool import pool_has

    known = pool_has(spec.id)
    if not (known and plain):
        reason = "has wrappers or kwargs" if known else "is not in it"
        raise InputError(f"env.backend envpool: {brief(spec.id)} {reason}; use env.backend=sync or async")


@contextmanager
def _quiet_making(entry: Any) -> Iterator[None]:
    """Keeps deprecations of ids and of MuJoCo's model files, which no user can mend, off the screen.

    MuJoCo would print one for every environment made, and write MUJOCO_LOG.TXT into the working folder. Its other
    warnings (unstable simulation) are not touched: they come when stepping. A warning handler in Python would be no
    alternative: an exception that reaches it ends the process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*out of date", category=DeprecationWarning)
        if "mujoco" not in str(entry.entry_point):
            yield
            return
        import mujoco

        config = getattr(mujoco, "MjLogConfig", None)  # since MuJoCo 4
        if config is None:
            yield
            return
        log = config.get()
        before = log.logto_console, log.logto_file
        log.logto_console = log.logto_file = False
        log.set()
        try:
            yield
        finally:
            log.logto_console, log.logto_file = before
            log.set()
