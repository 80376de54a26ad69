"""What the formats share: sources and targets, tokens that know their places, networks whose parts come in any order.

Text becomes a list of words by one regular expression. Where word i stands is only worked out for an error, by running
the expression again.
"""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork, NetworkError, check_name, check_states

Source = str | os.PathLike[str] | IO[str] | IO[bytes]
"""A path, or a stream to read."""

Target = str | os.PathLike[str] | IO[str]
"""A path, or a text stream to write to."""

MOST_ENTRIES = 1 << 24
"""Of all tables together whose numbers do not stand in the file one by one: 128 MiB."""

MOST_AXES = 64
"""Of an array of NumPy."""

_MOST_DIGITS = 18  # of a count
_NUMERIC = frozenset("0123456789+-.eE")
_VISIBLE = re.compile(r"[^\n]")


class FormatError(ValueError):
    """A file that does not follow its format, or not to a valid model.

    Attributes
    ----------
    source : str
        The path, or what a stream calls itself.
    line, column : int
        Where, from 1.
    reason : str
        What is wrong, and what was expected.
    """

    def __init__(self, source: str, line: int, column: int, reason: str) -> None:
        super().__init__(source, line, column, reason)
        self.source = source
        self.line = line
        self.column = column
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, column {self.column}: {self.reason}"


# ---- sources and targets ---------------------------------------------------------------------------------------------


def read_source(source: Source) -> tuple[str | bytes, str]:
    """Return what a source holds, uncompressed, and its name."""
    content: str | bytes
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        content = Path(source).read_bytes()
    else:
        name = str(getattr(source, "name", "<stream>"))
        content = source.read()
    if isinstance(content, bytes) and content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise FormatError(name, 1, 1, f"expected a whole gzip file: {error}") from error
    return content, name


def read_text(source: Source) -> tuple[str, str]:
    """Return the text of a source and its name."""
    content, name = read_source(source)
    if isinstance(content, bytes):
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    else:
        text = content
    return text.removeprefix("\ufeff"), name


def write_text(target: Target, lines: Sequence[str]) -> None:
    """Write lines to a path (compressed if it ends in .gz) or a text stream."""
    text = "\n".join(lines) + "\n"
    if isinstance(target, str | os.PathLike):
        content = text.encode("utf-8")
        if os.fspath(target).lower().endswith(".gz"):
            content = gzip.compress(content, mtime=0)  # the same bytes at any time
        Path(target).write_bytes(content)
    else:
        target.write(text)


def printed(values: Array) -> list[str]:
    """Return the shortest decimal numbers that are read back as these floats."""
    return list(map(repr, values.ravel().tolist()))


# ---- tokens ----------------------------------------------------------------------------------------------------------


class Places(Protocol):
    """Something that knows where its parts, which are numbered, stand."""

    def error(self, at: int, reason: str) -> FormatError:
        """Return the error that part ``at`` is to blame for."""


def floats(words: Sequence[str]) -> list[float]:
    """Return words as numbers; infinity, NaN, underscores and digits of other scripts are a ``ValueError``."""
    if not _NUMERIC.issuperset("".join(words)):
        raise ValueError
    return list(map(float, words))


def is_number(word: str) -> bool:
    """Whether `floats` takes this word."""
    try:
        floats([word])
    except ValueError:
        return False
    return True


def shown(word: str) -> str:
    """Return a word as errors quote it."""
    return repr(word if len(word) <= 40 else word[:40] + "...")


