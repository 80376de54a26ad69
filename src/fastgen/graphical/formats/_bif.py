"""The Interchange Format for Bayesian networks (.bif), version 0.15, and what is found in the wild.

Cozman, "The Interchange Format for Bayesian Networks", 1996-98. A probability block holds ``table`` (the node's own
state runs slowest, the last parent fastest), or one row for each configuration of the parents, named by their states,
or ``default`` for the rows that are not there.
"""

import re
from collections.abc import Callable
from itertools import product
from math import prod

import numpy as np

from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical.formats._text import (
    Definition,
    Draft,
    Source,
    Target,
    Tokens,
    flat_index,
    printed,
    quoted,
    read_text,
    shown,
    unquoted,
    write_text,
)

# Strings do not go over lines: a lone quote in a property does no harm. Outside, a quote after a backslash is part of a
# word, so that after a lone quote no other one of its line is taken for the begin of a string.
_STRING = r'"(?:[^"\\\n]|\\[^\n])*"'
_COMMENT = re.compile(_STRING + r'|\\"|(//[^\n]*|/\*[\s\S]*?(?:\*/|\Z))')
_PATTERN = re.compile(_STRING + r'|[^\s{}()\[\],;|"]+(?:(?<=\\)"[^\s{}()\[\],;|"]*)*|\S')
_BARE = re.compile(r'(?!.*(?://|/\*))[^\s{}()\[\],;|"]+')
_PUNCTUATION = frozenset('{}()[],;|"')


def read_bif(source: Source) -> DiscreteNetwork:
    """Read a network in the Interchange Format (.bif).

    Beyond the format: blocks in any order, keywords in any case, commas and semicolons where they are or are not, names
    of any characters (between quotes: also blanks and brackets), ``discrete { a, b }`` without the number of states.
    ``probability (a b c)`` is, as the format has it, ``probability (a | b, c)``.

    Parameters
    ----------
    source : path-like or stream
        May be compressed with gzip.

    Returns
    -------
    DiscreteNetwork
        Nodes in the order of their ``variable`` blocks; numbers as they are printed, rows not rescaled. Without nodes
        if there is a ``network`` block alone.

    Raises
    ------
    FormatError
        If the file is malformed or empty, a row is missing or given twice, or the network is not valid; or if tables
        with a ``default`` would have more than 2^24 entries together.
    """
    text, name = read_text(source)
    tokens = Tokens(text, name, _PATTERN, _COMMENT if "//" in text or "/*" in text else None)
    draft = Draft(tokens)
    declared = False
    while tokens.next < len(tokens.words):
        keyword = tokens.peek.lower()
        if keyword not in ("network", "variable", "probability"):
            raise tokens.unexpected("'network', 'variable' or 'probability'")
        tokens.next += 1
        if keyword == "network":
            declared = True
            while tokens.peek not in ("{", ""):  # a name of any number of words, or none
                tokens.next += 1
            tokens.expect("{")
            while not tokens.accept("}"):
                _skip_property(tokens)
        elif keyword == "variable":
            _read_variable(tokens, draft)
        else:
            _read_probability(tokens, draft)
    return draft.build(
        lambda child, definition, shape: _tabulate(child, definition, shape, draft, tokens),
        len(tokens.words),
        may_be_empty=declared,  # so the grammar has it
    )


def write_bif(network: DiscreteNetwork, target: Target) -> None:
    """Write a network in the Interchange Format (.bif), one row for each configuration of the parents.

    Parameters
    ----------
    network : DiscreteNetwork
        Names that hold blanks, brackets, commas, semicolons, bars, quotes or comment marks are written between quotes.
    target : path-like or text stream
        Compressed if it is a path that ends in ``.gz``.
    """
    lines = ["network unknown {", "}"]
    names = [_word(name) for name in network.names]
    states = [[_word(label) for label in labels] for labels in network.states]
    for name, labels in zip(names, states, strict=True):
        lines += [f"variable {name} {{", f"  type discrete [ {len(labels)} ] {{ {', '.join(labels)} }};", "}"]
    for node, (parents, table) in enumerate(zip(network.parents, network.tables, strict=True)):
        given = " | " + ", ".join(names[parent] for parent in parents) if parents else ""
        lines.append(f"probability ( {names[node]}{given} ) {{")
        numbers = printed(table)
        width = table.shape[-1]
        if not parents:
            lines.append(f"  table {', '.join(numbers)};")
        else:
            for row, given_states in enumerate(product(*(states[parent] for parent in parents))):
                lines.append(f"  ({', '.join(given_states)}) {', '.join(numbers[row * width : (row + 1) * width])};")
        lines.append("}")
    write_text(target, lines)


def _word(name: str) -> str:
    return name if _BARE.fullmatch(name) else quoted(name)


def _take_name(tokens: Tokens, what: str) -> str:
    if not tokens.peek or tokens.peek in _PUNCTUATION:
        raise tokens.unexpected(what)
    return unquoted(tokens.take(what))


def _skip_property(tokens: Tokens) -> None:
    """Skip to after the semicolon, or to the end of the block if there is none."""
    if tokens.peek.lower() != "property":
        raise tokens.unexpected("'property' or '}'")
    while tokens.peek not in ("}", ""):
        if tokens.take("';'") == ";":
            return


