import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

_Array = NDArray[np.float64]
_Index = NDArray[np.intp]

LANES: int
RUNNING: int
STOPPED: int
CONVERGED: int
DEAD: int

@disjoint_base
class Progress:
    @property
    def state(self) -> int: ...
    @property
    def sweeps(self) -> int: ...
    @property
    def holds(self) -> int: ...
    @property
    def away(self) -> bool: ...
    def start(self, every: int, last: int, damped: bool) -> None: ...
    def abandon(self) -> None: ...

def work_size(K: int, most_slots: int) -> int: ...
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
    progress: Progress,
    changes: _Array,
    pending: int,
    work: _Array,
) -> int: ...
def collect(messages: _Array, half: _Index, turned: bool, start: int, stop: int, out: _Array) -> None: ...