class Tokens:
    """The words of a text, and the one that is next.

    Parameters
    ----------
    text, source : str
    pattern : compiled regular expression
        What a word is; has no groups.
    comment : compiled regular expression, optional
        What to skip. Matches a quoted string too, so that comments are not found inside; its group 1 is a comment. One
        that begins with ``/*`` must end with ``*/``.

    Notes
    -----
    Linear in the length of the text, if no word or comment can begin where the search for its end has failed before.
    """

    def __init__(
        self, text: str, source: str, pattern: re.Pattern[str], comment: re.Pattern[str] | None = None
    ) -> None:
        self._text = text
        self._source = source
        if comment is not None:
            text = self._text = comment.sub(self._blank, text)
        self._pattern = pattern
        self.words: list[str] = pattern.findall(text)
        self.next = 0

    @property
    def peek(self) -> str:
        """The next word; empty at the end."""
        return self.words[self.next] if self.next < len(self.words) else ""

    def error(self, at: int, reason: str) -> FormatError:
        """Return an error that names where word ``at`` stands (the end of the text, if there is no such word)."""
        offset = len(self._text.rstrip())
        for number, match in enumerate(self._pattern.finditer(self._text)):
            if number == at:
                offset = match.start()
                break
        return self._error(offset, reason)

    def _error(self, offset: int, reason: str) -> FormatError:
        line = self._text.count("\n", 0, offset) + 1
        column = offset - self._text.rfind("\n", 0, offset)
        return FormatError(self._source, line, column, reason)

    def _blank(self, match: re.Match[str]) -> str:
        comment = match.group(1)
        if comment is None:
            return match.group()
        if comment.startswith("/*") and (len(comment) < 4 or not comment.endswith("*/")):
            raise self._error(match.start(), "expected '*/' after this '/*', found the end")
        return _VISIBLE.sub(" ", comment)

    def unexpected(self, expected: str, at: int | None = None) -> FormatError:
        """Return the error that the next word (or word ``at``) is not what was expected."""
        at = self.next if at is None else at
        found = shown(self.words[at]) if at < len(self.words) else "the end"
        return self.error(at, f"expected {expected}, found {found}")

    def take(self, expected: str) -> str:
        """Return the next word and go on; an error at the end."""
        if self.next >= len(self.words):
            raise self.unexpected(expected)
        self.next += 1
        return self.words[self.next - 1]

    def expect(self, word: str) -> None:
        """Go on if the next word is this one."""
        if self.peek != word:
            raise self.unexpected(repr(word))
        self.next += 1

    def accept(self, word: str) -> bool:
        """Go on if the next word is this one; whether it was."""
        if self.peek != word:
            return False
        self.next += 1
        return True

    def numbers(self, stop: int, skip: Container[str] = (), expected: str = "a number") -> list[float]:
        """Return the words up to ``stop`` as numbers but for those to be skipped, and go on from there."""
        try:
            found = floats([word for word in self.words[self.next : stop] if word not in skip])
        except ValueError:
            words = enumerate(self.words[self.next : stop], self.next)
            at = next(at for at, word in words if word not in skip and not is_number(word))
            raise self.unexpected(expected, at) from None
        self.next = stop
        return found

    def natural(self, what: str) -> int:
        """Return the next word, which must be a number of digits alone, and go on."""
        word = self.take(what)
        if not (word.isascii() and word.isdigit()) or len(word) > _MOST_DIGITS:
            raise self.unexpected(what, self.next - 1)
        return int(word)

    def find(self, word: str) -> int:
        """Return where the first such word from here on is; an error if there is none."""
        try:
            return self.words.index(word, self.next)
        except ValueError:
            raise self.error(len(self.words), f"expected {word!r}, found the end") from None


# ---- names -----------------------------------------------------------------------------------------------------------