def _read_variable(tokens: Tokens, draft: Draft) -> None:
    at = tokens.next
    name = _take_name(tokens, "the name of a variable")
    tokens.expect("{")
    states: list[str] | None = None
    states_at = at
    while not tokens.accept("}"):
        if tokens.peek.lower() != "type":
            if tokens.peek.lower() != "property":
                raise tokens.unexpected("'type', 'property' or '}'")
            _skip_property(tokens)
            continue
        tokens.next += 1
        if tokens.peek.lower() != "discrete":
            raise tokens.unexpected("'discrete', the only type that is supported,")
        tokens.next += 1
        count: int | None = None
        if tokens.accept("["):
            count = tokens.natural("the number of states")
            tokens.expect("]")
        tokens.expect("{")
        states_at = tokens.next
        states = []
        while not tokens.accept("}"):
            if not tokens.accept(","):
                states.append(_take_name(tokens, "the name of a state, or '}'"))
        if count is not None and count != len(states):
            raise tokens.error(states_at, f"expected {count} states, found {len(states)}")
        tokens.accept(";")
    if states is None:
        raise tokens.error(at, f"variable {name!r} has no 'type': expected one")
    draft.add_node(name, at, states, states_at)


def _read_probability(tokens: Tokens, draft: Draft) -> None:
    tokens.expect("(")
    at = tokens.next
    child = _take_name(tokens, "the name of a variable")
    parents: list[str] = []
    parents_at: list[int] = []
    tokens.accept("|")
    while not tokens.accept(")"):
        if not tokens.accept(","):
            parents_at.append(tokens.next)
            parents.append(_take_name(tokens, "the name of a parent, or ')'"))
    tokens.expect("{")
    blocks: dict[str, tuple[int, list[float]]] = {}
    rows: list[tuple[int, list[str], list[float]]] = []
    words = tokens.words
    while not tokens.accept("}"):
        start = tokens.next
        keyword = tokens.peek.lower()
        if keyword == "property":
            _skip_property(tokens)
        elif keyword == "(":
            close = tokens.find(")")
            labels = [unquoted(word) for word in words[start + 1 : close] if word != ","]
            tokens.next = close + 1
            rows.append((start, labels, _read_numbers(tokens)))
        elif keyword in ("table", "default"):
            tokens.next += 1
            if keyword in blocks:
                raise tokens.error(start, f"{child!r} has two entries {keyword!r}")
            blocks[keyword] = start, _read_numbers(tokens)
        else:
            raise tokens.unexpected("'(', 'table', 'default', 'property' or '}'")
    draft.define(child, Definition(at, parents, parents_at, (blocks, rows)))


def _read_numbers(tokens: Tokens) -> list[float]:
    try:
        stop = tokens.words.index(";", tokens.next)
    except ValueError:
        stop = len(tokens.words)
    numbers = tokens.numbers(stop, ",", "a number or ';'")
    tokens.expect(";")
    return numbers


def _tabulate(
    child: str, definition: Definition, shape: tuple[int, ...], draft: Draft, tokens: Tokens
) -> tuple[Array, Callable[[int], int]]:
    blocks, rows = definition.body
    n_rows, width = prod(shape[:-1]), shape[-1]
    parents = definition.parents
    codes = [{label: code for code, label in enumerate(draft.states[parent])} for parent in parents]
    found: dict[int, int] = {}  # where each row stands
    for at, labels, numbers in rows:
        if len(labels) != len(parents):
            raise tokens.error(at, f"expected the states of {len(parents)} parents, found {len(labels)}")
        try:
            row = flat_index([code[label] for code, label in zip(codes, labels, strict=True)], shape)
        except KeyError:
            axis = next(axis for axis, code in enumerate(codes) if labels[axis] not in code)
            raise tokens.error(at, f"expected a state of {parents[axis]!r}, found {shown(labels[axis])}") from None
        if row in found:
            raise tokens.error(at, f"the row of ({', '.join(labels)}) is given twice")
        found[row] = at
        _check_count(numbers, width, at, tokens)
    rest = definition.at  # where all other rows stand
    if "table" in blocks:
        rest, numbers = blocks["table"]
        _check_count(numbers, n_rows * width, rest, tokens)
        table = np.array(numbers).reshape(width, n_rows).T.copy()
    elif "default" in blocks:
        rest, numbers = blocks["default"]
        _check_count(numbers, width, rest, tokens)
        draft.reserve(n_rows * width, rest, child)
        table = np.tile(numbers, (n_rows, 1))
    elif len(found) < n_rows:
        row = next(row for row in range(n_rows) if row not in found)
        labels = []
        for parent in reversed(parents):
            row, state = divmod(row, len(draft.states[parent]))
            labels.append(draft.states[parent][state])
        given = ", ".join(reversed(labels))
        what = f"the row ({given})" if parents else "a table"
        raise tokens.error(rest, f"expected {what} for {child!r}, found none, and no 'default'")
    else:
        table = np.empty((n_rows, width))
    if found:
        table[list(found)] = [numbers for _, _, numbers in rows]
    return table.reshape(shape), lambda row: found.get(row, rest)


def _check_count(numbers: list[float], expected: int, at: int, tokens: Tokens) -> None:
    if len(numbers) != expected:
        raise tokens.error(at, f"expected {expected} numbers, found {len(numbers)}")
