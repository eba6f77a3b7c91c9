"""JSON values to frozen dataclasses, by their annotations: nothing missing, nothing unknown, all types as they say.

Only a field that files of this format have had from some later version on (`metadata={"later": True}`) may be missing;
its default then says that it is not known.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

__all__ = ["build"]


def build(kind: Any, value: Any, name: str = "") -> Any:
    """A value of a type out of what JSON makes of it; dataclasses may hold dataclasses.

    Args:
      kind: a dataclass, or what one may be annotated with: str, bool, int, float, tuples of these, mappings, unions.
      value: from `json.loads`.
      name: of the field, for errors.

    Raises:
      ValueError: naming the field: it is missing, unknown, of another type, or a number that is not finite.
    """
    if dataclasses.is_dataclass(kind):
        found = _dataclass(kind, value, name)
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        found = _union(kind, value, name)
    elif typing.get_origin(kind) is tuple:
        found = _tuple(kind, value, name)
    elif typing.get_origin(kind) in (dict, Mapping):
        inner = typing.get_args(kind)[1]
        items = _object(value, name)
        found = {key: item if inner is Any else build(inner, item, f"{name}.{key}") for key, item in items}
    elif kind is float and type(value) in (int, float) and math.isfinite(value):
        found = float(value)
    elif kind is not float and type(value) is kind:  # True is no number here
        found = value
    else:
        raise ValueError(f"{name}: {value!r} is no {kind.__name__}{' that is finite' if kind is float else ''}")
    return found


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    hints, given = typing.get_type_hints(kind), dict(_object(value, name))
    given = {
        **{field.name: field.default for field in dataclasses.fields(kind) if field.metadata.get("later")},
        **given,
    }
    for what, names in (("missing", hints.keys() - given.keys()), ("unknown", given.keys() - hints.keys())):
        if names:
            raise ValueError(f"{name or kind.__name__}: field {', '.join(sorted(names))} {what}")
    prefix = f"{name}." if name else ""
    return kind(**{field: build(hint, given[field], prefix + field) for field, hint in hints.items()})


def _union(kind: Any, value: Any, name: str) -> Any:
    choices = typing.get_args(kind)
    if value is None and types.NoneType in choices:
        return None
    (other,) = (choice for choice in choices if choice is not types.NoneType)
    return build(other, value, name)


def _tuple(kind: Any, value: Any, name: str) -> Any:
    inner = typing.get_args(kind)
    if not isinstance(value, list):
        raise ValueError(f"{name}: {value!r} is no list")
    if inner[-1] is Ellipsis:
        inner = inner[:1] * len(value)
    if len(inner) != len(value):
        raise ValueError(f"{name}: {len(value)} values, expected {len(inner)}")
    return tuple(build(item, v, f"{name}[{i}]") for i, (item, v) in enumerate(zip(inner, value, strict=True)))


def _object(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: {value!r} is no object")
    return value.items()
