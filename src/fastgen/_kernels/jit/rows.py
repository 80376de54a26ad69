"""Complete rows of codes: to columns, to contingency tables, to log p(x). Numba: nothing is checked twice.

Tables are those of groups of variables. Group g has the variables member[first[g] : first[g + 1]], whose states have
the strides of the same numbers in its table, which begins at offset[g]. Rows are taken ROWS at a time, column by
column. All of it is in one file, for the compiler's cache knows a function by the file that it stands in, and not by
what it calls.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

ir: Any = import_module("llvmlite.ir")
jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ROWS = 256
FEW_ROWS = 64  # so few that the cache lines of X are still there for the next column


ONE_BY_ONE, IN_BYTES, NARROWED = range(3)


class Reader(NamedTuple):
    """How `load` reads codes."""

    flat: NDArray[Any]
    """All codes one after the other, or nothing."""
    way: int
    """ONE_BY_ONE; or, if states fit into bytes, eight at once: IN_BYTES, or NARROWED to bytes before."""


def reader(X: NDArray[Any], most: int) -> Reader:
    """The quickest way to read rows of codes, of `most` states at most."""
    if most <= 256 and X.shape[1] >= 8 and sys.byteorder == "little":
        if X.strides[1] == 1 and (X.dtype == np.uint8 or (X.dtype == np.int8 and most <= 128)):
            return Reader(np.empty(0, X.dtype), IN_BYTES)  # -1 is 255, and no state either
        if X.flags.c_contiguous:
            return Reader(X.reshape(-1), NARROWED)
    return Reader(np.empty(0, X.dtype), ONE_BY_ONE)


def tile_of(V: int, most: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Work space for `load`: ROWS rows as columns, and as bytes."""
    return np.zeros((V, ROWS), np.uint8 if most <= 256 else np.int32), np.empty(ROWS * V, np.uint8)


def _read(typing_context: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)

    return types.uint64(types.int64), code


def _write(typing_context: Any, address: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), code


_word_at: Any = intrinsic(_read)
_put_word: Any = intrinsic(_write)


@jit
def _swap(a, b, shift, mask):  # type: ignore[no-untyped-def]
    """Exchange the parts of a above the shift with those of b below it."""
    other = ((a >> shift) ^ b) & mask
    return a ^ (other << shift), b ^ other


@jit
def _transpose(source, step, target, width):  # type: ignore[no-untyped-def]
    """Eight rows of eight bytes, `step` apart, to eight rows `width` apart: halves, quarters, bytes change places."""
    a, b = _word_at(source), _word_at(source + step)
    c, d = _word_at(source + 2 * step), _word_at(source + 3 * step)
    e, f = _word_at(source + 4 * step), _word_at(source + 5 * step)
    g, h = _word_at(source + 6 * step), _word_at(source + 7 * step)
    shift, mask = numba.uint64(32), numba.uint64(0x00000000FFFFFFFF)
    a, e = _swap(a, e, shift, mask)
    b, f = _swap(b, f, shift, mask)
    c, g = _swap(c, g, shift, mask)
    d, h = _swap(d, h, shift, mask)
    shift, mask = numba.uint64(16), numba.uint64(0x0000FFFF0000FFFF)
    a, c = _swap(a, c, shift, mask)
    b, d = _swap(b, d, shift, mask)
    e, g = _swap(e, g, shift, mask)
    f, h = _swap(f, h, shift, mask)
    shift, mask = numba.uint64(8), numba.uint64(0x00FF00FF00FF00FF)
    a, b = _swap(a, b, shift, mask)
    c, d = _swap(c, d, shift, mask)
    e, f = _swap(e, f, shift, mask)
    g, h = _swap(g, h, shift, mask)
    _put_word(target, a)
    _put_word(target + width, b)
    _put_word(target + 2 * width, c)
    _put_word(target + 3 * width, d)
    _put_word(target + 4 * width, e)
    _put_word(target + 5 * width, f)
    _put_word(target + 6 * width, g)
    _put_word(target + 7 * width, h)


