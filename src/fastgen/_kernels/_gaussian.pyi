import numpy as np
from numpy.typing import NDArray

from fastgen._validation import Array

FULL: int
TIED: int
DIAG: int
DIAG_MISSING: int
SPHERICAL: int
TILE: int
BLOCK: int

def density_work_size(d: int, K: int) -> int: ...
def moment_work_size(d: int, full: bool) -> int: ...
def log_density_f64(
    kind: int,
    X: Array,
    means: Array,
    factors: Array,
    log_norm: Array,
    centre: Array,
    out: Array,
    work: Array,
) -> int: ...
def log_density_f32(
    kind: int,
    X: NDArray[np.float32],
    means: Array,
    factors: Array,
    log_norm: Array,
    centre: Array,
    out: NDArray[np.float32],
    work: Array,
) -> int: ...
def log_density_f32_f64(
    kind: int,
    X: NDArray[np.float32],
    means: Array,
    factors: Array,
    log_norm: Array,
    centre: Array,
    out: Array,
    work: Array,
) -> int: ...
def moments_f64(
    full: bool,
    X: Array,
    w: Array | None,
    weight: Array,
    mean: Array,
    scatter: Array,
    work: Array,
) -> int: ...
def moments_f32(
    full: bool,
    X: NDArray[np.float32],
    w: Array | None,
    weight: Array,
    mean: Array,
    scatter: Array,
    work: Array,
) -> int: ...
def cholesky(A: Array, tolerance: float) -> int: ...
def inverse(R: Array, work: Array) -> None: ...
def factor(covariances: Array, tolerance: float, factors: Array, work: Array) -> int: ...
def pack(factors: Array, packed: Array) -> None: ...
def missing_work_size(d: int) -> int: ...
def expect_missing(
    mu: Array,
    Sigma: Array,
    columns: NDArray[np.intp],
    weight: float,
    x_mean: Array,
    x_rest: Array,
    S: Array,
    tolerance: float,
    first: Array,
    second: Array,
    log_likelihood: Array,
    work: Array,
) -> int: ...
