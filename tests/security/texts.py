"""Hostile JSON and YAML: students' headers, records, statistics, the zoo's settings, and configurations of our own."""

from __future__ import annotations

import json
import struct
from typing import Any

from tests.security.entry import (
    JSON_VALUES,
    STUDENTS,
    Entries,
    Entry,
    Expect,
    Large,
    Opener,
    base,
    cuts,
    flips,
    paths,
    replaced,
)

_NAMES = sorted(path.name for path in STUDENTS.glob("*.safetensors"))


def student(category: str, name: str, raw: bytes | Large, expect: Expect, like: str = "") -> Entry:
    """A student's file."""
    return Entry(category, name, "student", {"student.safetensors": raw}, "student.safetensors", expect, like)


def _parts(raw: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """(header, our document inside it, numbers) of a safetensors file."""
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["policykd"]), raw[8 + length :]


def _joined(header: str | dict[str, Any], numbers: bytes) -> bytes:
    raw = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + numbers


def headers() -> Entries:
    """Headers of safetensors that lie about lengths, places and kinds, and that are deep or long."""
    category = "Student: hostile headers"
    for file in _NAMES:
        raw = base(file)
        header, _, numbers = _parts(raw)
        for length in (0, 1, 7, len(raw), len(raw) * 2, 2**22 + 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1):
            yield student(category, f"{file}, length {length}", struct.pack("<Q", length) + raw[8:], "refused")
        tensor = next(name for name in header if name != "__metadata__")
        for label, text in _OFFSETS.items():
            data = _joined(replaced(header, (tensor, "data_offsets"), text), numbers)
            yield student(category, f"{file}, offsets {label}", data, "refused")
        for dtype in (
            "F64",
            "F16",
            "BF16",
            "I64",
            "I8",
            "U64",
            "BOOL",
            "F8_E4M3",
            "F8_E5M2",
            "F4",
            "C64",
            "O",
            "",
            "f4,f4",
        ):
            data = _joined(replaced(header, (tensor, "dtype"), json.dumps(dtype)), numbers)
            yield student(category, f"{file}, dtype {dtype!r}", data, "refused")
        for label, text in JSON_VALUES.items():
            for key in ("shape", "dtype", "data_offsets"):
                data = _joined(replaced(header, (tensor, key), text), numbers)
                yield student(category, f"{file}, {key} is {label}", data, "refused")
            data = _joined(replaced(header, ("__metadata__",), text), numbers)
            yield student(category, f"{file}, metadata is {label}", data, "refused")
        twice = json.dumps(header)[:-1] + f', "{tensor}": {json.dumps(header[tensor])}' + "}"
        yield student(category, f"{file}, a tensor twice", _joined(twice, numbers), "either", file)
        renamed = json.dumps(header).replace(f'"{tensor}"', '"a\\nb\\u001b[2J' + "x" * 100_000 + '"')
        yield student(category, f"{file}, a long name", _joined(renamed, numbers), "refused")
        for label, text in _BOMBS.items():
            yield student(category, f"{file}, header is {label}", _joined(text, numbers), "refused")
        metadata = header | {"__metadata__": {"policykd": "[" * 100_000}}
        yield student(category, f"{file}, document is deep", _joined(metadata, numbers), "refused")
        yield student(category, f"{file}, more numbers", raw + bytes(64), "refused")
    for size in (2**28, 2**30, 2**36):
        yield student(category, f"hole of {size} bytes", Large(size, base(_NAMES[0])), "refused")
        yield student(category, f"hole of {size} bytes that it declares", _declared(size), "refused")


def _declared(size: int) -> Large:
    shape = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    head = _joined({"x": shape, "__metadata__": {"policykd": "{}"}}, b"")
    return Large(len(head) + size, head)


