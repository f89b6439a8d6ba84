"""How are values written as YAML?

Through PyYAML's safe loader, and with less than that allows: no anchors and no aliases, of which a few lines can stand
for billions of values. Depth and number of values are counted from the stream of events, before anything is made.
"""

from __future__ import annotations

from typing import Any

from django_tasks.decoding import from_object
from django_tasks.encoding import LIMITS, Limits, to_json
from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.serializers.form import Serializer, missing, too_large

try:
    import yaml
except ImportError:  # pragma: no cover
    yaml = None  # type: ignore[assignment]

_MISSING = missing(yaml, "yaml")

_LONGEST_INT = 700
"""Characters: 2048 bits and to spare. Larger ones are tagged; sexagesimal ones of any length take quadratic time."""


def _dumps(value: object, *, root: str = "value", limits: Limits = LIMITS) -> bytes:
    try:
        tree = to_json(value, root, limits)
        text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=_NO_FOLDS)
    except RecursionError as error:
        raise SerializationError(root, "nested deeper than Python's stack is at this place") from error
    except UnicodeEncodeError as error:
        raise SerializationError(root, "YAML has no halves of surrogate pairs; send it as JSON") from error
    data: bytes = text.encode("ascii")
    excess = too_large(len(data), limits) or _count(data, limits)
    if excess is not None:
        raise SerializationError(root, f"{excess}; store the data and pass a reference to it")
    return data


_NO_FOLDS = 1 << 30


def _loads(data: bytes, limits: Limits = LIMITS) -> Any:
    if (excess := too_large(len(data), limits)) is not None:
        raise DecodeError(excess)
    try:
        excess = _count(bytes(data), limits)
        value = None if excess else yaml.load(bytes(data), Loader=_Loader)
    except DecodeError:
        raise
    # Text that looks like a date and is none is a ValueError; a tag on what it does not fit can be any of these.
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise DecodeError(f"not valid YAML: {str(error)[:200]}") from error
    if excess is not None:
        raise DecodeError(excess)
    return value


def _count(data: bytes, limits: Limits) -> str | None:
    """Say which limit a text passes; raises DecodeError for aliases."""
    depth = nodes = 0
    keys: list[bool | None] = []
    for event in yaml.parse(data, Loader=_PARSER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise DecodeError("the YAML has an anchor or an alias, which are not read here")
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            keys.pop()
        elif isinstance(event, yaml.NodeEvent):
            # In a mapping keys and values take turns; keys are not counted.
            if keys and keys[-1] is not None:
                keys[-1] = not keys[-1]
            if not (keys and keys[-1]):
                nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                keys.append(False if isinstance(event, yaml.MappingStartEvent) else None)
        if depth > limits.depth:
            return f"nested {depth:,} levels deep or more; the limit is {limits.depth:,}"
        if nodes > limits.nodes:
            return f"{nodes:,} values or more; the limit is {limits.nodes:,}"
    return None


if yaml is not None:
    _PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    _Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class _Loader(_PARSER):  # type: ignore[misc,valid-type]
        """Gives tagged values, and bounds integers."""

        def construct_yaml_map(self, node: Any) -> Any:
            # At once, inner values first: PyYAML's own fills in later what could contain itself, and here nothing can.
            return from_object(self.construct_mapping(node, deep=True))

        def construct_yaml_int(self, node: Any) -> int:
            if len(node.value) > _LONGEST_INT:
                raise DecodeError(f"an integer of {len(node.value):,} characters; the limit is {_LONGEST_INT}")
            found: int = super().construct_yaml_int(node)
            return found

    _Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_yaml_map)
    _Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)

YAML = Serializer("yaml", "application/x-yaml", "utf-8", _dumps, _loads, _MISSING)
