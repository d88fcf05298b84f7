"""YAML read as data: python tags become the plain values they carry, and no object is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from policykd.spine.errors import InputError

_MAX_BYTES = 2**15  # the zoo's files have less than 4 kilobytes; parsing takes up to half a second for these
_MAX_DEPTH = 32  # PyYAML takes time for every bracket that is open
_PYTHON = "tag:yaml.org,2002:python/"
_PAIRS = ("object/apply:collections.OrderedDict", "object/new:collections.OrderedDict")


class _DataLoader(yaml.SafeLoader):
    """SafeLoader for which a python tag is no instruction. It knows no merge keys, which can double at each use."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML, to a limited depth."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.constructor.ConstructorError(problem=f"values within values, more than {_MAX_DEPTH} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The document, if it holds no more values than a file of the greatest size could spell out.

        An alias is one object, but who walks over the values meets it at each of its places, and so do we.
        """
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _spelled_out(node, {})
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse `<<`; nothing else is left to flatten."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(problem="merge keys (<<) are not supported")


def _spelled_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values the node has where each alias counts as what it stands for; `known`: those of nodes seen."""
    if id(node) not in known:
        known[id(node)] = _MAX_BYTES + 1  # found again below itself, it has no end
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_spelled_out(part, known) for part in parts)
    if known[id(node)] > _MAX_BYTES:
        raise yaml.constructor.ConstructorError(problem=f"aliases (*name) that stand for more than {_MAX_BYTES} values")
    return known[id(node)]


def _plain(loader: _DataLoader, suffix: str, node: yaml.Node) -> Any:
    """The value under a python tag: an OrderedDict as a dict, everything else without its tag."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        values = loader.construct_sequence(node, deep=True)
        if suffix in _PAIRS and len(values) == 1 and isinstance(values[0], list):
            return dict(values[0])
        return values
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


def _integer(loader: _DataLoader, node: yaml.ScalarNode) -> int:
    """An integer of at most 64 bits: larger ones cannot even be printed."""
    value = int(loader.construct_yaml_int(node))
    if value.bit_length() > 64:
        raise yaml.constructor.ConstructorError(problem=f"an integer of {value.bit_length()} bits")
    return value


_DataLoader.add_multi_constructor(_PYTHON, _plain)
_DataLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; InputError for a file that is missing, too large, damaged or no mapping."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: more than {_MAX_BYTES} bytes, expected a small YAML file; fetch it again")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a YAML file; fetch it again") from error
    loader = None
    try:
        loader = _DataLoader(raw)
        data = loader.get_single_data()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: no readable YAML ({type(error).__name__}: {reason}); fetch the file again"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(
            f"{path}: holds a {type(data).__name__}, expected a mapping of names to values; fetch it again"
        )
    return {str(key): value for key, value in data.items()}
