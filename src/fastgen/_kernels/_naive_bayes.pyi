from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

_Array = NDArray[np.float64]
_Index = NDArray[np.intp]

GAUSSIAN: int
LINEAR: int
BINARY: int
TABLE: int
SPARSE: int
JOINT: int
PREDICT: int
PROBA: int
LOG_PROBA: int
LOG_PROB: int
NOT_FINITE: int
NEGATIVE: int
UNSEEN: int
BROKEN: int
GROUP: int
VALUES: int
ABOVE: int
OBSERVED: int

@disjoint_base
class Term:
    arrays: Any
    def __init__(
        self,
        kind: int,
        type: int,
        X: NDArray[Any],
        offsets: _Index | None = None,
        a: _Array | None = None,
        b: _Array | None = None,
        norm: _Array | None = None,
        threshold: float = 0.0,
        binary: bool = False,
        sizes: _Index | None = None,
        first: _Index | None = None,
        indices: NDArray[Any] | None = None,
        indptr: NDArray[Any] | None = None,
        columns: int = 0,
        by_column: _Array | None = None,
    ) -> None: ...

@disjoint_base
class Screen:
    arrays: Any
    def __init__(
        self,
        centre: _Array,
        q: NDArray[np.float32],
        p: NDArray[np.float32],
        k: NDArray[np.float32],
        slope: float,
        intercept: float,
    ) -> None: ...

def work_size(C: int) -> int: ...
def score(
    terms: list[Term],
    log_prior: _Array,
    infinite: bool,
    what: int,
    first: int,
    stop: int,
    missing: bool,
    fallback: int,
    out: _Array | None,
    labels: _Index | None,
    work: _Array,
    screen: Screen | None = None,
) -> int: ...
def sums(
    term: Term,
    which: int,
    codes: _Index,
    weights: _Array | None,
    first: int,
    stop: int,
    waiting: _Index | None,
    total: _Array,
    out: _Array,
) -> int: ...
def sparse_sums(
    term: Term,
    binary: bool,
    rows: _Index,
    codes: _Index,
    weights: _Array | None,
    first: int,
    stop: int,
    lowest: int,
    total: _Array,
    out: _Array,
) -> int: ...
def counts(
    term: Term,
    begin: _Index,
    codes: _Index,
    weights: _Array | None,
    first: int,
    stop: int,
    whole: NDArray[np.uint32] | None,
    out: _Array | None,
) -> int: ...
def pairs(
    term: Term,
    begin: _Index,
    codes: _Index,
    first: int,
    stop: int,
    bits: int,
    joint: NDArray[np.uint32],
    whole: NDArray[np.uint32],
) -> int: ...
def moments(
    term: Term,
    missing: bool,
    given: bool,
    codes: _Index,
    weights: _Array | None,
    first: int,
    stop: int,
    total: _Array,
    about: _Array,
    count: _Array,
    first_moment: _Array,
    second_moment: _Array,
) -> None: ...
