"""Fails when an environment that is not there is not met with a suggestion, when an import happens without leave,
when a wrapper is lost, or when a schedule misses its end points."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policykd.rollout.envs import EnvSpec, env_spec, factory_spec, make_env
from policykd.rollout.schedules import beta_schedule
from policykd.spine.config.rollout import BetaConfig
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from tests.support.core import Counting


def refused(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_ids_get_a_suggestion() -> None:
    assert "did you mean" in (message := refused(env_spec, EnvConfig(id="CartPol-v1"))) and "CartPole-v1" in message
    assert "installed" in refused(env_spec, EnvConfig(id="zzzzzzzzzzzz"))
    assert "--env" in refused(env_spec, EnvConfig())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that registers an environment when imported."""
    name = "policykd_test_package"
    code = "import gymnasium as gym\ngym.register('Imported-v0', 'tests.support.core:Counting')\n"
    code += "class Same(gym.Wrapper):\n    pass\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)
    gym.registry.pop("Imported-v0", None)


def test_nothing_is_imported_without_leave(package: str) -> None:
    assert "--allow-import" in refused(env_spec, EnvConfig(id=f"{package}:Imported-v0"))
    assert "--allow-import" in refused(make_env, EnvSpec(f"{package}:Imported-v0"))
    config = EnvConfig(id="CartPole-v1", wrappers=[f"{package}:Same"])
    assert "--allow-import" in refused(make_env, env_spec(config))
    assert package not in sys.modules
    env = make_env(env_spec(EnvConfig(id=f"{package}:Imported-v0", allow_import=True, wrappers=[f"{package}:Same"])))
    assert type(env).__name__ == "Same" and isinstance(env.unwrapped, Counting)
    assert package in sys.modules


def test_a_package_that_is_not_there() -> None:
    assert "no_such_package" in refused(env_spec, EnvConfig(id="no_such_package:X-v0", allow_import=True))
    config = EnvConfig(id="CartPole-v1", wrappers=["no_such_package:X"], allow_import=True)
    assert "no_such_package" in refused(make_env, env_spec(config))


def test_wrappers_by_name_innermost_first() -> None:
    wrappers: list[Any] = [{"TimeAwareObservation": {"flatten": True}}, "FlattenObservation"]
    spec = env_spec(EnvConfig(id="CartPole-v1", wrappers=wrappers))
    assert spec.backend == "sync", "a native vector class has no place for wrappers"
    env = make_env(spec)
    assert isinstance(env, gym.wrappers.FlattenObservation) and isinstance(env.env, gym.wrappers.TimeAwareObservation)
    assert env.observation_space.shape == (5,)
    assert "did you mean" in refused(make_env, EnvSpec("CartPole-v1", wrappers=(("FlatenObservation", {}),)))
    assert "bogus" in refused(make_env, EnvSpec("CartPole-v1", wrappers=(("FlattenObservation", {"bogus": 1}),)))
    assert "one wrapper" in refused(env_spec, EnvConfig(id="CartPole-v1", wrappers=[{"A": {}, "B": {}}]))


def test_what_is_no_wrapper_is_refused() -> None:
    assert "not a wrapper" in refused(make_env, EnvSpec("CartPole-v1", wrappers=(("vector", {}),)))


def test_keyword_arguments() -> None:
    assert make_env(EnvSpec("CartPole-v1", {"sutton_barto_reward": True})).unwrapped._sutton_barto_reward
    assert "bogus" in refused(make_env, EnvSpec("CartPole-v1", {"bogus": 1}))
    config = EnvConfig()
    assert env_spec(config, "CartPole-v1", {"sutton_barto_reward": True}).kwargs == {"sutton_barto_reward": True}
    named = EnvConfig(id="CartPole-v1")
    assert env_spec(named, "CartPole-v1", {"sutton_barto_reward": True}).kwargs == {"sutton_barto_reward": True}
    assert env_spec(named.model_copy(update={"kwargs": {"a": 1}}), "CartPole-v1", {"b": 1}).kwargs == {"a": 1}
    assert env_spec(named, "Other-v1", {"x": 1}).kwargs == {}, "the kwargs belong to the teacher's id"


def test_backend_is_chosen_once() -> None:
    assert env_spec(EnvConfig(id="CartPole-v1")).backend == "native"
    assert env_spec(EnvConfig(id="CartPole-v1", backend="sync")).backend == "sync"
    assert env_spec(EnvConfig(id="MountainCar-v0")).backend == "sync"
    assert "no vector class" in refused(env_spec, EnvConfig(id="MountainCar-v0", backend="native"))
    config = EnvConfig(id="CartPole-v1", backend="native", wrappers=["FlattenObservation"])
    assert "wrappers" in refused(env_spec, config)


def test_factory() -> None:
    assert isinstance(make_env(factory_spec(Counting)), Counting)
    assert factory_spec(Counting).id == "Counting"
    assert "int" in refused(make_env, factory_spec(lambda: 3))
    given_mode: list[Any] = []

    def own(render_mode: str | None = None) -> Counting:
        given_mode.append(render_mode)
        return Counting()

    make_env(factory_spec(own))
    make_env(factory_spec(own), "rgb_array")
    assert given_mode == [None, "rgb_array"]


@given(
    st.sampled_from(["first_round", "constant", "linear", "exponential"]),
    st.integers(1, 40),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_every_schedule_starts_at_one_and_falls(kind: Any, rounds: int, value: float, other: float) -> None:
    schedule = beta_schedule(BetaConfig(schedule=kind, value=value, final=other, decay=other), rounds)
    values = [schedule(r) for r in range(rounds)]
    assert values[0] == 1.0
    assert all(0 <= b <= a + 1e-12 <= 1 + 1e-12 for a, b in itertools.pairwise(values))


def test_schedule_end_points() -> None:
    assert [beta_schedule(BetaConfig(), 4)(r) for r in range(4)] == [1, 0, 0, 0]
    assert [beta_schedule(BetaConfig(schedule="constant", value=0.3), 3)(r) for r in range(3)] == [1, 0.3, 0.3]
    linear = beta_schedule(BetaConfig(schedule="linear", final=0.2), 5)
    assert linear(4) == pytest.approx(0.2) and linear(2) == pytest.approx(0.6)
    assert beta_schedule(BetaConfig(schedule="exponential", decay=0.5), 9)(3) == 0.125


@pytest.mark.parametrize(("distribution", "found"), [("policykd", True), ("stranger", False)])
def test_plugins_come_from_policykds_own_distribution_only(distribution, found, tmp_path, monkeypatch):
    module = f"plugin_of_{distribution}"
    about = tmp_path / f"{distribution}-9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9\n")
    (about / "entry_points.txt").write_text(f"[gymnasium.envs]\n__root__ = {module}:register\n")
    entry = "gymnasium.envs.classic_control:CartPoleEnv"
    (tmp_path / f"{module}.py").write_text(
        f"import gymnasium\n\ndef register():\n    gymnasium.register('Plugged-v0', entry_point='{entry}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        if found:
            assert make_env(EnvSpec("Plugged-v0")).reset(seed=0)[0].shape == (4,)
        else:
            assert "not a registered environment" in refused(make_env, EnvSpec("Plugged-v0"))
    finally:
        gym.registry.pop("Plugged-v0", None)
    assert (module in sys.modules) is found
