from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from policykd.spine.config.load import (
    OPTIONS,
    find_config,
    load_config,
    load_train_config,
    resolved_yaml,
    shipped_folder,
    shipped_names,
)
from policykd.spine.config.messages import dotted_paths
from policykd.spine.config.schema import Config, TrainConfig
from policykd.spine.errors import ConfigError, InputError

WIDTH = "auto, a whole number from 1 to 4096 or a list of whole numbers from 1 to 4096"
DEPTH = "a whole number from 0 to 8 or a list of whole numbers from 0 to 8"


def problems(overrides=(), cli=None, source=None, load=load_config):
    with pytest.raises(ConfigError) as caught:
        load(source, overrides, cli or {})
    assert not [line for line in caught.value.problems if "\n" in line]
    return caught.value.problems


def the_problem(*overrides, **cli):
    (line,) = problems(overrides, cli)
    return line


def written(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return str(path)


def test_nothing_given_means_the_defaults():
    assert load_config(None, [], {}) == Config()


def test_later_wins(tmp_path):
    file = written(tmp_path, "seed: 1\nteacher: a.zip\nstudent: {width: 8, depth: 1}\n")
    config = load_config(file, ["seed=2", "student.width=[4, 16]"], {"seed": 3, "teacher": None})
    assert (config.seed, config.teacher, config.student.width, config.student.depth) == (3, "a.zip", [4, 16], 1)


def test_overrides_are_yaml():
    config = load_config(
        None,
        [
            "update.learning_rate=1e-3",
            "update.max_grad_norm=1",
            "env.kwargs.gravity=-5",
            "gate.keep=null",
            "env.id=X-v1",
        ],
        {},
    )
    assert config.update.learning_rate == 0.001
    assert config.update.max_grad_norm == 1.0
    assert config.env.kwargs == {"gravity": -5}
    assert config.env.id == "X-v1"


def test_a_mapping_is_merged_into_a_section_and_replaces_free_keys(tmp_path):
    file = written(tmp_path, "loss: {kind: reverse_kl}\nenv: {kwargs: {a: 1}}\n")
    config = load_config(file, ["loss={temperature: 2.0}", "env.kwargs={b: 2}"], {})
    assert (config.loss.kind, config.loss.temperature, config.env.kwargs) == ("reverse_kl", 2.0, {"b": 2})


def test_options_set_their_keys():
    cli = {"teacher": "t", "env": "E-v1", "allow_import": True, "seed": 5, "device": "cpu", "keep": 0.9, "margin": 0.1}
    config = load_config(None, [], {**cli, "deterministic": False})
    assert (config.teacher, config.env.id, config.env.allow_import, config.seed) == ("t", "E-v1", True, 5)
    assert (config.device, config.gate.keep, config.gate.margin) == ("cpu", 0.9, 0.1)
    assert config.evaluate.deterministic is False
    assert set(OPTIONS.values()) <= set(dotted_paths(Config))


def test_an_emptied_section_means_its_defaults(tmp_path):
    assert load_config(written(tmp_path, "student:\n  # width: 3\nseed: 4\n"), [], {}) == Config(seed=4)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("student.width=x", f"student.width: found the text 'x', expected {WIDTH}"),
        ("student.width=[8, 0]", f"student.width: found [8, 0], expected {WIDTH}"),
        ("student.depth=99", f"student.depth: found 99, expected {DEPTH}"),
        ("student.activation=gelu", "student.activation: found the text 'gelu', expected tanh or relu"),
        ("student.seeds='3'", "student.seeds: found the text '3', expected a whole number at least 1"),
        ("seed=-1", "seed: found -1, expected a whole number at least 0 and below 2147483648"),
        ("seed=true", "seed: found true, expected a whole number at least 0 and below 2147483648"),
        ("teacher=5", "teacher: found 5, expected text"),
        (
            "loss.temperature=.inf",
            "loss.temperature: found inf, expected a finite number above 0 or a list of numbers above 0",
        ),
        ("gate.keep=5", "gate.keep: found 5, expected a number above 0 and at most 2 or null"),
        ("env.allow_import=yes", "env.allow_import: found the text 'yes', expected true or false"),
        ("env.wrappers=[3]", "env.wrappers: found [3], expected a list of texts or mappings of keys"),
        ("env.backend=null", "env.backend: found null, expected auto, native, sync, async or envpool"),
        ("rollout.beta=0.5", "rollout.beta: found 0.5, expected a section with the keys schedule, value, final, decay"),
    ],
)
def test_one_plain_line_for_a_wrong_value(override, line):
    assert the_problem(override) == line


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("student.widht=8", "did you mean student.width?"),
        ("rollout.n_env=8", "did you mean rollout.n_envs?"),
        ("studnt.width=8", "did you mean student?"),
        ("width=8", "did you mean student.width?"),
        ("learning_rat=1", "did you mean update.learning_rate?"),
        ("evaluate.n_updates=7", "did you mean update.n_updates?"),
        ("kind=mlp", "did you mean student.kind or loss.kind?"),
        ("data.zzz=1", "data has the keys dir, max_states"),
        ("zzz=1", "the configuration has the keys teacher, vec_normalize, trust, ensemble, env"),
    ],
)
def test_an_unknown_key_gets_a_suggestion(override, hint):
    line = the_problem(override)
    assert "unknown key; " in line
    assert hint in line


