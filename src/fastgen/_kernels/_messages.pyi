import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_Index = NDArray[np.intp]

LANES: int
RUNNING: int
STOPPED: int
CONVERGED: int
DEAD: int

def work_size(K: int, most_slots: int) -> int: ...
def begin(progress: NDArray[np.int64], every: int, last: int, damped: bool) -> None: ...
def sweep(
    blocks: _Index,
    unary: _Array,
    partner: _Index,
    lists: _Index,
    table: _Index,
    tables: _Array,
    most_slots: int,
    maximum: bool,
    damping: float,
    tol: float,
    messages: _Array,
    part: int,
    every: int,
    stop: int,
    last: int,
    progress: NDArray[np.int64],
    changes: _Array,
    pending: int,
    work: _Array,
) -> int: ...
def collect(messages: _Array, half: _Index, turned: bool, start: int, stop: int, out: _Array) -> None: ...
