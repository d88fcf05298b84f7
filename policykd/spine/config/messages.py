"""From pydantic's errors to plain lines: one per key, with what was found, what is expected, and a suggestion."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

MAX_PROBLEMS = 20  # lines of one refusal

Path = tuple[str, ...]
Model = type[BaseModel]

_PLAIN = {bool: "true or false", str: "text", dict: "a mapping of keys", type(None): "null", list: "a list"}
_PLURAL = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts", "a mapping": "mappings"}


def problems(error: ValidationError, model: Model, data: Mapping[str, Any], where: Callable[[Path], str]) -> list[str]:
    """One line for each wrong key of `data`, and from the 21st on one for all; `where` says what a path is called where
    the user wrote it."""
    lines: dict[Path, str] = {}
    items = error.errors(include_url=False)
    for index, item in enumerate(items):
        if len(lines) == MAX_PROBLEMS:
            place = where(()).rstrip(": ")
            more = f"{len(items) - index} more mistakes, which are not listed: correct these first"
            return [*lines.values(), f"{place}: {more}" if place else more]
        path, field = _field_of(item["loc"], model)
        if item["type"] == "extra_forbidden":
            path = tuple(map(str, item["loc"]))
            text = "unknown key; " + suggestion(path, model)
        elif item["type"] == "missing":
            text = f"missing; expected {expected(field) if field else 'a value'}"
        elif item["type"] == "value_error":
            text = str(item["ctx"]["error"])
        else:
            wanted = expected(field) if field else item["msg"]
            if item["type"] == "finite_number":
                wanted = wanted.replace("a number", "a finite number")
            text = f"found {found(_at(data, path, item['input']))}, expected {wanted}"
        name = where(path)
        lines.setdefault(path, f"{name}: {text}" if name else text)
    return list(lines.values())


def _field_of(loc: tuple[int | str, ...], model: Model) -> tuple[Path, FieldInfo | None]:
    """The longest part of `loc` that names a field (pydantic appends union branches and list indices)."""
    path: list[str] = []
    field: FieldInfo | None = None
    current: Model | None = model
    for part in loc:
        if current is None or part not in current.model_fields:
            break
        path.append(str(part))
        field = current.model_fields[str(part)]
        current = section_of(field)
    return tuple(path), field


def section_of(field: FieldInfo) -> Model | None:
    """The section class of a field that holds a section, or may hold one."""
    kind: Any = field.annotation
    if isinstance(kind, types.UnionType):
        kind = next((part for part in kind.__args__ if part is not type(None)), None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _at(data: Mapping[str, Any], path: Path, otherwise: Any) -> Any:
    """The whole value of a key: pydantic reports the item of a list, the user looks for the key."""
    value: Any = data
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return otherwise
        value = value[part]
    return value


def found(value: Any) -> str:
    """A value as the user would recognise it: its kind where that is what is wrong, and at most 60 characters."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {text}" if isinstance(value, str) else text


def expected(field: FieldInfo) -> str:
    """What a field takes, in plain words: `auto, or a whole number from 1 to 4096, or a list of whole numbers ...`."""
    return _describe(field.annotation, field.metadata)


def _describe(kind: Any, limits: Iterable[Any] = ()) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _describe(args[0], (*args[1:], *limits))
    if origin is Literal:
        return _either([str(choice) for choice in args])
    if origin in (Union, types.UnionType):
        return _either([_describe(arg) for arg in args])
    if origin is list:
        return f"a list of {_exactly(limits)}{_plural(_describe(args[0]))}"
    if origin is dict and get_origin(args[1]) is Annotated:
        return f"a mapping of names to {_describe(args[1])}"
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _range(limits)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a section with the keys " + ", ".join(kind.model_fields)
    return _PLAIN.get(origin or kind, str(kind))


def _exactly(limits: Iterable[Any]) -> str:
    """`2 ` where a list has one length only."""
    ends = [
        getattr(limit, end) for limit in _flat(limits) for end in ("min_length", "max_length") if hasattr(limit, end)
    ]
    return f"{ends[0]} " if len(ends) == 2 and ends[0] == ends[1] else ""


def _plural(text: str) -> str:
    for one, many in _PLURAL.items():
        text = text.replace(one, many)
    return text


def _either(options: list[str]) -> str:
    return options[0] if len(options) == 1 else ", ".join(options[:-1]) + " or " + options[-1]


def _range(limits: Iterable[Any]) -> str:
    """` from 1 to 4096`, ` of at least 1`, ` above 0 and at most 1`, or nothing."""
    low, high = "", ""
    for limit in _flat(limits):
        if isinstance(limit, annotated_types.Ge):
            low = f"at least {limit.ge}"
        elif isinstance(limit, annotated_types.Gt):
            low = f"above {limit.gt}"
        elif isinstance(limit, annotated_types.Le):
            high = f"at most {limit.le}"
        elif isinstance(limit, annotated_types.Lt):
            high = f"below {limit.lt}"
    if low.startswith("at least") and high.startswith("at most"):
        return f" from {low[9:]} to {high[8:]}"
    both = " and ".join(part for part in (low, high) if part)
    return f" {both}" if both else ""


def _flat(limits: Iterable[Any]) -> Iterator[Any]:
    for limit in limits:
        if isinstance(limit, FieldInfo):
            yield from limit.metadata
        else:
            yield limit


def dotted_paths(model: Model, prefix: Path = ()) -> Iterator[Path]:
    """Every key of a configuration, sections before what they hold."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        section = section_of(field)
        if section is not None:
            yield from dotted_paths(section, (*prefix, name))


def suggestion(path: Path, model: Model) -> str:
    """What an unknown key was probably meant to be: the same name elsewhere, or a close one here or elsewhere."""
    known = [".".join(p) for p in dotted_paths(model)]
    here, last = path[:-1], path[-1]
    same = [name for name in known if name.rsplit(".", 1)[-1] == last]
    near = [".".join((*here, close)) for close in get_close_matches(last, _names(here, model), 1, 0.6)]
    full = get_close_matches(".".join(path), known, 1, 0.75)
    leaves = {name.rsplit(".", 1)[-1]: name for name in known}
    anywhere = [leaves[close] for close in get_close_matches(last, list(leaves), 1, 0.8)]
    for candidates in (same[:3], near, full, anywhere):
        if candidates:
            return f"did you mean {_either(candidates)}?"
    return f"{'.'.join(here) or 'the configuration'} has the keys {', '.join(_names(here, model))}"


def _names(path: Path, model: Model) -> list[str]:
    _, field = _field_of(path, model)
    section = model if field is None else section_of(field)
    return list(section.model_fields) if section else []
