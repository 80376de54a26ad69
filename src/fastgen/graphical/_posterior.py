"""The posterior of one variable given complete rows of the others: only its Markov blanket matters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgen._kernels.jit import posterior as kernel
from fastgen._parallel import Body, run_chunks
from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork


def class_posteriors(
    network: DiscreteNetwork,
    X: NDArray[Any],
    node: int,
    columns: Sequence[int] | None = None,
    *,
    predict: bool = False,
    n_threads: int | None = None,
) -> NDArray[Any]:
    """P(node | all others) for each row.

    Parameters
    ----------
    network : DiscreteNetwork
    X : integer array (n, m)
        States as numbers, with any strides; not copied. What is outside of the Markov blanket is not looked at.
    node : int
    columns : sequence of int, optional
        The column of each variable (that of the node is not used). Default: column i for variable i.
    predict : bool
        Return the most probable state of each row instead (the first of equals), -1 where none is possible.
    n_threads : int, optional

    Returns
    -------
    array (n, states), or integer array (n,)
        NaN where no state is possible; the same bits for any number of threads. O(n states children).

    Raises
    ------
    ValueError
        A code that is no state.
    """
    place_of = list(range(len(network.names)) if columns is None else columns)
    families = [node, *(i for i, parents in enumerate(network.parents) if node in parents)]
    scopes = [(*network.parents[i], i) for i in families]
    needed = sorted({j for scope in scopes for j in scope} - {node})
    number = {j: k for k, j in enumerate(needed)}
    member, stride, first, own = [], [], [0], []
    for scope, family in zip(scopes, families, strict=True):
        for j, step in zip(scope, network.tables[family].strides, strict=True):
            if j == node:
                own.append(step // 8)
            else:
                member.append(number[j])
                stride.append(step // 8)
        first.append(len(member))
    tables = [network.tables[i].ravel() for i in families]
    sizes = [len(table) for table in tables]
    if sum(sizes) >= 1 << 31:
        raise ValueError(f"the tables have {sum(sizes)} entries: at most 2**31 - 1 can be addressed")
    with np.errstate(divide="ignore"):
        logs = np.log(np.concatenate(tables))
    column = np.array([place_of[j] for j in needed], np.intp)
    cardinality = np.array([network.cardinalities[j] for j in needed], np.int32)
    arguments = (
        column, cardinality, np.array(first, np.intp), np.array(member, np.intp), np.array(stride, np.int32),
        np.array(own, np.int32), np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32), logs,
    )  # fmt: skip
    n, C = len(X), network.cardinalities[node]
    proba = np.empty((0 if predict else n, C))
    best = np.empty(n if predict else 0, np.intp)
    wrong: list[int] = []

    def make_body() -> Body:
        tile = np.zeros((len(needed), kernel.ROWS), np.int32)
        place, score = np.empty(kernel.ROWS, np.int32), np.empty((C + 2, kernel.ROWS))

        def body(start: int, stop: int) -> None:
            row = kernel.posterior(X, *arguments, C, start, stop, tile, place, score, proba, best)
            if row >= 0:
                wrong.append(row)

        return body

    cost = 2.0 * n * (len(member) + C * (len(families) + 4))
    run_chunks(make_body, n, kernel.ROWS, cost, n_threads)
    if wrong:
        row = min(wrong)
        part = X[row, column]
        k = int(np.flatnonzero((part < 0) | (part >= cardinality))[0])
        raise ValueError(
            f"row {row} holds {part[k]} for {network.names[needed[k]]!r}, whose states are 0 to {cardinality[k] - 1}"
        )
    result: Array | NDArray[np.intp] = best if predict else proba
    return result
