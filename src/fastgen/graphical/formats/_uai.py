"""The files of the UAI inference competitions: models, evidence, solutions.

Formats: Gogate, "UAI 2014 inference competition" and "UAI 2016 inference evaluation". Words are separated by blanks;
``#`` begins a comment, and so does a lone ``c`` at the beginning of a line. Variables and states are numbers. In tables
the last variable of the scope runs fastest; in a BAYES model that is the child.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import numpy as np

from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork, Factor, FactorGraph
from fastgen.graphical.formats._text import (
    MOST_AXES,
    Definition,
    Draft,
    FormatError,
    Source,
    Target,
    Tokens,
    printed,
    read_text,
    write_text,
)

_PATTERN = re.compile(r"\S+")
_COMMENT = re.compile(r"(#[^\n]*|^[ \t]*c(?:[ \t][^\n]*)?$)", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class UaiSolution:
    """The reference solution of a task.

    Attributes
    ----------
    task : "PR" or "MAR"
    log10_partition : float or None
        The decimal logarithm of the partition function, or of p(evidence) (PR). Competitions print six digits.
    marginals : tuple of arrays
        The distribution of each variable given the evidence (MAR).
    """

    task: str
    log10_partition: float | None = None
    marginals: tuple[Array, ...] = ()


def read_uai(source: Source) -> FactorGraph | DiscreteNetwork:
    """Read a UAI model.

    Parameters
    ----------
    source : path-like or stream
        May be compressed with gzip.

    Returns
    -------
    FactorGraph
        If the preamble says MARKOV: factors in the order of the file.
    DiscreteNetwork
        If it says BAYES: nodes are called "x0", "x1", ..., and their states "0", "1", ... Its `factor_graph` has the
        variables as they are numbered in the file, and the factors in the order of their children.

    Raises
    ------
    FormatError
        If the file is malformed or the model not valid. In a BAYES model each variable must be the last of exactly one
        scope, and rows must sum to 1; what does not can be read as MARKOV.
    """
    return _read_model(_tokens(source))


def _read_model(tokens: Tokens) -> FactorGraph | DiscreteNetwork:
    kind = tokens.take("'MARKOV' or 'BAYES'").upper()
    if kind not in ("MARKOV", "BAYES"):
        raise tokens.unexpected("'MARKOV' or 'BAYES'", 0)
    cardinalities = []
    first = tokens.next + 1
    for _ in range(tokens.natural("the number of variables")):
        cardinality = tokens.natural("a cardinality")
        if cardinality < 1:
            raise tokens.unexpected("a cardinality of at least 1", tokens.next - 1)
        cardinalities.append(cardinality)
    scopes = []
    for _ in range(tokens.natural("the number of factors")):
        scopes.append((tokens.next, _read_scope(tokens, len(cardinalities))))
    tables = []
    for _, scope in scopes:
        tables.append((tokens.next + 1, _read_table(tokens, tuple(cardinalities[variable] for variable in scope))))
    if tokens.next < len(tokens.words):
        raise tokens.unexpected("the end")
    if kind == "MARKOV":
        factors = (Factor(scope, table) for (_, scope), (_, table) in zip(scopes, tables, strict=True))
        return FactorGraph(tuple(cardinalities), tuple(factors))
    draft = Draft(tokens)
    for variable, cardinality in enumerate(cardinalities):
        if cardinality > len(tokens.words):  # before as many names are made
            raise tokens.error(first + variable, f"cardinality {cardinality} is more than there are numbers")
        draft.add_node(f"x{variable}", first + variable, list(map(str, range(cardinality))), first + variable)
    for (at, scope), body in zip(scopes, tables, strict=True):
        if not scope:
            raise tokens.error(at, "expected a scope with a child, found an empty one")
        names = [f"x{variable}" for variable in scope]
        draft.define(names[-1], Definition(at, names[:-1], list(range(at + 1, at + len(scope))), body))

    def tabulate(child: str, definition: Definition, shape: tuple[int, ...]) -> tuple[Array, Callable[[int], int]]:
        at, table = definition.body
        return table, lambda row: at + row * shape[-1]

    return draft.build(tabulate)


def read_uai_network(source: Source) -> DiscreteNetwork:
    """Read a UAI model that is a directed network: BAYES."""
    tokens = _tokens(source)
    model = _read_model(tokens)
    if isinstance(model, FactorGraph):
        raise tokens.error(0, "expected 'BAYES', found 'MARKOV': read_uai reads undirected models")
    return model


def write_uai(model: FactorGraph | DiscreteNetwork, target: Target) -> None:
    """Write a UAI model: MARKOV for a `FactorGraph`, BAYES for a `DiscreteNetwork`, whose names are lost.

    Parameters
    ----------
    model : FactorGraph or DiscreteNetwork
    target : path-like or text stream
        Compressed if it is a path that ends in ``.gz``.
    """
    directed = isinstance(model, DiscreteNetwork)
    graph = model.factor_graph() if isinstance(model, DiscreteNetwork) else model
    lines = ["BAYES" if directed else "MARKOV", str(graph.n_variables), " ".join(map(str, graph.cardinalities))]
    lines.append(str(len(graph.factors)))
    lines += [" ".join(map(str, (len(factor.scope), *factor.scope))) for factor in graph.factors]
    for factor in graph.factors:
        numbers = printed(factor.table)
        width = factor.table.shape[-1] if factor.scope else 1
        lines += ["", str(len(numbers))]
        lines += [" " + " ".join(numbers[start : start + width]) for start in range(0, len(numbers), width)]
    write_text(target, lines)


def read_uai_evidence(source: Source) -> dict[int, int]:
    """Read UAI evidence: the number of observed variables and pairs of variable and state, or that after a lone "1".

    The older form begins with a number of samples; only one sample is supported. The count of numbers, odd or even,
    tells the two forms apart.

    Parameters
    ----------
    source : path-like or stream

    Returns
    -------
    dict of int to int
        The state of each observed variable.

    Raises
    ------
    FormatError
        If it is neither form, or a variable is observed twice.
    """
    tokens = _tokens(source)
    numbers = [tokens.natural("the number of observed variables")]
    while tokens.next < len(tokens.words):
        numbers.append(tokens.natural("a number of digits"))
    start = 1
    if len(numbers) != 1 + 2 * numbers[0]:
        start = 2
        if numbers[0] != 1 or len(numbers) < 2 or len(numbers) != 2 + 2 * numbers[1]:
            raise tokens.error(
                0, f"expected n and n pairs of variable and state, or 1, n and n pairs; found {len(numbers)} numbers"
            )
    evidence: dict[int, int] = {}
    for at in range(start, len(numbers), 2):
        if numbers[at] in evidence:
            raise tokens.error(at, f"variable {numbers[at]} is observed twice")
        evidence[numbers[at]] = numbers[at + 1]
    return evidence


def read_uai_solution(source: Source) -> UaiSolution:
    """Read a UAI solution of a task PR or MAR; the last one if there are several.

    Parameters
    ----------
    source : path-like or stream

    Returns
    -------
    UaiSolution

    Raises
    ------
    FormatError
        If the file is malformed, or has another task.
    """
    tokens = _tokens(source)
    task = tokens.take("'PR' or 'MAR'").upper()
    if task not in ("PR", "MAR"):
        raise tokens.unexpected("'PR' or 'MAR'", 0)
    start = 1 + max((at for at, word in enumerate(tokens.words) if word == "-BEGIN-"), default=0)
    tokens.next = start
    try:
        return _read_solution(tokens, task)
    except FormatError:
        if tokens.words[start : start + 1] != ["1"]:
            raise
        tokens.next = start + 1  # the older form: a number of samples first
        with suppress(FormatError):
            return _read_solution(tokens, task)
        raise


def _tokens(source: Source) -> Tokens:
    text, name = read_text(source)
    return Tokens(text, name, _PATTERN, _COMMENT)


def _read_scope(tokens: Tokens, n_variables: int) -> tuple[int, ...]:
    size = tokens.natural("the size of a scope")
    if size > min(n_variables, MOST_AXES):
        raise tokens.unexpected(f"the size of a scope, at most {min(n_variables, MOST_AXES)}", tokens.next - 1)
    scope: list[int] = []
    for _ in range(size):
        variable = tokens.natural("a variable")
        if variable >= n_variables or variable in scope:
            raise tokens.unexpected(f"a variable below {n_variables}, each once in a scope", tokens.next - 1)
        scope.append(variable)
    return tuple(scope)


def _read_table(tokens: Tokens, shape: tuple[int, ...]) -> Array:
    at = tokens.next
    count = tokens.natural("the number of entries of a table")
    if count != prod(shape):
        raise tokens.error(at, f"expected {prod(shape)}, the number of entries of the table, found {count}")
    if at + 1 + count > len(tokens.words):
        raise tokens.error(len(tokens.words), f"expected {count} numbers, found {len(tokens.words) - at - 1}")
    table = np.array(tokens.numbers(at + 1 + count))
    good = (table >= 0) & (table < np.inf)
    if not good.all():
        raise tokens.unexpected("a number that is finite and not negative", at + 1 + int(np.argmin(good)))
    return table.reshape(shape)


def _read_solution(tokens: Tokens, task: str) -> UaiSolution:
    if task == "PR":
        word = tokens.take("log10 of the partition function")
        if word.lower() in ("-inf", "-infinity"):  # impossible evidence
            value = -np.inf
        else:
            tokens.next -= 1
            value = tokens.numbers(tokens.next + 1)[0]
        solution = UaiSolution(task, value)
    else:
        marginals = []
        for _ in range(tokens.natural("the number of variables")):
            cardinality = tokens.natural("a cardinality")
            if tokens.next + cardinality > len(tokens.words):
                raise tokens.error(len(tokens.words), f"expected {cardinality} probabilities, found the end")
            marginals.append(np.array(tokens.numbers(tokens.next + cardinality)))
        solution = UaiSolution(task, None, tuple(marginals))
    if tokens.next < len(tokens.words):
        raise tokens.unexpected("the end")
    return solution