_OFFSETS = {
    "overlap": "[4, 8]", "reversed": "[8, 0]", "negative": "[-4, 4]", "gap": "[400, 404]", "past the end": f"[0, {2**40}]",
    "overflow": f"[{2**63}, {2**64 - 1}]", "beyond 64 bits": f"[0, {2**70}]", "text": '["0", "4"]', "three": "[0, 4, 8]",
}  # fmt: skip
_BOMBS = {
    "deep": "[" * 100_000, "deep objects": '{"a":' * 100_000, "long": "{" + '"a":1,' * 300_000 + '"a":1}', "null": "null",
    "a list": "[]", "empty": "{}", "many tensors": "{" + ",".join(
        f'"t{k}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for k in range(30_000)) + "}",
}  # fmt: skip
# what is large or odd is tried once for each place; these for every one of the five files
_SHORT = ("null", "minus one", "2^63", "1e999", "lines", "empty list", "text times a number")


def students() -> Entries:
    """Hostile values at every place of a student's document; flipped bits and truncation."""
    for order, file in enumerate(_NAMES):
        header, document, numbers = _parts(base(file))
        for way in paths(document):
            for label, text in JSON_VALUES.items():
                if way[0] == "provenance" or (order and label not in _SHORT):
                    continue
                changed = header | {"__metadata__": {"policykd": replaced(document, way, text)}}
                name = f"{file}, {'.'.join(map(str, way))} is {label}"
                yield student("Student: hostile documents", name, _joined(changed, numbers), "either", file)
        for number, raw in enumerate(flips(base(file), 80, 70 + order)):
            yield student("Student: flipped bits", f"{file}, {number}", raw, "either", file)
        text = json.dumps(header).encode()
        for number, changed_text in enumerate(flips(text, 40, 80 + order)):
            raw = _joined(changed_text.decode("latin-1"), numbers)
            yield student("Student: flipped bits", f"{file}, header {number}", raw, "either", file)
        for number, raw in enumerate(cuts(base(file), 40, 90 + order)):
            yield student("Student: truncated", f"{file}, {number}", raw, "refused")


_STATISTICS = {
    "format": 1,
    "mean": [0.0, 1.0, 2.0, 3.0],
    "var": [1.0, 1.0, 0.5, 2.0],
    "clip_obs": 10.0,
    "epsilon": 1e-8,
}
_RECORD = {"format": 1, "algo": "ppo", "env_id": "CartPole-v1", "env_kwargs": {"a": 1}, "normalized": False,
           "wrappers": [{"TimeLimit": {"max_episode_steps": 9}}, "TimeFeatureWrapper"]}  # fmt: skip
IDS = ("module:Env-v0", "os:CartPole-v1", "evil.evil:Evil-v0", ":CartPole-v1", "a:b:c-v0", "../evil:CartPole-v1", "__main__:x-v0",
       "CartPole-v1\n", "CartPole-v1;ls", "$(ls)", "`ls`", "CartPole-v" + "9" * 5000, "x" * 30_000, "\u0130:e-v0")  # fmt: skip


def records() -> Entries:
    """normalizer.json and teacher.json, and environment ids that import."""
    for way in paths(_STATISTICS):
        for label, text in JSON_VALUES.items():
            raw = replaced(_STATISTICS, way, text).encode()
            name = f"{'.'.join(map(str, way))} is {label}"
            yield Entry("normalizer.json: hostile values", name, "normalizer", {"n.json": raw}, "n.json", "either")
    for label, bomb in _BOMBS.items():
        yield Entry(
            "normalizer.json: hostile values", label, "normalizer", {"n.json": bomb.encode()}, "n.json", "refused"
        )
    for size in (2**24 + 1, 2**30, 2**40):
        yield Entry(
            "normalizer.json: hostile values",
            f"hole of {size}",
            "normalizer",
            {"n.json": Large(size)},
            "n.json",
            "refused",
        )
    whole = json.dumps(_STATISTICS).encode()
    for number, raw in enumerate([*flips(whole, 80, 100), *cuts(whole, 40, 101)]):
        yield Entry("normalizer.json: damage", str(number), "normalizer", {"n.json": raw}, "n.json", "either")
    category = "teacher.json: hostile values"
    for way in paths(_RECORD):
        for label, text in JSON_VALUES.items():
            name = f"{'.'.join(map(str, way))} is {label}"
            yield run_folder(category, name, replaced(_RECORD, way, text).encode(), "either")
    for label, bomb in _BOMBS.items():
        yield run_folder(category, label, bomb.encode(), "harmless" if label == "empty" else "refused")
    for size in (2**20 + 1, 2**40):
        yield run_folder(category, f"hole of {size}", Large(size, b"{}"), "refused")
    whole = json.dumps(_RECORD).encode()
    for number, raw in enumerate([*flips(whole, 80, 102), *cuts(whole, 40, 103)]):
        yield run_folder("teacher.json: damage", str(number), raw, "either")
    for env_id in IDS:
        name, record = f"{env_id[:20]!r} in teacher.json", json.dumps(_RECORD | {"env_id": env_id}).encode()
        plain = env_id.startswith(("x", "CartPole-v9"))
        yield run_folder("Environment ids that import", name, record, "harmless" if plain else "refused")
        yield zoo_folder("Environment ids that import", f"{env_id[:20]!r} in args.yml", {"args.yml": f"env: {json.dumps(env_id)}\n".encode()},
                   "harmless" if plain else "refused")  # fmt: skip
        if "/" not in env_id and len(env_id) < 200:
            files = {f"{env_id}.zip": base("ppo.zip")}
            name = f"{env_id[:20]!r} as a file's name"
            yield Entry("Environment ids that import", name, "teacher", files, f"{env_id}.zip", "harmless", "ppo")


def run_folder(category: str, name: str, record: bytes | Large, expect: Expect) -> Entry:
    """A run folder of `policykd train`."""
    return Entry(
        category, name, "teacher", {"teacher.zip": base("ppo.zip"), "teacher.json": record}, ".", expect, "ppo"
    )


def zoo_folder(category: str, name: str, settings: dict[str, bytes | Large], expect: Expect) -> Entry:
    """A folder of the zoo."""
    files: dict[str, bytes | Large] = {f"CartPole-v1/{name}": raw for name, raw in settings.items()}
    return Entry(
        category, name, "teacher", {**files, "CartPole-v1.zip": base("ppo.zip")}, "CartPole-v1.zip", expect, "ppo"
    )


TAGS = {
    "apply": "!!python/object/apply:os.system ['touch ran']", "new": "!!python/object/new:os.system ['touch ran']",
    "open": "!!python/object/apply:builtins.open [ran, w]", "exec": "!!python/object/apply:builtins.exec [\"open('ran','w')\"]",
    "name": "!!python/name:os.system", "module": "!!python/module:this", "object": "!!python/object:evil.Evil {a: 1}",
    "state": "!!python/object/new:type {args: [z, !!python/tuple [], {extend: !!python/name:exec }], listitems: 'x=1'}",
    "subprocess": "!!python/object/apply:subprocess.check_call [[touch, ran]]", "import": "!!python/object/apply:importlib.import_module [this]",
    "tuple": "!!python/tuple [1, 2]", "bytes": "!!python/bytes 'aaaa'", "own": "!evil x", "binary": "!!binary aaaa",
    "map": "!!python/object/apply:builtins.map [!!python/name:os.system , ['touch ran']]",
}  # fmt: skip
_YAML_BOMBS = {
    "laughs": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
    "laughing keys": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30)) + "? *a29\n: 1\n",
    "merges": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
    "deep": "a: " + "[" * 20_000, "deep mapping": "a: " + "{a: " * 10_000, "itself": "a: &a [*a]", "key itself": "&a ? *a\n: 1",
    "sexagesimal": "a: " + "1:" * 30_000 + "1", "digits": "a: " + "9" * 60_000, "hexadecimal": "a: 0x" + "f" * 60_000,
    "float": "a: 1e999999999", "dashes": "- " * 20_000, "question marks": "? " * 20_000, "anchors": "".join(f"- &a{i} x\n" for i in range(8_000)),
    "documents": "---\n" * 20_000, "directives": "%YAML 9.9\n---\na: 1", "tag directive": "%TAG ! tag:yaml.org,2002:python/object/apply:\n---\na: !os.system [ls]",
    "spaces": " " * 60_000 + "a: 1", "tabs": "\ta: 1", "control": "a: \x1b[2J\x00", "no text": "\udcff\udcfe", "date": "a: 99999-99-99 99:99:99",
    "long": "x" * 300_000, "quotes": '"' + "\\x41" * 15_000, "many keys": "".join(f"k{i}: {i}\n" for i in range(4_000)),
}  # fmt: skip


