"""Hugin's net language (.net), as far as it describes flat networks of discrete chance nodes.

HUGIN API Reference Manual, chapter "The net language". ``data`` has one axis for each parent, in the order of the
potential's header, and the node itself last, which runs fastest. Its rows are weights: they need not sum to 1.
"""

import re
from collections.abc import Callable

import numpy as np

from fastgen._validation import Array
from fastgen.graphical._factors import SUM_TOLERANCE, DiscreteNetwork
from fastgen.graphical.formats._text import (
    Definition,
    Draft,
    Source,
    Target,
    Tokens,
    quoted,
    read_text,
    require,
    shaped,
    unquoted,
    write_text,
)

_STRING = r'"(?:[^"\\]|\\[\s\S])*(?:"|\\?\Z)'  # what is not closed ends with the text: to find that out once is enough
_COMMENT = re.compile(_STRING + r"|(%[^\n]*)")
_PATTERN = re.compile(_STRING + r'|[^\s{}()=|;"]+|\S')
_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_PUNCTUATION = frozenset("{}()=|;")

_Attributes = dict[str, tuple[int, int]]  # the words of each value: from where, to where


def read_net(source: Source) -> DiscreteNetwork:
    """Read a Hugin network (.net).

    Parameters
    ----------
    source : path-like or stream
        May be compressed with gzip.

    Returns
    -------
    DiscreteNetwork
        Nodes in the order of the file. Rows that sum to 1 within 0.01 are as they are printed; others are weights, as
        the format has it, and divided by their sums.

    Raises
    ------
    FormatError
        If the file is malformed or the network not valid, or holds what is not supported: decisions, utilities,
        continuous nodes, functions, classes (object-oriented networks), tables given as expressions.
    """
    text, name = read_text(source)
    tokens = Tokens(text, name, _PATTERN, _COMMENT if "%" in text else None)
    draft = Draft(tokens)
    while tokens.next < len(tokens.words):
        at = tokens.next
        if tokens.accept("net"):
            _read_attributes(tokens)
        elif tokens.accept("potential"):
            _read_potential(tokens, draft)
        else:
            tokens.accept("discrete")
            if not tokens.accept("node"):
                raise tokens.unexpected("'net', 'node' or 'potential' (other elements are not supported)", at)
            at = tokens.next
            node = _take_name(tokens, "the name of a node")
            attributes = _read_attributes(tokens)
            if "states" not in attributes:
                raise tokens.error(at, f"node {node!r} has no 'states': expected some")
            start, stop = attributes["states"]
            words = _within_parentheses(tokens, start, stop)
            draft.add_node(node, at, [unquoted(word) for word in words], start)
    return draft.build(lambda child, definition, shape: _tabulate(definition, shape, tokens), len(tokens.words))


def write_net(network: DiscreteNetwork, target: Target) -> None:
    """Write a Hugin network (.net).

    Parameters
    ----------
    network : DiscreteNetwork
        Nodes need names of ASCII letters, digits and underscores that do not begin with a digit; states any.
    target : path-like or text stream
        Compressed if it is a path that ends in ``.gz``.

    Raises
    ------
    ValueError
        If the format cannot hold the name of a node.
    """
    names = [require(name, _IDENTIFIER, "the node", "a .net file") for name in network.names]
    lines = ["net", "{", "}"]
    for name, labels in zip(names, network.states, strict=True):
        lines += [f"node {name}", "{", f"  states = ( {' '.join(map(quoted, labels))} );", "}"]
    for name, parents, table in zip(names, network.parents, network.tables, strict=True):
        given = " | " + " ".join(names[parent] for parent in parents) if parents else ""
        lines += [f"potential ( {name}{given} )", "{", f"  data = {_nested(table.tolist())} ;", "}"]
    write_text(target, lines)


def _nested(values: list[object]) -> str:
    if isinstance(values[0], list):
        return "(" + "".join(map(_nested, values)) + ")"  # type: ignore[arg-type]
    return "(" + " ".join(map(repr, values)) + ")"


def _take_name(tokens: Tokens, what: str) -> str:
    if not tokens.peek or tokens.peek in _PUNCTUATION or tokens.peek[0] == '"':
        raise tokens.unexpected(what)
    return tokens.take(what)


def _read_attributes(tokens: Tokens) -> _Attributes:
    attributes: _Attributes = {}
    tokens.expect("{")
    while not tokens.accept("}"):
        name = _take_name(tokens, "the name of an attribute, or '}'")
        tokens.expect("=")
        start, stop = tokens.next, tokens.find(";")
        tokens.next = stop + 1
        attributes[name] = start, stop
    return attributes


def _read_potential(tokens: Tokens, draft: Draft) -> None:
    tokens.expect("(")
    at = tokens.next
    child = _take_name(tokens, "the name of a node")
    parents: list[str] = []
    parents_at: list[int] = []
    if not tokens.accept(")"):
        tokens.expect("|")
        while not tokens.accept(")"):
            parents_at.append(tokens.next)
            parents.append(_take_name(tokens, "the name of a parent, or ')'"))
    attributes = _read_attributes(tokens)
    if "data" not in attributes:
        raise tokens.error(
            at, f"the potential of {child!r} has no 'data': expected some (expressions are not supported)"
        )
    draft.define(child, Definition(at, parents, parents_at, attributes["data"]))


def _within_parentheses(tokens: Tokens, start: int, stop: int) -> list[str]:
    words = tokens.words[start:stop]
    if words[:1] != ["("]:
        raise tokens.unexpected("'('", start)
    if words[-1] != ")":
        raise tokens.unexpected("')'", stop)
    for at, word in enumerate(words[1:-1], start + 1):
        if word in _PUNCTUATION:
            raise tokens.unexpected("a name or ')'", at)
    return words[1:-1]


def _tabulate(definition: Definition, shape: tuple[int, ...], tokens: Tokens) -> tuple[Array, Callable[[int], int]]:
    start, stop = definition.body
    words = tokens.words
    if words[start] != "(":
        raise tokens.unexpected("'('", start)
    if words[start:stop].count("(") != words[start:stop].count(")"):
        raise tokens.error(stop, "expected as many ')' as '('")
    tokens.next = start
    table = shaped(tokens.numbers(stop, "()"), shape, start, tokens)
    sums = table.sum(axis=-1, keepdims=True)
    weights = (np.abs(sums - 1) > SUM_TOLERANCE) & (sums > 0) & (sums < np.inf) & (table.min() >= 0)
    table = np.divide(table, sums, out=table, where=weights)

    def row_at(row: int) -> int:
        return [at for at in range(start, stop) if words[at] not in "()"][row * shape[-1]]

    return table, row_at
