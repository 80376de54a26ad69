from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_Data = NDArray[np.floating[Any]]
_Index = NDArray[np.intp]

BATCH: int
MISSING_PIECE: int
NOT_A_NUMBER: int
IMPOSSIBLE: int

def work_size(kind: int, d: int, K: int, moments: bool) -> int: ...
def e_step(
    kind: int,
    X: _Data,
    weights: _Array | None,
    means: _Array,
    factors: _Array,
    log_norm: _Array,
    centre: _Array,
    log_weights: _Array,
    about: _Array,
    log_likelihood: _Array,
    weight: _Array,
    first: _Array,
    second: _Array,
    count: _Array,
    work: _Array,
) -> int: ...
def mirror(A: _Array) -> None: ...
def incomplete_work_size(d: int, K: int) -> int: ...
def incomplete_e_step(
    columns: _Index,
    observed: _Index,
    rows: _Index,
    values: _Index,
    x: _Array,
    weights: _Array,
    means: _Array,
    covariances: _Array,
    log_weights: _Array,
    log_likelihood: _Array,
    weight: _Array,
    first: _Array,
    second: _Array,
    work: _Array,
) -> int: ...
def log_prob(
    kind: int,
    X: _Data,
    means: _Array,
    factors: _Array,
    log_norm: _Array,
    centre: _Array,
    log_weights: _Array,
    out: _Data,
    work: _Array,
) -> int: ...
def posterior(
    kind: int,
    X: _Data,
    means: _Array,
    factors: _Array,
    log_norm: _Array,
    centre: _Array,
    log_weights: _Array,
    out: _Data,
    work: _Array,
) -> int: ...
def predict(
    kind: int,
    X: _Data,
    means: _Array,
    factors: _Array,
    log_norm: _Array,
    centre: _Array,
    log_weights: _Array,
    out: _Index,
    work: _Array,
) -> int: ...