def settings() -> Entries:
    """Python tags and bombs in the zoo's config.yml and args.yml."""
    for file, key in (("config.yml", "normalize"), ("config.yml", "env_kwargs"), ("config.yml", "x"), ("config.yml", "env_wrapper"),
                      ("config.yml", "frame_stack"), ("args.yml", "env"), ("args.yml", "env_kwargs"), ("args.yml", "algo")):  # fmt: skip
        for label, tag in TAGS.items():
            name = f"{label} as {key} in {file}"
            yield zoo_folder("YAML of the zoo: tags", name, {file: f"{key}: {tag}\n".encode()}, "either")
    for file in ("config.yml", "args.yml"):
        for label, tag in TAGS.items():
            yield zoo_folder("YAML of the zoo: tags", f"{label} is {file}", {file: f"{tag}\n".encode()}, "either")
        for label, text in _YAML_BOMBS.items():
            raw = text.encode("utf-8", "surrogateescape")
            yield zoo_folder("YAML of the zoo: bombs and damage", f"{label} in {file}", {file: raw}, "either")
        yield zoo_folder("YAML of the zoo: bombs and damage", f"hole as {file}", {file: Large(2**40)}, "refused")
    honest = (
        b"!!python/object/apply:collections.OrderedDict\n- - - env\n    - CartPole-v1\n  - - env_kwargs\n    - {a: 1}\n"
    )
    for number, raw in enumerate([*flips(honest, 80, 110), *cuts(honest, 30, 111)]):
        yield zoo_folder("YAML of the zoo: bombs and damage", str(number), {"args.yml": raw}, "either")