def quoted(name: str) -> str:
    r"""Return a name between quotes, with ``\"`` for ``"``."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquoted(word: str) -> str:
    """Return what stands between quotes; other words as they are."""
    if len(word) < 2 or word[0] != '"':
        return word
    inner = word[1:-1]
    return re.sub(r'\\(["\\])', r"\1", inner) if "\\" in inner else inner


def require(name: str, pattern: re.Pattern[str], what: str, kind: str) -> str:
    """Return the name if a format that knows no quotes can hold it."""
    if not pattern.fullmatch(name):
        raise ValueError(
            f"{kind} cannot hold {what} {name!r}, only names like {pattern.pattern}: rename it "
            "(dataclasses.replace(network, names=..., states=...)) or write another format"
        )
    return name


# ---- networks --------------------------------------------------------------------------------------------------------


@dataclass
class Definition:
    """The distribution of a node, as it was found.

    ``at`` and ``parents_at`` say where, ``body`` is the format's own.
    """

    at: int
    parents: list[str]
    parents_at: list[int]
    body: Any


class Draft:
    """A network that is being read: nodes and distributions in any order."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.states: dict[str, list[str]] = {}
        self._at: dict[str, int] = {}
        self._definitions: dict[str, Definition] = {}
        self._reserved = 0

    def reserve(self, entries: int, at: int, child: str) -> None:
        """Ask for entries of a table that do not stand in the file; an error if there are too many in all."""
        self._reserved += entries
        if self._reserved > MOST_ENTRIES:
            raise self._places.error(
                at,
                f"the table of {child!r} would have {entries} entries, {self._reserved} with those before: too many "
                f"that are not in the file (at most {MOST_ENTRIES})",
            )

    def add_node(self, name: str, at: int, states: list[str], states_at: int) -> None:
        """Declare a node; ``at`` and ``states_at`` say where."""
        try:
            check_name(name, 0)
        except NetworkError as error:
            raise self._places.error(at, str(error)) from error
        if name in self._at:
            raise self._places.error(at, f"there are two nodes called {name!r}")
        try:
            check_states(states, name, 0)
        except NetworkError as error:
            raise self._places.error(states_at, str(error)) from error
        self._at[name] = at
        self.states[name] = states

    def define(self, child: str, definition: Definition) -> None:
        """Give the distribution of a node."""
        if child in self._definitions:
            raise self._places.error(definition.at, f"node {child!r} has two distributions")
        self._definitions[child] = definition

    def build(
        self,
        tabulate: Callable[[str, Definition, tuple[int, ...]], tuple[Array, Callable[[int], int]]],
        whole: int = 0,
        *,
        may_be_empty: bool = False,
    ) -> DiscreteNetwork:
        """Return the network, which must have nodes unless it ``may_be_empty``.

        ``tabulate(child, definition, shape)`` gives a table of this shape, and a function that tells where a row of it
        (rows are counted with the last parent fastest) stands; ``whole`` is where the network does.
        """
        if not (self._at or self._definitions or may_be_empty):
            raise self._places.error(whole, "expected a network of at least one node, found none")
        numbers = {name: node for node, name in enumerate(self._at)}
        for child, definition in self._definitions.items():
            for name, at in zip((child, *definition.parents), (definition.at, *definition.parents_at), strict=True):
                if name not in numbers:
                    raise self._places.error(at, f"{name!r} is no node: expected one that is declared")
        tables, parents, rows = [], [], []
        for name, at in self._at.items():
            if name not in self._definitions:
                raise self._places.error(at, f"node {name!r} has no distribution: expected one")
            definition = self._definitions[name]
            shape = tuple(len(self.states[other]) for other in (*definition.parents, name))
            if len(shape) > MOST_AXES:
                raise self._places.error(definition.at, f"node {name!r} has more than {MOST_AXES - 1} parents")
            table, row_at = tabulate(name, definition, shape)
            table.flags.writeable = False  # the network then takes it as it is
            tables.append(table)
            rows.append(row_at)
            parents.append(tuple(numbers[parent] for parent in definition.parents))
        try:
            return DiscreteNetwork(
                tuple(numbers), tuple(map(tuple, self.states.values())), tuple(parents), tuple(tables)
            )
        except NetworkError as error:
            node = error.node or 0
            at = self._definitions[list(numbers)[node]].at
            if error.configuration is not None:
                at = rows[node](flat_index(error.configuration, tables[node].shape))
            raise self._places.error(at, str(error)) from error


def flat_index(states: Sequence[int], shape: Sequence[int]) -> int:
    """Return the number of a row: the last of the states fastest."""
    row = 0
    for state, cardinality in zip(states, shape, strict=False):
        row = row * cardinality + state
    return row


def shaped(numbers: Sequence[float], shape: tuple[int, ...], at: int, places: Places) -> Array:
    """Return numbers, the last axis fastest, as a table; an error at ``at`` if there are more or less."""
    if len(numbers) != prod(shape):
        raise places.error(at, f"expected {prod(shape)} numbers, found {len(numbers)}")
    return np.array(numbers).reshape(shape)