@jit
def load(X, cardinality, top, rows, flat, way, tile, narrow, at):  # type: ignore[no-untyped-def]
    """tile[i, at + r] <- X[top + r, i] for r < rows. Returns the first row with a code that is no state, or -1.

    flat, way: see `Reader`; narrow: see `tile_of`. The tile has contiguous rows, of bytes if the way is not ONE_BY_ONE.
    """
    V = len(cardinality)
    done = 0
    if way != ONE_BY_ONE:
        done = rows // 8 * 8
        source, step = X.ctypes.data + top * X.strides[0], X.strides[0]
        if way == NARROWED:
            before, bits = np.uint64(top * V), np.int64(0)
            for k in range(done * V):
                code = flat[before + np.uint64(k)]
                bits |= np.int64(code)
                narrow[np.uint64(k)] = code
            if bits < 0 or bits > 255:
                return _first_wrong(X, cardinality, top, rows)
            source, step = narrow.ctypes.data, V
        width = tile.strides[0]
        for begin in range(0, V, 8):
            i = min(begin, V - 8)  # the last eight columns may overlap those before
            target = tile.ctypes.data + i * width + at
            for r in range(0, done, 8):
                _transpose(source + i + r * step, step, target + r, width)
    some = FEW_ROWS if X.strides[0] >= X.strides[1] else rows
    for begin in range(done, rows, some):
        end = min(begin + some, rows)
        for i in range(V):
            mine = tile[i]
            least = largest = X[top + begin, i]
            for r in range(begin, end):
                code = X[np.uint64(top + r), i]
                least, largest = min(least, code), max(largest, code)
                mine[np.uint64(at + r)] = code
            if least < 0 or largest >= cardinality[i]:
                return _first_wrong(X, cardinality, top, rows)
    for i in range(V if done else 0):
        mine = tile[i]
        largest = mine[at]
        for r in range(1, done):
            largest = max(largest, mine[np.uint64(at + r)])
        if largest >= cardinality[i]:
            return _first_wrong(X, cardinality, top, rows)
    return -1


@jit
def load_all(X, cardinality, start, stop, flat, way, narrow, columns):  # type: ignore[no-untyped-def]
    """columns[i, r] <- X[r, i] for start <= r < stop; else as `load`."""
    for top in range(start, stop, ROWS):
        wrong = load(X, cardinality, top, min(ROWS, stop - top), flat, way, columns, narrow, top)
        if wrong >= 0:
            return wrong
    return -1


@jit
def _first_wrong(X, cardinality, top, rows):  # type: ignore[no-untyped-def]
    for r in range(top, top + rows):
        for i in range(len(cardinality)):
            if X[r, i] < 0 or X[r, i] >= cardinality[i]:
                return r
    return -1


@jit
def places(g, first, member, stride, offset, tile, place):  # type: ignore[no-untyped-def]
    """place[r] <- where the states of group g lie in its table."""
    begin = offset[g]
    for r in range(len(place)):
        place[r] = begin
    for k in range(first[g], first[g + 1]):
        states, step = tile[member[k]], stride[k]
        for r in range(len(place)):
            place[r] += step * states[r]


@jit
def count(X, first, member, stride, cardinality, offset, start, stop, flat, way, tile, narrow, place, counts):  # type: ignore[no-untyped-def]
    """counts (copies, entries) += rows start to stop. tile, narrow: see `tile_of`; place: (ROWS,) int32.

    Neighbouring rows are counted in different copies: they often are alike, and an increment must wait for the one
    before it in the same place. Returns the first row with a code that is no state, or -1.
    """
    copies = np.uint32(len(counts))
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        wrong = load(X, cardinality, top, rows, flat, way, tile, narrow, 0)
        if wrong >= 0:
            return wrong
        for g in range(len(offset)):
            places(g, first, member, stride, offset, tile, place)
            if copies == 4:
                a, b, c, d = counts[0], counts[1], counts[2], counts[3]
                whole = rows // 4 * 4
                for r in range(0, whole, 4):
                    a[np.uint32(place[r])] += 1
                    b[np.uint32(place[r + 1])] += 1
                    c[np.uint32(place[r + 2])] += 1
                    d[np.uint32(place[r + 3])] += 1
                for r in range(whole, rows):
                    a[np.uint32(place[r])] += 1
            else:
                a = counts[0]
                for r in range(rows):
                    a[np.uint32(place[r])] += 1
    return -1


@jit
def weigh(X, weights, first, member, stride, cardinality, offset, start, stop, flat, way, tile, narrow, place, sums):  # type: ignore[no-untyped-def]
    """sums (entries,) += weights of the rows start to stop; else as `count`."""
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        wrong = load(X, cardinality, top, rows, flat, way, tile, narrow, 0)
        if wrong >= 0:
            return wrong
        for g in range(len(offset)):
            places(g, first, member, stride, offset, tile, place)
            for r in range(rows):
                sums[np.uint32(place[r])] += weights[top + r]
    return -1


@jit
def log_prob(X, first, member, stride, cardinality, offset, table, flat, way, tile, narrow, place, start, stop, out):  # type: ignore[no-untyped-def]
    """out[start:stop] <- log p(x) of these rows, the sum of a number from each table. tile, narrow: see `tile_of`.

    place: (ROWS,) int32. Returns the first row with a code that is no state, or -1.
    """
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        wrong = load(X, cardinality, top, rows, flat, way, tile, narrow, 0)
        if wrong >= 0:
            return wrong
        total = out[top : top + rows]
        total[:] = 0.0
        for g in range(len(offset)):
            places(g, first, member, stride, offset, tile, place)
            for r in range(rows):
                total[r] += table[np.uint32(place[r])]
    return -1