# names of classes that run, write, import or lead elsewhere, were they more than text
_CLASSES = ("os.system", "builtins.exec", "builtins.eval", "builtins.__import__", "subprocess.Popen", "antigravity.x", "this.s", "evil.Evil",
            "policykd.teachers.trusted.load_trusted", "gymnasium.wrappers.RecordVideo", "gymnasium.wrappers.TransformObservation",
            "rl_zoo3.wrappers.HistoryWrapper", "sb3_contrib.common.wrappers.TimeFeatureWrapper", "stable_baselines3.common.atari_wrappers.AtariWrapper",
            "TimeFeatureWrapper", "os", "os:system", "evil:Evil", "../../evil.Evil", "/etc/passwd", "a..b", ".a", "a.", "x" * 60_000, "a." * 20_000 + "b",
            "a.b\n", "\u0130.e", "\x1b[2J.a", "__import__('os').system('touch ran')", "gym.wrappers.", "gymnasium.wrappers.__builtins__")  # fmt: skip
_PLAIN = ("gymnasium.wrappers.Time", "rl_zoo3", "sb3_contrib", "stable_baselines3", "os.system", "builtins", "subprocess", "antigravity", "this.s",
          "evil.Evil", "policykd", "gymnasium.wrappers.Trans", "gymnasium.wrappers.__")  # fmt: skip


