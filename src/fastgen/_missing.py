"""Missing values: rows of X grouped by which of their columns are NaN."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastgen._validation import BLOCK_ROWS, Data

Index = NDArray[np.intp]
"""Row or column numbers."""


def incomplete_rows(X: Data) -> Index:
    """Numbers of the rows that hold a NaN."""
    found = [
        np.flatnonzero(np.isnan(X[start : start + BLOCK_ROWS]).any(axis=1)) + start
        for start in range(0, len(X), BLOCK_ROWS)
    ]
    return np.concatenate(found) if found else np.empty(0, np.intp)


def patterns(X: Data, rows: Index) -> Iterator[tuple[Index, Index]]:
    """Yield, for each pattern of missing cells among ``rows``, the rows that have it and its observed columns.

    Memory: one bit per cell of ``rows``.
    """
    if not len(rows):
        return
    packed = np.concatenate(
        [
            np.packbits(np.isnan(X[rows[start : start + BLOCK_ROWS]]), axis=1)
            for start in range(0, len(rows), BLOCK_ROWS)
        ]
    )
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group))
    for start, end, example in zip(np.r_[0, ends[:-1]], ends, first, strict=True):
        missing = np.unpackbits(packed[example], count=X.shape[1])
        yield rows[order[start:end]], np.flatnonzero(missing == 0)
