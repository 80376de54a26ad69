"""The files of GeNIe 1 (.dsl): nested blocks of ``KEY = value;``.

PROBABILITIES have one axis for each parent, in the order of PARENTS, and the node itself last, which runs fastest.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical.formats._text import (
    Definition,
    Draft,
    Source,
    Target,
    Tokens,
    printed,
    quoted,
    read_text,
    require,
    shaped,
    unquoted,
    write_text,
)

_STRING = r'"(?:[^"\\]|\\[\s\S])*(?:"|\\?\Z)'  # what is not closed ends with the text: to find that out once is enough
_COMMENT = re.compile(_STRING + r"|(//[^\n]*|/\*[\s\S]*?(?:\*/|\Z))")
_PATTERN = re.compile(_STRING + r'|[^\s{}()=,;"]+|\S')
_IDENTIFIER = re.compile("[A-Za-z0-9_]+")
_PUNCTUATION = frozenset("{}()=,;")
_MOST_DEPTH = 20


@dataclass
class _Block:
    """What stands between braces: values (their words, from where to where), blocks and nodes."""

    values: dict[str, tuple[int, int]] = field(default_factory=dict)
    blocks: dict[str, "_Block"] = field(default_factory=dict)
    nodes: list[tuple[int, "_Block"]] = field(default_factory=list)


def read_dsl(source: Source) -> DiscreteNetwork:
    """Read a network of GeNIe 1 (.dsl).

    Parameters
    ----------
    source : path-like or stream
        May be compressed with gzip.

    Returns
    -------
    DiscreteNetwork
        Nodes in the order of the file; numbers as they are printed, rows not rescaled.

    Raises
    ------
    FormatError
        If the file is malformed or the network not valid, or a node is of another type than CPT.
    """
    text, name = read_text(source)
    tokens = Tokens(text, name, _PATTERN, _COMMENT if "//" in text or "/*" in text else None)
    if tokens.take("'net'").lower() != "net":
        raise tokens.unexpected("'net'", 0)
    _take_name(tokens, "the name of the network")
    nodes = _read_block(tokens, 0).nodes
    tokens.accept(";")
    if tokens.next < len(tokens.words):
        raise tokens.unexpected("the end")
    draft = Draft(tokens)
    for at, block in nodes:
        node = unquoted(tokens.words[at])
        for key, found in (
            ("TYPE", block.values),
            ("PARENTS", block.values),
            ("DEFINITION", block.blocks),
        ):
            if key not in found:
                raise tokens.error(at, f"node {node!r} has no {key}: expected one")
        start, _ = block.values["TYPE"]
        if tokens.words[start].upper() != "CPT":
            raise tokens.unexpected("CPT, the only type that is supported", start)
        values = block.blocks["DEFINITION"].values
        for key in ("NAMESTATES", "PROBABILITIES"):
            if key not in values:
                raise tokens.error(at, f"node {node!r} has no {key} in its DEFINITION: expected some")
        states = _listed(tokens, *values["NAMESTATES"])
        draft.add_node(node, at, [unquoted(word) for _, word in states], values["NAMESTATES"][0])
        parents = _listed(tokens, *block.values["PARENTS"])
        places, names = [at for at, _ in parents], [unquoted(word) for _, word in parents]
        draft.define(node, Definition(at, names, places, values["PROBABILITIES"]))

    def tabulate(child: str, definition: Definition, shape: tuple[int, ...]) -> tuple[Array, Callable[[int], int]]:
        start, stop = definition.body
        found = _listed(tokens, start, stop)
        tokens.next = start + 1
        table = shaped(tokens.numbers(stop - 1, ","), shape, start, tokens)
        return table, lambda row: found[row * shape[-1]][0]

    return draft.build(tabulate, len(tokens.words))


def write_dsl(network: DiscreteNetwork, target: Target) -> None:
    """Write a network of GeNIe 1 (.dsl).

    Parameters
    ----------
    network : DiscreteNetwork
        Nodes and states need names of ASCII letters, digits and underscores. (GeNIe itself wants them to begin with a
        letter.)
    target : path-like or text stream
        Compressed if it is a path that ends in ``.gz``.

    Raises
    ------
    ValueError
        If the format cannot hold a name.
    """
    names = [require(name, _IDENTIFIER, "the node", "a .dsl file") for name in network.names]
    lines = ["net Unnamed", "{"]
    for node in network.order:  # as GeNIe has them: parents first
        name = names[node]
        parents = ", ".join(names[parent] for parent in network.parents[node])
        labels = ", ".join(require(label, _IDENTIFIER, "the state", "a .dsl file") for label in network.states[node])
        lines += [
            f"\tnode {name}",
            "\t{",
            "\t\tTYPE = CPT;",
            "\t\tHEADER =",
            "\t\t{",
            f"\t\t\tID = {name};",
            f"\t\t\tNAME = {quoted(name)};",
            "\t\t};",
            f"\t\tPARENTS = ({parents});",
            "\t\tDEFINITION =",
            "\t\t{",
            f"\t\t\tNAMESTATES = ({labels});",
            f"\t\t\tPROBABILITIES = ({', '.join(printed(network.tables[node]))});",
            "\t\t};",
            "\t};",
        ]
    lines.append("};")
    write_text(target, lines)


def _take_name(tokens: Tokens, what: str) -> str:
    if not tokens.peek or tokens.peek in _PUNCTUATION:
        raise tokens.unexpected(what)
    return tokens.take(what)


def _read_block(tokens: Tokens, depth: int) -> _Block:
    if depth > _MOST_DEPTH:
        raise tokens.error(tokens.next, f"expected blocks nested at most {_MOST_DEPTH} deep")
    block = _Block()
    tokens.expect("{")
    while not tokens.accept("}"):
        key = _take_name(tokens, "a key, 'node' or '}'").upper()
        if tokens.accept("="):
            if tokens.peek == "{":
                block.blocks[key] = _read_block(tokens, depth + 1)
                tokens.accept(";")
            else:
                start, stop = tokens.next, tokens.find(";")
                tokens.next = stop + 1
                block.values[key] = start, stop
        else:
            at = tokens.next
            _take_name(tokens, "'=' or a name")
            inner = _read_block(tokens, depth + 1)
            tokens.accept(";")
            block.nodes += [(at, inner)] if key == "NODE" else inner.nodes  # a submodel
    return block


def _listed(tokens: Tokens, start: int, stop: int) -> list[tuple[int, str]]:
    """What stands between parentheses, and where, without the commas."""
    words = tokens.words[start:stop]
    if words[:1] != ["("]:
        raise tokens.unexpected("'('", start)
    if words[-1] != ")":
        raise tokens.unexpected("')'", stop)
    found = [(at, word) for at, word in enumerate(words[1:-1], start + 1) if word != ","]
    for at, word in found:
        if word in _PUNCTUATION:
            raise tokens.unexpected("a word, ',' or ')'", at)
    return found