def test_all_mistakes_at_once_each_with_its_source(tmp_path):
    file = written(tmp_path, "teacher: 5\nstudent: {widht: 3, depth: x}\n")
    flow = "expected ',' or ']', but got '<stream end>' (while parsing a flow sequence)"
    assert problems(["lr=[1", "foo.zip", "seed=-1", "student.kind.x=1"], {"keep": 7.0}, file) == [
        f"lr=[1: not readable as YAML: line 1, column 3: {flow}",
        "'foo.zip' is not an override: write key.sub=value (a teacher goes after --teacher)",
        f"{file}: teacher: found 5, expected text",
        "student.kind: found {'x': 1}, expected mlp, linear, gru, cnn or multi",
        f"{file}: student.depth: found the text 'x', expected {DEPTH}",
        f"{file}: student.widht: unknown key; did you mean student.width?",
        "--keep: found 7.0, expected a number above 0 and at most 2 or null",
        "seed: found -1, expected a whole number at least 0 and below 2147483648",
    ]


def test_an_override_below_a_value_is_refused(tmp_path):
    file = written(tmp_path, "student: {width: 8}\n")
    assert problems(["student.width.x=3"], source=file) == [
        "student.width.x: student.width is a value (8), not a section: set student.width itself"
    ]


def test_impossible_combinations():
    assert the_problem("loss={convention: untempered, temperature: 2.0}").startswith(
        "loss: temperature 2.0 has no effect"
    )
    assert "overlap" in the_problem("evaluate.select_first_seed=10050")
    assert the_problem("rollout.timesteps=3").startswith("rollout: timesteps 3 is less than")


def test_a_linear_student_is_an_mlp_without_hidden_layers():
    config = load_config(None, ["student.kind=linear"], {})
    assert (config.student.kind, config.student.depth) == ("mlp", [0])
    assert the_problem("student.kind=linear", "student.width=8").startswith("student: width 8: a linear student has no")
    assert the_problem("student.kind=linear", "student.depth=2").endswith("or set it to 0 where a file names it")
    assert load_config("cartpole", ["student.kind=linear", "student.depth=0"], {}).student.depth == [0]


