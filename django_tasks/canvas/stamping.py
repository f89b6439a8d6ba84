"""How is each call of a workflow given headers by which it is known later?

Stamps travel as Celery has them: in the options of a signature under their own names, which `stamped_headers` lists;
in the headers of a message as `stamps`, beside that list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from django_tasks.message import STAMPS
from django_tasks.options import CALL_OPTIONS

Headers = Mapping[str, Any]
"""Stamps by name, and `stamped_headers`, which lists those names. What else is in it are options."""

NAMES = "stamped_headers"


class StampingVisitor(ABC):
    """Says what each part of a workflow is stamped with: subclass it, and give it to `stamp`.

    Each method gets the part, and as keywords the stamps that it is given from outside. What it returns is added:
    stamps by name, or, where it has `stamped_headers`, those that this lists, and options of the call beside them.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> Mapping[str, Any]:
        """Return the stamps of the call of a task."""

    def on_chain_start(self, chain: Any, **headers: Any) -> Mapping[str, Any]:
        """Return the stamps of all steps of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027  # to be overridden, or not
        """Take note that all steps of a chain were stamped."""

    def on_group_start(self, group: Any, **headers: Any) -> Mapping[str, Any]:
        """Return the stamps of all members of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027  # as above
        """Take note that all members of a group were stamped."""

    def on_chord_header_start(self, sig: Any, **headers: Any) -> Mapping[str, Any]:
        """Return the stamps of the header of a chord, and of its body; as for a group unless overridden."""
        return self.on_group_start(sig.header, **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:
        """Take note that the header of a chord was stamped; as for a group unless overridden."""
        self.on_group_end(sig.header, **headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> Mapping[str, Any]:
        """Return the stamps of the body of a chord."""
        return {}

    def on_callback(self, callback: Any, **headers: Any) -> Mapping[str, Any]:
        """Return the stamps of what is linked to a call."""
        return {}

    def on_errback(self, errback: Any, **headers: Any) -> Mapping[str, Any]:
        """Return the stamps of what is sent when a call has failed."""
        return {}


def stamp(node: Any, visitor: StampingVisitor | None, headers: Headers, *, append: bool) -> None:
    """Stamp each call that a node is made of, and what is linked to it."""
    match node.subtask_type:
        case "chain" | "group" as kind:
            told = headers
            if visitor is not None:
                begin = visitor.on_chain_start if kind == "chain" else visitor.on_group_start
                told = _with(headers, begin(node, **headers), append)
            stamp_links(node, visitor, told, append=append)
            for task in node.tasks:
                stamp(task, visitor, told, append=append)
            if visitor is not None:
                (visitor.on_chain_end if kind == "chain" else visitor.on_group_end)(node, **told)
        case "chord":
            _stamp_chord(node, visitor, headers, append)
        case _:
            stamp_links(node, visitor, headers, append=append)
            told = _with(headers, visitor.on_signature(node, **headers) if visitor is not None else {}, append)
            own = node.options.get("stamps") or {}
            node.set(**_fit(_with(told, own, append) if append else told))


def _stamp_chord(node: Any, visitor: StampingVisitor | None, headers: Headers, append: bool) -> None:
    told = headers
    if visitor is not None:
        told = _with(headers, visitor.on_chord_header_start(node, **headers), append)
    stamp_links(node, visitor, told, append=append)
    for task in node.tasks:
        stamp(task, visitor, told, append=append)
    if visitor is not None:
        visitor.on_chord_header_end(node, **told)
    if node.body is not None:
        if visitor is not None:
            told = _with(told, visitor.on_chord_body(node, **told), append)
        stamp(node.body, visitor, told, append=append)


def stamp_links(node: Any, visitor: StampingVisitor | None, headers: Headers, *, append: bool) -> None:
    """Stamp what is linked to a node, for either end that it may take."""
    for callback in node.options.get("link") or ():
        said = {} if visitor is None else visitor.on_callback(callback, **headers)
        stamp(callback, visitor, _with(headers, said, append), append=append)
    for errback in node.options.get("link_error") or ():
        said = {} if visitor is None else visitor.on_errback(errback, **headers)
        stamp(errback, visitor, _with(headers, said, append), append=append)


def _with(headers: Headers, said: Mapping[str, Any] | None, append: bool) -> Headers:
    """Return headers with what was said beside them; of two stamps of one name the first stays, or, if they are
    appended or both are lists, both do."""
    if not said:
        return headers
    told = dict(headers)
    for name, value in said.items():
        if name not in told:
            told[name] = value
        elif name != NAMES and (append or (isinstance(told[name], list) and isinstance(value, list))):
            told[name] = _several(told[name])
            told[name] += [each for each in _several(value) if each not in told[name]]
    fresh = said if said.get(NAMES) is None else said[NAMES]
    told[NAMES] = list(dict.fromkeys([*(headers.get(NAMES) or ()), *(name for name in fresh if name != NAMES)]))
    return told


def _fit(headers: Headers) -> dict[str, Any]:
    """Return the stamps among headers, and the options of a call; what else visitors say is for themselves."""
    fit = {NAMES, *(headers.get(NAMES) or ()), *CALL_OPTIONS}
    return {name: value for name, value in headers.items() if name in fit}


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


def named(headers: Mapping[str, Any]) -> Headers:
    """Return stamps, as keywords give them, with the list of their names."""
    if headers.get(NAMES) is not None:
        return headers
    stamps = {name: value for name, value in headers.items() if name != NAMES}
    return {**stamps, NAMES: list(stamps)} if stamps else stamps


def gathered(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the stamps among them, which Celery has beside the others, in a dictionary of their own;
    raises TypeError or ValueError for what cannot be one."""
    if NAMES not in options:
        return dict(options)
    names = options[NAMES] or ()
    if not isinstance(names, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"stamped_headers is a list of the names of stamps, not {names!r:.80}.")
    if taken := sorted(CALL_OPTIONS & set(names)):
        raise ValueError(f"A stamp cannot be named {taken[0]!r}, as an option of the call is; choose another name.")
    found = {name: options[name] for name in names if name in options}
    rest = {name: value for name, value in options.items() if name != NAMES and name not in found}
    return {**rest, "stamps": {**(rest.get("stamps") or {}), **found}} if found else rest


def gathered_over(below: Mapping[str, Any], options: Mapping[str, Any], *, own: bool = False) -> dict[str, Any]:
    """Return options, gathered, to be laid over others: stamps of both stay, and of one name the later, or with `own`
    the one below."""
    found, before = gathered(options), below.get("stamps") or {}
    if stamps := found.get("stamps"):
        found["stamps"] = {**stamps, **before} if own else {**before, **stamps}
    return found


def spread(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with stamps as Celery has them; what `gathered` undoes."""
    stamps = options.get("stamps")
    rest = {name: value for name, value in options.items() if name != "stamps"}
    return {**rest, **stamps, NAMES: list(stamps)} if stamps else rest


def stamp_headers(stamps: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the headers of a message that is stamped; raises TypeError or ValueError for stamps that cannot be."""
    if not stamps:
        return {}
    plain: dict[Any, Any] = {name: _plain(value) for name, value in stamps.items()}
    if not all(isinstance(name, str) for name in plain):
        raise TypeError("The names of stamps are texts.")
    if sum(len(_several(value)) for value in plain.values()) > STAMPS:
        raise ValueError(f"A call has at most {STAMPS} stamps, the values of lists counted.")
    return {NAMES: list(plain), "stamps": plain}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | set | frozenset) else value
