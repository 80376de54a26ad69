"""The formats in XML: XMLBIF 0.3 (Cozman, 1998) and the files of GeNIe 2 and later (.xdsl).

In the tables of both the node's own state runs fastest, then the last parent.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical.formats._text import (
    Definition,
    Draft,
    FormatError,
    Source,
    Target,
    floats,
    is_number,
    printed,
    read_source,
    require,
    shaped,
    shown,
    write_text,
)

_OUTCOME = re.compile(r"\S(?:.*\S)?")
_WORD = re.compile(r"\S+")
_ALLOWED = re.compile("[^\ufffe\uffff]+")


@dataclass
class _Element:
    """An element; ``at`` is its number, by which its place is found."""

    tag: str
    attributes: dict[str, str]
    at: int
    children: list["_Element"] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces).strip()

    def all(self, *tags: str) -> Iterator["_Element"]:
        """The children with one of these tags."""
        return (child for child in self.children if child.tag in tags)


class _Document:
    """A parsed XML text that knows where its elements stand; tags are in upper case."""

    def __init__(self, source: Source) -> None:
        content, self._source = read_source(source)
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
            encoding: str | None = "utf-8"
        else:
            encoding = None
        stripped = content.removeprefix(b"\xef\xbb\xbf").lstrip()  # blanks before the declaration: found in the wild
        self._skipped = content[: len(content) - len(stripped)].count(b"\n")
        self._places: list[tuple[int, int]] = []
        self.root = _Element("", {}, -1)
        self._open = [self.root]
        parser = expat.ParserCreate(encoding)
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = lambda tag: self._open.pop()
        parser.CharacterDataHandler = lambda text: self._open[-1].pieces.append(text)
        parser.EntityDeclHandler = self._refuse_entity
        self._parser = parser
        try:
            parser.Parse(stripped, True)
        except expat.ExpatError as error:
            raise self._error(error.lineno, error.offset + 1, f"expected well-formed XML: {error}") from error
        except (LookupError, ValueError) as error:  # of encodings
            if isinstance(error, FormatError):
                raise
            raise self._error(1, 1, f"expected XML in a known encoding: {error}") from error

    def _error(self, line: int, column: int, reason: str) -> FormatError:
        return FormatError(self._source, line + self._skipped, column, reason)

    def error(self, at: int, reason: str) -> FormatError:
        """Return an error that names where element ``at`` stands."""
        line, column = self._places[at] if self._places else (1, 1)
        return self._error(line, column, reason)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        element = _Element(tag.upper(), attributes, len(self._places))
        self._places.append((self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber + 1))
        self._open[-1].children.append(element)
        self._open.append(element)

    def _refuse_entity(self, name: str, *_: Any) -> None:
        line, column = self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber + 1
        raise self._error(line, column, f"expected no declarations of entities, found that of {name!r}")

    def only(self, parent: _Element, *tags: str) -> _Element:
        """The one child with one of these tags."""
        found = list(parent.all(*tags))
        if len(found) != 1:
            at = found[1].at if found else max(parent.at, 0)
            raise self.error(at, f"expected one <{tags[0]}> in <{parent.tag or 'document'}>, found {len(found)}")
        return found[0]

    def numbers(self, element: _Element) -> list[float]:
        """The numbers that the element holds."""
        words = element.text.split()
        try:
            return floats(words)
        except ValueError:
            word = next(word for word in words if not is_number(word))
            raise self.error(element.at, f"expected numbers in <{element.tag}>, found {shown(word)}") from None


def read_xmlbif(source: Source) -> DiscreteNetwork:
    """Read a network in XMLBIF 0.3 (.bifxml, .xmlbif, .xml).

    Parameters
    ----------
    source : path-like or stream
        May be compressed with gzip.

    Returns
    -------
    DiscreteNetwork
        Nodes in the order of the file; numbers as they are printed, rows not rescaled. Blanks around names are dropped.

    Raises
    ------
    FormatError
        If the file is malformed or the network not valid, or a variable is a decision or utility.
    """
    document = _Document(source)
    network = document.only(document.only(document.root, "BIF"), "NETWORK")
    draft = Draft(document)
    for variable in network.all("VARIABLE"):
        kind = variable.attributes.get("TYPE", variable.attributes.get("type", "nature"))
        if kind.lower() not in ("nature", "discrete"):
            raise document.error(variable.at, f"expected a variable of type 'nature', found {shown(kind)}")
        name = document.only(variable, "NAME")
        outcomes = list(variable.all("OUTCOME", "VALUE"))
        draft.add_node(name.text, name.at, [outcome.text for outcome in outcomes], variable.at)
    for definition in network.all("DEFINITION", "PROBABILITY"):
        child = document.only(definition, "FOR")
        given = list(definition.all("GIVEN"))
        table = document.only(definition, "TABLE")
        names, places = [parent.text for parent in given], [parent.at for parent in given]
        draft.define(child.text, Definition(child.at, names, places, table))

    def tabulate(child: str, definition: Definition, shape: tuple[int, ...]) -> tuple[Array, Callable[[int], int]]:
        table = definition.body
        return shaped(document.numbers(table), shape, table.at, document), lambda row: table.at

    return draft.build(tabulate, network.at)


def write_xmlbif(network: DiscreteNetwork, target: Target) -> None:
    """Write a network in XMLBIF 0.3.

    Parameters
    ----------
    network : DiscreteNetwork
        Names must not begin or end with blanks.
    target : path-like or text stream
        Compressed if it is a path that ends in ``.gz``.

    Raises
    ------
    ValueError
        If the format cannot hold a name.
    """
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<BIF VERSION="0.3">', "<NETWORK>", "<NAME>unknown</NAME>"]
    names = [_text(name, "the node") for name in network.names]
    for name, labels in zip(names, network.states, strict=True):
        lines += ['<VARIABLE TYPE="nature">', f"\t<NAME>{name}</NAME>"]
        lines += [f"\t<OUTCOME>{_text(label, 'the state')}</OUTCOME>" for label in labels]
        lines.append("</VARIABLE>")
    for name, parents, table in zip(names, network.parents, network.tables, strict=True):
        lines += ["<DEFINITION>", f"\t<FOR>{name}</FOR>"]
        lines += [f"\t<GIVEN>{names[parent]}</GIVEN>" for parent in parents]
        lines += [f"\t<TABLE>{' '.join(printed(table))}</TABLE>", "</DEFINITION>"]
    write_text(target, [*lines, "</NETWORK>", "</BIF>"])


def read_xdsl(source: Source) -> DiscreteNetwork:
    """Read a network of GeNIe 2 or later (.xdsl): nodes ``cpt`` and ``deterministic``, called by their ids.

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
        If the file is malformed or the network not valid, or has nodes of another kind (noisy gates, decisions,
        utilities, equations).
    """
    document = _Document(source)
    nodes = document.only(document.only(document.root, "SMILE"), "NODES")
    draft = Draft(document)
    for node in nodes.children:
        if node.tag not in ("CPT", "DETERMINISTIC"):
            raise document.error(
                node.at, f"expected <cpt> or <deterministic>, found <{node.tag.lower()}>, which is not supported"
            )
        name = _identity(document, node)
        draft.add_node(name, node.at, [_identity(document, state) for state in node.all("STATE")], node.at)
        parents = [parent for listed in node.all("PARENTS") for parent in listed.text.split()]
        draft.define(name, Definition(node.at, parents, [node.at] * len(parents), node))

    def tabulate(child: str, definition: Definition, shape: tuple[int, ...]) -> tuple[Array, Callable[[int], int]]:
        node = definition.body
        if node.tag == "CPT":
            numbers = document.only(node, "PROBABILITIES")
            return shaped(document.numbers(numbers), shape, numbers.at, document), lambda row: numbers.at
        results = document.only(node, "RESULTINGSTATES")
        codes = {state: code for code, state in enumerate(draft.states[child])}
        words = results.text.split()
        for word in words:
            if word not in codes:
                raise document.error(results.at, f"expected states of {child!r}, found {shown(word)}")
        n_rows, width = prod(shape[:-1]), shape[-1]
        if len(words) != n_rows:
            raise document.error(results.at, f"expected {n_rows * width} numbers, found {len(words) * width}")
        draft.reserve(n_rows * width, results.at, child)
        table = np.zeros((n_rows, width))
        table[np.arange(n_rows), [codes[word] for word in words]] = 1.0
        return table.reshape(shape), lambda row: results.at

    return draft.build(tabulate, nodes.at)


def write_xdsl(network: DiscreteNetwork, target: Target) -> None:
    """Write a network of GeNIe 2 or later (.xdsl).

    Parameters
    ----------
    network : DiscreteNetwork
        Names must not hold blanks. (GeNIe itself wants letters, digits and underscores, and a letter first.)
    target : path-like or text stream
        Compressed if it is a path that ends in ``.gz``.

    Raises
    ------
    ValueError
        If the format cannot hold a name.
    """
    names = [_text(require(name, _WORD, "the node", "an .xdsl file"), "the node") for name in network.names]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<smile version="1.0" id="unknown">', "\t<nodes>"]
    for node in network.order:  # as GeNIe has them: parents first
        parents = " ".join(names[parent] for parent in network.parents[node])
        lines.append(f"\t\t<cpt id={quoteattr(network.names[node])}>")
        for label in network.states[node]:
            _text(require(label, _WORD, "the state", "an .xdsl file"), "the state")
            lines.append(f"\t\t\t<state id={quoteattr(label)} />")
        if parents:
            lines.append(f"\t\t\t<parents>{parents}</parents>")
        lines += [f"\t\t\t<probabilities>{' '.join(printed(network.tables[node]))}</probabilities>", "\t\t</cpt>"]
    write_text(target, [*lines, "\t</nodes>", "</smile>"])


def _identity(document: _Document, element: _Element) -> str:
    if "id" not in element.attributes:
        raise document.error(element.at, f"expected an attribute 'id' of <{element.tag.lower()}>, found none")
    return element.attributes["id"]


def _text(name: str, what: str) -> str:
    require(name, _ALLOWED, what, "XML")
    return escape(require(name, _OUTCOME, what, "XMLBIF"))
