from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

_Array = NDArray[np.float64]
_Index = NDArray[np.intp]

SAFE: float
LANES: int
STEPS: int
BEGINS: int
ENDS: int
LOGS: int
LIKELIHOODS: int
TABLE: int

@disjoint_base
class Emissions:
    arrays: Any
    def __init__(
        self,
        kind: int,
        X: NDArray[Any],
        K: int,
        means: _Array | None = None,
        factors: _Array | None = None,
        log_norm: _Array | None = None,
        centre: _Array | None = None,
        symbols: _Index | None = None,
        top: _Array | None = None,
    ) -> None: ...

@disjoint_base
class Schedule:
    arrays: Any
    def __init__(
        self,
        lanes: _Index,
        row: _Index,
        length: _Index,
        before: _Index,
        after: _Index,
        kind: NDArray[np.int32],
        weight: _Array | None = None,
    ) -> None: ...

def states(K: int) -> int: ...

@disjoint_base
class Links:
    arrays: Any
    def __init__(
        self,
        into_at: _Index,
        sources: _Index,
        into_p: _Array,
        out_at: _Index,
        targets: _Index,
        out_p: _Array,
    ) -> None: ...

def work_size(
    e: Emissions, K: int, wide: bool, tiles: int, posterior: bool, transitions: bool, moments: bool
) -> int: ...
def score(
    e: Emissions,
    K: int,
    start: _Array,
    A: _Array,
    possible: Links | None,
    s: Schedule,
    first: int,
    stop: int,
    W: int,
    logs: _Array,
    warm: _Array,
    end: _Array,
    work: _Array,
) -> None: ...
def e_step(
    e: Emissions,
    K: int,
    start: _Array,
    A: _Array,
    AT: _Array,
    possible: Links | None,
    s: Schedule,
    first: int,
    stop: int,
    W: int,
    tiles: int,
    logs: _Array,
    warm_a: _Array,
    end_a: _Array,
    warm_w: _Array,
    end_w: _Array,
    work: _Array,
    posterior: _Array | None = None,
    first_states: _Array | None = None,
    transitions: _Array | None = None,
    about: _Array | None = None,
    weight: _Array | None = None,
    moment1: _Array | None = None,
    moment2: _Array | None = None,
    count: _Array | None = None,
) -> None: ...
def viterbi_size(e: Emissions, K: int, tiles: int, W: int) -> int: ...
def viterbi(
    e: Emissions,
    start: _Array,
    log_A: _Array,
    s: Schedule,
    first: int,
    stop: int,
    W: int,
    tiles: int,
    logs: _Array,
    path: _Index,
    warm: _Array,
    end: _Array,
    entry: _Index,
    exits: _Index,
    work: _Array,
) -> int: ...
def sequence_size(e: Emissions, K: int, n: int, keep: bool, wide: bool) -> int: ...
def sequence(
    e: Emissions,
    start: _Array,
    A: _Array,
    AT: _Array,
    row: int,
    n: int,
    weight: float,
    logs: _Array,
    work: _Array,
    posterior: _Array | None = None,
    first_states: _Array | None = None,
    transitions: _Array | None = None,
    filtered: bool = False,
    a_in: _Array | None = None,
    a_out: _Array | None = None,
    w_in: _Array | None = None,
    w_out: _Array | None = None,
) -> None: ...
def wide_sequence(
    e: Emissions,
    start: _Array,
    start_exponent: _Array,
    A: _Array,
    exponent: _Array,
    AT: _Array,
    exponent_T: _Array,
    row: int,
    n: int,
    weight: float,
    logs: _Array,
    work: _Array,
    posterior: _Array | None = None,
    first_states: _Array | None = None,
    transitions: _Array | None = None,
    filtered: bool = False,
    a_in: _Array | None = None,
    a_out: _Array | None = None,
    w_in: _Array | None = None,
    w_out: _Array | None = None,
) -> int: ...
def viterbi_rows(
    e: Emissions,
    start: _Array,
    log_A: _Array,
    row: int,
    n: int,
    logs: _Array,
    path: _Index,
    back: NDArray[np.uint8],
    work: _Array,
) -> int: ...
def sampled_path(filtered: _Array, log_A: _Array, uniform: _Array, path: _Index, work: _Array) -> None: ...
def k_best(
    log_likelihoods: _Array,
    start: _Array,
    log_A: _Array,
    logs: _Array,
    paths: _Index,
    back: NDArray[np.int32],
    work: _Array,
) -> None: ...
