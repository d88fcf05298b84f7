from __future__ import annotations

import math
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from policykd.spine.config.yaml_io import MAX_BYTES, dump_yaml, parse_yaml, read_yaml
from policykd.spine.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 0.001), ("1E5", 1e5), ("-2.5e+3", -2500.0), (".5", 0.5), ("5.", 5.0), (".inf", math.inf)),
        *(("10", 10), ("-3", -3), ("010", 10), ("1_000_000", 1_000_000), ("0x10", "0x10"), ("1:30", "1:30")),
        *(("true", True), ("False", False), ("on", "on"), ("yes", "yes"), ("no", "no"), ("null", None), ("~", None)),
        *(("", None), ("2020-01-01", "2020-01-01"), ("'1e-3'", "1e-3"), ("[8, 16]", [8, 16]), ("{a: 1}", {"a": 1})),
        *(("hf:org/repo", "hf:org/repo"), ("1_", "1_"), ("1e_5", "1e_5"), ("CartPole-v1", "CartPole-v1")),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text, value):
    found = parse_yaml(text, "t")
    assert found == value
    assert type(found) is type(value)


def test_anchors_and_merge_keys():
    assert parse_yaml("a: &x {k: 1}\nb: {<<: *x, z: 2}", "t") == {"a": {"k": 1}, "b": {"k": 1, "z": 2}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "line 2, column 1: the key 'a' stands twice"),
        ("x: {a: 1, a: 2}", "the key 'a' stands twice"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "the tag tag:yaml.org,2002:python/object/apply:os.system is refused",
        ),
        ("!!python/name:os.system x", "is refused"),
        ("a: !!set {b}", "is refused"),
        ("a: !mine 5", "the tag !mine is refused"),
        ("1: 2", "keys must be text"),
        ("? [1]\n: 2", "keys must be text"),
        ("a: &a [*a]", "contains itself"),
        ("a: *b", "undefined alias"),
        ("a: [1", "expected ',' or ']'"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("[" * 5000, "20 levels"),
        ("- " * 5000, "20 levels"),
        ("a: [" + "1," * 30_000 + "]", "20000 values"),
        ("x" * (MAX_BYTES + 1), "more than the"),
    ],
)
def test_what_is_refused_is_one_line_with_its_place(text, reason):
    with pytest.raises(InputError, match=r"^t: ") as caught:
        parse_yaml(text, "t")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_alias_bombs_are_refused_quickly():
    wide = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
    )
    deep = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))
    begin = time.monotonic()
    for bomb in (wide, deep, wide.replace("[*", "{<<: [*").replace("]\n", "]}\n")):
        with pytest.raises(InputError):
            parse_yaml(bomb, "t")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("key", ["1e-3", "on", "010", "null", "2020-01-01", "1_000", "~", "", "- x", "a: b", "é\n"])
def test_dumped_text_stays_text_for_every_reader(key):
    dumped = dump_yaml({"a": key})
    assert parse_yaml(dumped, "t") == {"a": key}
    assert yaml.safe_load(dumped) == {"a": key}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=8), PLAIN, max_size=4))
def test_what_is_dumped_is_read_back(data):
    assert parse_yaml(dump_yaml(data), "t") == data


def test_dump_keeps_the_order_and_writes_no_aliases():
    shared = {"z": 1}
    assert dump_yaml({"b": shared, "a": shared}) == "b:\n  z: 1\na:\n  z: 1\n"


@given(st.text(alphabet="ab:-{}[],&*!|>'\"%@`?#\n 01e.<~\t", max_size=40))
def test_any_text_is_data_or_an_input_error(text):
    try:
        parse_yaml(text, "t")
    except InputError:
        return


def test_files(tmp_path):
    path = tmp_path / "c.yaml"
    for content, data in ((b"", {}), (b"# nothing\n", {}), (b"\xef\xbb\xbfa: 1", {"a": 1})):
        path.write_bytes(content)
        assert read_yaml(path) == data
    for content, reason in ((b"\xff\xfe\x00", "not UTF-8"), (b"- 1", "found a list"), (b"#" * 300_000, "256 KB")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            read_yaml(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
