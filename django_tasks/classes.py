"""Which class does a name stand for, and which name does a class have?

Names come from messages, so nothing here imports a module or runs code of a class or of its metaclass: everything is
read from the dictionaries of modules that are loaded already.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MemberDescriptorType, ModuleType
from typing import Any

_QUALNAME: Any = type.__dict__["__qualname__"]
_MODULE: Any = type.__dict__["__module__"]
_NAMESPACE: Any = type.__dict__["__dict__"]
_ORDER: Any = type.__dict__["__mro__"]
_BASE: Any = type.__dict__["__base__"]
_FLAGS: Any = type.__dict__["__flags__"]
_HEAP_TYPE = 1 << 9
"""CPython's flag of classes that were made while the program runs (Py_TPFLAGS_HEAPTYPE)."""
_MODULE_NAMESPACE: Any = _NAMESPACE.__get__(ModuleType)["__dict__"]


def qualified_name(cls: type) -> tuple[str, str]:
    """Return the module and the qualified name of a class, `?` for a module that is not told as text."""
    try:
        module = _MODULE.__get__(cls)
    except AttributeError:
        module = None
    return module if type(module) is str else "?", str(_QUALNAME.__get__(cls))


def display_name(cls: type) -> str:
    """Return `module.Class`, or `Class` alone for a builtin."""
    module, qualname = qualified_name(cls)
    return qualname if module == "builtins" else f"{module}.{qualname}"


def ancestors(cls: type) -> tuple[type, ...]:
    """Return the method resolution order of a class, the class itself first."""
    return tuple(_ORDER.__get__(cls))


def namespace(cls: type) -> Mapping[str, Any]:
    """Return what stands in the body of a class, as it stands there."""
    found: Mapping[str, Any] = _NAMESPACE.__get__(cls)
    return found


def attribute(cls: type, name: str) -> Any:
    """Return an attribute of a class as it stands in its body or that of an ancestor; None when there is none."""
    for each in ancestors(cls):
        if name in (found := namespace(each)):
            return found[name]
    return None


def is_stored(cls: type, name: str) -> bool:
    """Tell whether setting this attribute of an instance stores the value and runs nothing."""
    found = attribute(cls, name)
    return type(found) is MemberDescriptorType or attribute(type(found), "__set__") is None


def is_builtin(cls: type) -> bool:
    """Tell whether a class is compiled in, as against made by a class statement."""
    return not _FLAGS.__get__(cls) & _HEAP_TYPE


def builtin_ancestor(cls: type) -> Any:
    """Return the builtin class that instances of a class are laid out like; it makes them without code of the class."""
    while not is_builtin(cls):
        cls = _BASE.__get__(cls)
    return cls


def find_class(module: str, qualname: str) -> type | None:
    """Return the class of that name in a module that is imported already, else None."""
    place: object = sys.modules.get(module)
    if not issubclass(type(place), ModuleType):
        return None
    names: Mapping[str, Any] = _MODULE_NAMESPACE.__get__(place)
    for part in qualname.split("."):
        place = names.get(part)
        if not issubclass(type(place), type):
            return None
        names = _NAMESPACE.__get__(place)
    assert isinstance(place, type)
    return place
