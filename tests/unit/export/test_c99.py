from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

import policykd.exports
from policykd.exports.c.arithmetic import TANH
from policykd.exports.c.layout import Layout, identifier
from policykd.exports.c.selftest import SelfTest, write_selftest
from policykd.exports.c.text import literal
from policykd.exports.graph import Feed
from policykd.exports.interface import interface_of
from policykd.exports.of_student import graph_of
from policykd.exports.reference import margins, run
from policykd.exports.targets import c99
from policykd.exports.targets.table import Options
from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from tests.support.core import student
from tests.support.export_cases import CASES, assert_equal, feed_of, on_space, read_back, tolerance

STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2")
SANE = ("-g", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
CORTEX = Path(policykd.exports.__file__).parent / "embedded" / "cortex_m"
M4F = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
SOME = ("squashed-noise", "multi-masked-noise", "bernoulli-masked", "gaussian-nested", "deep", "image")
MAIN = """
#include "policy.h"
#include <stdio.h>
#include <string.h>
static policy_input input;
static policy_output output;
int main(void)
{
    const int wrong = policy_selftest();
    int i;
    for (i = 0; i < 256; ++i) { /* any bits: NaN, negative choices, masks that are neither 0 nor 1 */
        memset(&input, i, sizeof input);
        policy_act(&input, &output);
    }
    if (wrong) printf("vector %d\\n", wrong);
    return wrong != 0;
}
"""


def tool(name: str, package: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not here: apt-get install {package}")
    return name


def sh(*command: str | Path, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def written(name: str, folder: Path, n: int = 64) -> tuple:
    """The case's files with a self-test, its graph, feed and facts."""
    case = CASES[name]
    graph, feed = case.graph, feed_of(case, n)
    c99.check(graph, Options())
    facts = c99.write(graph, folder, Options())
    exact = run(graph, feed)
    if graph.head.kind == "numbers":
        tolerated = SelfTest(feed, exact.action, atol=np.reshape(tolerance(graph, feed).max(0), -1))
    else:
        logits = exact.outputs + (feed.noise if graph.stochastic else 0)
        tolerated = SelfTest(feed, exact.action, margin=margins(graph, logits), min_margin=1e-4)
    write_selftest(graph, tolerated, folder)
    return graph, feed, facts


@pytest.mark.parametrize("name", CASES)
def test_compiled_c_is_the_reference(name, tmp_path):
    case = CASES[name]
    graph, feed = case.graph, feed_of(case)
    c99.check(graph, Options())
    facts = c99.write(graph, tmp_path, Options())
    found = c99.load(tmp_path, read_back(graph), facts)(feed)
    assert_equal(graph, feed, found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.c", "policy.h"]


def test_ties_take_the_first(tmp_path):
    case = CASES["multi"]
    weight, bias = case.student.layers[-1]
    tied = replace(case, student=replace(case.student, layers=(*case.student.layers[:-1], (weight * 0, bias * 0))))
    c99.write(tied.graph, tmp_path, Options())
    feed = feed_of(tied, 8)
    found = c99.load(tmp_path, interface_of(tied.graph), {})(feed)
    np.testing.assert_array_equal(found["action"], run(tied.graph, feed).action)


@pytest.mark.parametrize("family", ["categorical", "squashed"])
def test_no_worse_than_four_times_torch(family, tmp_path):
    made = on_space(spaces.Box(-3, 3, (6000,), np.float32), family, hidden=(16, 16))  # many numbers in one sum
    made = replace(made, layers=tuple((w / len(w) ** 0.5, b) for w, b in made.layers))
    graph = graph_of(made, with_distribution=True)
    observations = np.random.default_rng(0).uniform(-3, 3, (200, 6000)).astype(np.float32)
    feed = Feed((observations,))
    c99.write(graph, tmp_path, Options())
    exact = run(graph, feed).outputs
    torches = made.distribution_params(torch.from_numpy(observations)).numpy()[:, : exact.shape[1]]
    ours = c99.load(tmp_path, interface_of(graph), {})(feed)[graph.distribution_names[0]]
    assert np.abs(ours - exact).max() <= 4 * np.abs(torches - exact).max()


@pytest.mark.parametrize("name", CASES)
def test_no_warning_in_c_and_in_cpp(name, tmp_path):
    written(name, tmp_path, 8)
    files = ("policy.c", "policy_selftest.c")
    for compiler in ("gcc", "clang"):
        tool(compiler, compiler)
        for more in ([], ["-DPOLICY_NO_MATH_H"]) if name in SOME else ([],):
            sh(compiler, "-std=c99", "-pedantic", *STRICT, *more, "-c", *files, cwd=tmp_path)
            sh(compiler, "-x", "c++", "-std=c++11", *STRICT, "-Wshadow", "-fsyntax-only", *more, *files, cwd=tmp_path)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("more", [(), ("-DPOLICY_NO_MATH_H",)], ids=["math.h", "no-math.h"])
@pytest.mark.parametrize("name", SOME)
def test_self_test_passes_under_sanitizers(name, compiler, more, tmp_path):
    tool(compiler, compiler)
    written(name, tmp_path)
    (tmp_path / "main.c").write_text(MAIN)
    files = ("main.c", "policy.c", "policy_selftest.c")
    libraries = () if more else ("-lm",)
    sh(compiler, "-std=c99", "-O1", *SANE, *more, *files, "-o", "a.out", *libraries, cwd=tmp_path)
    assert sh("./a.out", cwd=tmp_path) == ""


def test_self_test_names_the_first_wrong_vector(tmp_path):
    for name in ("squashed", "categorical"):
        _, feed, _ = written(name, tmp_path)
        (tmp_path / "main.c").write_text(MAIN)
        graph = CASES[name].graph
        action = np.array(run(graph, feed).action)
        action[[5, 9]] += 1 if action.dtype.kind == "i" else 0.01
        write_selftest(graph, SelfTest(feed, action, atol=1e-4, rtol=1e-4), tmp_path)
        sh("cc", "-std=c99", "main.c", "policy.c", "policy_selftest.c", "-o", "a.out", "-lm", cwd=tmp_path)
        assert sh("./a.out", cwd=tmp_path, code=1) == "vector 6\n"


def on_cortex_m4f(folder: Path, *more: str, code: int = 0) -> None:
    """Builds the self-test of that folder and runs it in an emulated Cortex-M4F, which leaves with `code`."""
    gcc = tool("arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi")
    qemu = tool("qemu-system-arm", "qemu-system-arm")
    files = ("policy.c", "policy_selftest.c", CORTEX / "main.c", CORTEX / "startup.c")
    flags = ("-std=c99", *M4F, *STRICT, "-ffunction-sections", "-Wl,--gc-sections", "-nostartfiles", f"-I{folder}")
    link = ("-T", CORTEX / "link.ld", "-o", "policy.elf", *(() if more else ("-lm",)))
    sh(gcc, *flags, *more, *files, *link, cwd=folder)
    machine = ("-machine", "mps2-an386", "-cpu", "cortex-m4", "-nographic", "-monitor", "none", "-serial", "none")
    sh(qemu, *machine, "-semihosting-config", "enable=on,target=native", "-kernel", "policy.elf", cwd=folder, code=code)


@pytest.mark.parametrize("more", [(), ("-DPOLICY_NO_MATH_H",)], ids=["math.h", "no-math.h"])
@pytest.mark.parametrize("name", SOME)
def test_cortex_m4f_under_qemu(name, more, tmp_path):
    written(name, tmp_path, 16)
    on_cortex_m4f(tmp_path, *more)


@pytest.mark.parametrize("name", ["squashed", "categorical"])
def test_cortex_m4f_finds_a_wrong_vector(name, tmp_path):
    written(name, tmp_path, 16)
    graph, feed = CASES[name].graph, feed_of(CASES[name], 16)
    action = np.array(run(graph, feed).action)
    action[6] += 1
    write_selftest(graph, SelfTest(feed, action, atol=1e-4, rtol=1e-4), tmp_path)
    on_cortex_m4f(tmp_path, code=7)


@pytest.mark.parametrize("more", [(), ("-DPOLICY_NO_MATH_H",)], ids=["math.h", "no-math.h"])
@pytest.mark.parametrize("family", ["categorical", "bernoulli", "gaussian"])
def test_noise_from_uniform_numbers(family, more, tmp_path):
    graph = graph_of(student(family), stochastic=True)
    c99.write(graph, tmp_path, Options())
    sh("cc", "-std=c99", "-O2", *more, "-shared", "-fPIC", "policy.c", "-o", "noise.so", "-lm", cwd=tmp_path)
    library = ctypes.CDLL(str(tmp_path / "noise.so"))
    library.policy_noise.restype, library.policy_noise.argtypes = ctypes.c_float, [ctypes.c_float]
    law = {"gumbel": stats.gumbel_r, "logistic": stats.logistic, "normal": stats.norm}[graph.head.law]
    uniform = np.concatenate([np.linspace(0.001, 0.999, 999), [1e-7, 1e-4, 0.9999, 1 - 2.0**-23]]).astype(np.float32)
    found = np.array([library.policy_noise(u) for u in uniform])
    np.testing.assert_allclose(found, law.ppf(uniform.astype(np.float64)), rtol=2e-6, atol=4e-7)
    assert np.isfinite([library.policy_noise(u) for u in (0.0, 1.0, -1.0, 2.0)]).all()


def test_own_tanh_is_exact_to_the_last_place(tmp_path):
    batch = "void many(int n, const float *x, float *y) { for (int i = 0; i < n; ++i) y[i] = policy_tanh(x[i]); }"
    (tmp_path / "tanh.c").write_text(TANH + batch)
    sh("cc", "-std=c99", "-O2", "-shared", "-fPIC", "tanh.c", "-o", "tanh.so", cwd=tmp_path)
    bits = np.arange(0x33000000, 0x41300000, 37, np.uint32)  # 3e-8 to 11
    x = np.concatenate([bits.view(np.float32), [0.0, 1e-45, 1e-38, 3e38, np.inf]]).astype(np.float32)
    x = np.concatenate([x, -x])
    y = np.empty_like(x)
    pointer = ctypes.POINTER(ctypes.c_float)
    ctypes.CDLL(str(tmp_path / "tanh.so")).many(len(x), x.ctypes.data_as(pointer), y.ctypes.data_as(pointer))
    exact = np.tanh(x.astype(np.float64))
    places = np.abs(y - exact) / np.spacing(np.abs(exact).astype(np.float32))
    assert places.max() < 2.0
    assert np.abs(y).max() <= 1.0


@pytest.mark.parametrize("name", ["categorical-masked", "multi-masked", "bernoulli-masked"])
def test_a_mask_that_allows_nothing_is_told(name, tmp_path):
    case = CASES[name]
    feed = feed_of(case, 8)
    c99.write(case.graph, tmp_path, Options())
    runtime = c99.load(tmp_path, interface_of(case.graph), {})
    runtime(feed)
    feed.mask[3, -2:] = False
    feed.mask[3, :-2] &= name != "categorical-masked"
    feed.mask[3, -3:] &= name != "multi-masked"
    with pytest.raises(InputError, match="allows nothing in a choice"):
        runtime(feed)


def test_nan_is_told(tmp_path):
    for name in ("categorical-relu", "squashed"):
        c99.write(CASES[name].graph, tmp_path, Options())
        runtime = c99.load(tmp_path, interface_of(CASES[name].graph), {})
        records = np.zeros(1, runtime.layout.input_type)
        out = np.zeros(1, runtime.layout.output_type)
        act = runtime.library.policy_act
        act.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        assert act(records.ctypes.data, out.ctypes.data) == 0
        records["obs"][0, 1] = np.nan
        assert act(records.ctypes.data, out.ctypes.data) == 2


def test_written_twice_the_same_and_reloaded_anew(tmp_path):
    first, second = CASES["gaussian"], CASES["gaussian-depth0"]
    c99.write(first.graph, tmp_path, Options())
    before = [(tmp_path / name).read_bytes() for name in ("policy.c", "policy.h")]
    feed = feed_of(first)
    assert_equal(first.graph, feed, c99.load(tmp_path, interface_of(first.graph), {})(feed))
    c99.write(second.graph, tmp_path, Options())
    assert_equal(second.graph, feed, c99.load(tmp_path, interface_of(second.graph), {})(feed))
    c99.write(first.graph, tmp_path, Options())
    assert before == [(tmp_path / name).read_bytes() for name in ("policy.c", "policy.h")]


def test_flash_and_ram_are_those_of_the_files(tmp_path):
    graph = CASES["deep"].graph
    facts = c99.write(graph, tmp_path, Options())
    assert facts["flash_bytes"] == 4 * (graph.footprint.params + graph.footprint.constants + 2 * 2)
    assert facts["macs"] == graph.footprint.macs
    assert f"{facts['flash_bytes']} bytes of constants" in (tmp_path / "policy.h").read_text()
    sh("cc", "-std=c99", "-Os", "-c", "policy.c", "-o", "policy.o", cwd=tmp_path)
    sections = sh(tool("size", "binutils"), "-A", "policy.o", cwd=tmp_path)
    constants = sum(int(line.split()[1]) for line in sections.splitlines() if line.startswith(".rodata"))
    assert abs(constants - facts["flash_bytes"]) <= 64
    data = [line for line in sections.splitlines() if line.startswith((".data ", ".bss "))]
    assert all(line.split()[1] == "0" for line in data)


def test_32_by_32_fits_10_kb_and_needs_nothing_but_tanh(tmp_path):
    facts = c99.write(CASES["gaussian"].graph, tmp_path, Options())
    sh("cc", "-std=c99", "-O2", "-fno-stack-protector", "-c", "policy.c", "-o", "policy.o", cwd=tmp_path)
    undefined = sh(tool("nm", "binutils"), "-u", "policy.o", cwd=tmp_path).split()
    assert set(undefined) - {"U", "_GLOBAL_OFFSET_TABLE_"} == {"tanhf"}
    sh(
        "cc",
        "-std=c99",
        "-O2",
        "-DPOLICY_NO_MATH_H",
        "-fno-stack-protector",
        "-c",
        "policy.c",
        "-o",
        "p.o",
        cwd=tmp_path,
    )
    assert set(sh("nm", "-u", "p.o", cwd=tmp_path).split()) <= {"U", "_GLOBAL_OFFSET_TABLE_"}
    wide = student("gaussian", hidden=(32, 32))
    facts = c99.write(graph_of(wide), tmp_path, Options())
    assert facts["flash_bytes"] < 10_000


def test_whose_it_is_stands_in_every_file(tmp_path):
    written("squashed", tmp_path, 8)
    for name in ("policy.c", "policy.h", "policy_selftest.c"):
        assert "without conditions" in (tmp_path / name).read_text()
    license_ = (Path(policykd.exports.__file__).parents[2] / "LICENSE").read_text()
    assert "without conditions" in license_


@pytest.mark.parametrize(
    ("name", "expected"),
    [("obs", "obs"), ("robot.pos", "robot_pos"), ("class", "obs_class"), ("0", "obs_0"), ("NAN", "obs_NAN"),
     ("é*/", "obs____"), ("", "obs_"), ("int8_t", "obs_int8_t"), ("_x", "obs__x"), ("Aa", "Aa")],
)  # fmt: skip
def test_identifiers(name, expected):
    taken: set[str] = set()
    assert identifier(name, taken) == expected
    assert identifier(name, taken) == f"{expected}_2"


def test_numbers_read_back_as_the_same_bits():
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**32, 5000, np.uint32).view(np.float32)
    numbers = np.concatenate([numbers[np.isfinite(numbers)], np.float32([0, -0.0, 1, 1e-45, 3.4028235e38, 16777216])])
    for number in numbers:
        text = literal(number)
        assert text.endswith("f")
        assert set(text) & {".", "e"}
        assert np.float32(text[:-1]).tobytes() == number.tobytes()
    with pytest.raises(ValueError, match="no literal"):
        literal(np.nan)


def test_refusals(tmp_path, monkeypatch):
    graph = CASES["categorical"].graph
    far = replace(graph, action=ActionMap("discrete", start=(2**31 - 2,)))
    with pytest.raises(InputError, match=r"choices from 2147483646 to 2147483648 are no int32"):
        c99.check(far, Options())
    wide = ActionMap("unscale", (2,), "float32", (-3e38, -1.0), (3e38, 1.0))
    with pytest.raises(InputError, match="too far apart"):
        c99.check(replace(CASES["squashed"].graph, action=wide), Options())
    facts = c99.write(graph, tmp_path, Options())
    other = interface_of(CASES["categorical-masked"].graph)
    with pytest.raises(InputError, match="do not belong together"):
        c99.load(tmp_path, other, facts)
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(InputError, match="'no-such-compiler' is not found"):
        c99.load(tmp_path, interface_of(graph), facts)
    monkeypatch.delenv("CC")
    (tmp_path / "policy.c").write_text("int x = ;\n")
    with pytest.raises(InputError, match="does not compile it"):
        c99.load(tmp_path, interface_of(graph), facts)
    (tmp_path / "policy.c").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        c99.load(tmp_path, interface_of(graph), facts)
    (tmp_path / "policy.c").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install gcc"):
        c99.load(tmp_path, interface_of(graph), facts)


def test_the_example_compiles(tmp_path):
    written("gaussian", tmp_path, 8)
    (tmp_path / "main.c").write_text(c99.EXAMPLE)
    sh("cc", "-std=c99", *STRICT, "main.c", "policy.c", "-o", "a.out", "-lm", cwd=tmp_path)
    sh("./a.out", cwd=tmp_path)
    assert len(c99.EXAMPLE.splitlines()) <= 10


def test_c_plus_plus_links_with_c(tmp_path):
    tool("g++", "g++")
    written("squashed", tmp_path, 8)
    (tmp_path / "main.cpp").write_text('#include "policy.h"\nint main() { return policy_selftest(); }\n')
    sh("cc", "-std=c99", "-c", "policy.c", "policy_selftest.c", cwd=tmp_path)
    sh("g++", "-std=c++11", "main.cpp", "policy.o", "policy_selftest.o", "-o", "a.out", "-lm", cwd=tmp_path)
    sh("./a.out", cwd=tmp_path)


def test_a_compiler_may_be_named_by_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "mine").symlink_to(shutil.which("cc"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC", "./mine -g")
    case = CASES["categorical"]
    c99.write(case.graph, tmp_path, Options())
    assert_equal(case.graph, feed_of(case), c99.load(tmp_path, interface_of(case.graph), {})(feed_of(case)))


def test_structs_are_those_of_c():
    """Ports whose sizes are odd, so that padding shows."""
    case = CASES["bernoulli-masked-noise"]
    layout = Layout(interface_of(case.graph))
    assert layout.input_type.itemsize == 4 * 3 + 8 + 4 * 4
    odd = Layout(replace(interface_of(case.graph), mask_size=3))
    assert odd.input_type.fields["noise"][1] == 16
