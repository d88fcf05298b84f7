"""Reading and writing YAML that holds data only: no tags, no code, bounded size, duplicate keys refused.

Plain scalars mean what YAML 1.2 says (`1e-3` is a number, `on` is text, dates are text), and digits may be grouped
with underscores (`1_000_000`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from policykd.spine.errors import InputError, clipped

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000  # after every alias is written out; a complete run has about 60
MAX_DEPTH = 20
MAX_DIGITS = 300  # more is not a hyper-parameter, and Python refuses to convert more than 4300

_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INT = re.compile(rf"[-+]?{_DIGITS}\Z")
_FLOAT = re.compile(
    rf"[-+]?(?:\.[0-9]+|{_DIGITS}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"
    r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_MERGE = re.compile(r"<<\Z")
_RESOLVERS = ((_INT, "int"), (_FLOAT, "float"), (_BOOL, "bool"), (_NULL, "null"), (_MERGE, "merge"))


def _refused(problem: str, node_or_event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node_or_event.start_mark)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 scalars, and without tags, duplicate keys and alias bombs."""

    yaml_implicit_resolvers = {}
    depth = 0
    count = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """As PyYAML's, with the depth bounded and explicit tags refused before anything is built."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _refused(f"the tag {event.tag} is refused: write plain data", event)
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH or self.count > MAX_NODES:
            raise _refused(f"more than {MAX_DEPTH} levels or {MAX_NODES} values", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> Node | None:
        """The document's node, once its aliases are known to stay small and its keys to be unique."""
        node = super().get_single_node()
        if node is not None:
            _measure(node, {}, ())
        return node


def _number_text(node: ScalarNode) -> str:
    if len(node.value) > MAX_DIGITS:
        raise _refused(f"a number of {len(node.value)} digits", node)
    return str(node.value)


def _construct_int(loader: _Loader, node: ScalarNode) -> int:
    return int(_number_text(node))


def _construct_float(loader: _Loader, node: ScalarNode) -> float:
    return float(_number_text(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


for _pattern, _name in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, None)
_Loader.add_constructor(_TAG + "int", _construct_int)
_Loader.add_constructor(_TAG + "float", _construct_float)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes text that YAML 1.1 *or* 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_str(dumper: _Dumper, text: str) -> ScalarNode:
    # PyYAML writes these line ends of YAML 1.1 as they are, and reads them back as spaces; double quotes escape them
    return dumper.represent_scalar(_TAG + "str", text, style='"' if re.search("[\x85\u2028\u2029]", text) else None)


_Dumper.add_representer(str, _represent_str)
for _pattern, _name in _RESOLVERS:
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, None)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _measure(node: Node, known: dict[int, tuple[int, int]], above: tuple[int, ...]) -> tuple[int, int]:
    """(nodes, levels) that `node` stands for with every alias written out; refuses bombs, cycles and bad keys."""
    if id(node) in above:
        raise _refused("an alias that contains itself", node)
    if id(node) not in known:
        if isinstance(node, MappingNode):
            _check_keys(node)
        parts = [_measure(child, known, (*above, id(node))) for child in _children(node)]
        size, levels = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
        if size > MAX_NODES or levels > MAX_DEPTH:
            raise _refused(f"more than {MAX_DEPTH} levels or {MAX_NODES} values once aliases are written out", node)
        known[id(node)] = size, levels
    return known[id(node)]


def _check_keys(node: MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, ScalarNode) or key.tag not in (_TAG + "str", _TAG + "merge"):
            shown = repr(key.value) if isinstance(key, ScalarNode) else "a list or mapping"
            raise _refused(f"keys must be text, found {shown}: quote it", key)
        if key.value in seen:
            raise _refused(f"the key {key.value!r} stands twice in one mapping: keep one", key)
        seen.add(key.value)


def _reason(error: yaml.YAMLError) -> str:
    """One line for a PyYAML error: the place, and what is wrong there."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return place + " ".join(part for part in (error.problem, error.context and f"({error.context})") if part)
    return " ".join(str(error).split())


def parse_yaml(text: str, where: str) -> Any:
    """The plain data that `text` holds (None when empty); `where` names its source in an error."""
    if len(text) > MAX_BYTES:
        raise InputError(f"{where}: {len(text)} characters, more than the {MAX_BYTES} that a configuration may have")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not readable as YAML: {clipped(_reason(error), 500)}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: larger than the {MAX_BYTES // 1024} KB that a configuration may have")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}): is this a configuration file?") from error
    data = parse_yaml(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected `key: value` lines, found a {type(data).__name__}")
    return data


def dump_yaml(data: Mapping[str, Any]) -> str:
    """`data` as YAML text, keys in their order, readable back to equal data."""
    return yaml.dump(
        dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110
    )