def test_students_of_images_have_defaults_of_their_own():
    student = load_config(None, ["student.kind=cnn"], {}).student
    assert (student.depth, student.activation, student.channels) == (1, "relu", "auto")
    assert load_config(None, ["student.kind=multi", "student.depth=2", "student.channels=[4,8]"], {}).student.depth == 2
    assert the_problem("student.channels=8").startswith("student: channels 8 has no effect on students of kind mlp")
    assert the_problem("student.kind=gru", "student.conv=impala").endswith("or set it to nature where a file names it")


def test_long_values_are_cut():
    assert len(the_problem("student.activation=" + "x" * 5000)) < 150


def test_train_configurations():
    lines = problems(load=load_train_config)
    assert [line.split(":")[0] for line in lines] == ["env", "algo", "timesteps"]
    assert "missing; expected ppo, a2c" in lines[1]


def test_the_other_command_is_named(tmp_path):
    file = written(tmp_path, "algo: ppo\n")
    with pytest.raises(InputError, match="configuration of `policykd train`"):
        load_config(file, [], {})
    with pytest.raises(InputError, match="configuration of `policykd distill`"):
        load_train_config(written(tmp_path, "teacher: x\n"), [], {})


def test_names_of_shipped_configurations(tmp_path, monkeypatch):
    assert {"cartpole", "lunarlander", "pendulum", "bipedalwalker", "halfcheetah", "teachers/cartpole"} <= set(
        shipped_names()
    )
    assert find_config("cartpole") == shipped_folder() / "cartpole.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cartpole").mkdir()  # a folder of that name is no file
    assert find_config("cartpole") == shipped_folder() / "cartpole.yaml"
    (tmp_path / "lunarlander").write_text("")  # a file of that name is
    assert find_config("lunarlander") == Path("lunarlander")


@pytest.mark.parametrize("name", ["carpole", "../cartpole", "/etc/none", "", ".", "teachers"])
def test_what_is_no_configuration(name):
    with pytest.raises(InputError, match=f"^--config {re.escape(name)}: "):
        find_config(name)


def test_an_installed_package_holds_its_configurations(tmp_path, monkeypatch):
    import policykd.spine.config.load as module

    inside = tmp_path / "policykd" / "configs" / "teachers"
    inside.mkdir(parents=True)
    (inside / "x.yaml").write_text("")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "policykd/spine/config/load.py"))
    assert shipped_names() == ["teachers/x"]


def test_the_resolved_configuration_is_read_back(tmp_path):
    config = load_config(None, ["student.width=[4, 8]", "env.kwargs={a: '1e-3', b: on}", "gate.keep=0.9"], {})
    text = resolved_yaml(config)
    assert load_config(written(tmp_path, text), [], {}) == config
    assert list(yaml.safe_load(text)) == list(Config.model_fields)


def _paths(data, prefix=()):
    for key, value in data.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from _paths(value, (*prefix, key))


@pytest.mark.parametrize("name", [name for name in shipped_names() if "/" not in name])
def test_shipped_runs_are_valid_and_complete(name):
    load_config(name, [], {})
    null = {"search", "collect", "tune"}  # sections that may be null
    known = {path for path in dotted_paths(Config) if path[0] not in null}
    own = {path for path in _paths(yaml.safe_load(find_config(name).read_text())) if path[:2] != ("env", "kwargs")}
    assert own == (known | {(name,) for name in null}) - {("env", "kwargs")}


@pytest.mark.parametrize("name", [name for name in shipped_names() if name.startswith("teachers/")])
def test_shipped_teachers_are_valid(name):
    assert isinstance(load_train_config(name, [], {}), TrainConfig)


def test_a_file_alone_may_not_allow_imports(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("teacher: t.zip\nenv: {id: 'package:X-v0', allow_import: true}\n")
    with pytest.raises(InputError, match=r"c\.yaml: env\.allow_import: true .*add --allow-import"):
        load_config(str(path))
    assert load_config(str(path), [], {"allow_import": True}).env.allow_import
    assert load_config(str(path), ["env.allow_import=true"]).env.allow_import
    assert load_config(str(path), vouched=True).env.allow_import