def wrappers() -> Entries:
    """Names, arguments and numbers in env_wrapper and frame_stack of the zoo's config.yml, and in a run's config.yaml."""
    category = "YAML of the zoo: wrappers"
    for name in _CLASSES:
        expect: Expect = "harmless" if name.startswith(_PLAIN) and ":" not in name else "refused"
        for form, value in (
            ("text", name),
            ("list", [name]),
            ("mapping", {name: {"a": 1}}),
            ("in a list", [{name: None}]),
        ):
            raw = json.dumps({"env_wrapper": value}).encode()
            yield zoo_folder(category, f"{name[:40]!r}, {form}", {"config.yml": raw}, expect)
        raw = json.dumps({"hyperparams": {"env_wrapper": [name]}}).encode()
        yield zoo_folder(category, f"{name[:40]!r} in args.yml", {"args.yml": raw}, expect)
    known = "sb3_contrib.common.wrappers.TimeFeatureWrapper"
    for label, text in JSON_VALUES.items():
        for way in ("env_wrapper: @", "env_wrapper: [@]", f'env_wrapper: {{"{known}": @}}', "env_wrapper: [{@: {}}]",
                    f'env_wrapper: [{{"{known}": {{"max_steps": @}}}}]', "frame_stack: @"):  # fmt: skip
            raw = f"{way}\n".replace("@", text).encode()
            yield zoo_folder(category, f"{way} is {label}", {"config.yml": raw}, "either")
        for way in ("wrappers", "wrappers.0"):
            raw = f"env: {{id: CartPole-v1, wrappers: {text if way == 'wrappers' else f'[{text}]'}}}\n".encode()
            files = {"teacher.zip": base("ppo.zip"), "config.yaml": raw}
            yield Entry(category, f"{way} of config.yaml is {label}", "teacher", files, ".", "either", "ppo")
    for number in (-1, 0, 65, 10**6, 2**31, 2**63, "9" * 4000):
        yield zoo_folder(
            category, f"frame_stack {str(number)[:20]}", {"config.yml": f"frame_stack: {number}\n".encode()}, "refused"
        )
    honest = json.dumps(
        {"env_wrapper": [{known: {"max_steps": 9}}, "gym.wrappers.FlattenObservation"], "frame_stack": 4}
    ).encode()
    for number, raw in enumerate([*flips(honest, 80, 130), *cuts(honest, 30, 131)]):
        yield zoo_folder(category, str(number), {"config.yml": raw}, "either")


CONFIG = b"""teacher: builtin:cartpole
env: {id: CartPole-v1, kwargs: {a: 1}, wrappers: [], allow_import: false}
student: {width: [4, 8], depth: 2}
loss: {kind: forward_kl, temperature: 1.0}
rollout: {rounds: 2, beta: {schedule: linear, value: 1.0}}
update: {batch_size: 256, learning_rate: 1e-2}
seed: 0
"""
TRAIN = b"algo: ppo\nenv: {id: CartPole-v1}\ntimesteps: 1000\n"


def configurations() -> Entries:
    """Our own configurations (`--config`): tags, bombs, hostile values, flips and cuts."""
    config: Opener
    for config, honest in (("config", CONFIG), ("train config", TRAIN)):
        keys = ("teacher", "env", "student", "seed", "x") if config == "config" else ("algo", "env", "x")
        files = lambda raw: {"c.yaml": raw}  # noqa: E731
        for key in keys:
            lines = [line for line in honest.splitlines() if not line.startswith(key.encode() + b":")]
            for label, tag in TAGS.items():
                raw = b"\n".join([*lines, f"{key}: {tag}\n".encode()])
                yield Entry("--config: tags", f"{config}, {label} as {key}", config, files(raw), "c.yaml", "refused")
            for label, text in JSON_VALUES.items():
                raw = b"\n".join([*lines, f"{key}: {text}\n".encode()])
                yield Entry(
                    "--config: hostile values", f"{config}, {key} is {label}", config, files(raw), "c.yaml", "either"
                )
        for label, text in _YAML_BOMBS.items():
            raw = text.encode("utf-8", "surrogateescape")
            yield Entry("--config: bombs", f"{config}, {label}", config, files(raw), "c.yaml", "refused")
        yield Entry("--config: bombs", f"{config}, a hole", config, {"c.yaml": Large(2**40)}, "c.yaml", "refused")
        for number, raw in enumerate([*flips(honest, 80, 120), *cuts(honest, 30, 121)]):
            yield Entry("--config: damage", f"{config}, {number}", config, files(raw), "c.yaml", "either")


MAKERS = (headers, students, records, settings, wrappers, configurations)
