"""Numba kernels of exact inference in discrete models: contractions of tables, their adjoints, traces.

A program is a list of contractions ``Z[z] = sum_k X[x(z) + x(k)] * Y[y(z) + y(k)]`` (or a maximum) over tables in one
arena; which cells meet which is said by tables of offsets, so that the number of variables in a table does not matter.
There are two forms:

- lanes: `LANES` rows of data stand side by side in each cell of the arena. Constant tables are shared by the rows.
- runs: one row. Vectors run along the innermost variables of Z, or of what is summed over, where those lie side by side
  in X and Y (or X does not have them), and single numbers are worked on where they do not.

Sums run over k in the order of the table, so a row's result depends on nothing but the row. Multiplications and
additions are not fused: all processors give the same bits. The loops are written in LLVM's own vectors, since what the
vectoriser makes of loops over an arena that is read and written cannot be relied upon.

Each result whose largest entry leaves [2^-200, 2^200] is multiplied by a power of two, which is exact. Entries of one
table can still be so far apart that the small ones vanish, and later turn out to have been all that is possible. Where
the tables allow that, results are looked through for positive entries below 2^-500, whose products are still no less
than 2^-1000. In a row that has some, two tables that nearly exclude each other (their product is below 2^-300, or the
product of a table and its adjoint) may have lost what matters; it is done again with logarithms (`infer_in_logs`).
"""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

numba: Any = import_module("numba")  # has no types
ir: Any = import_module("llvmlite.ir")
cgutils: Any = import_module("numba.core.cgutils")
types: Any = numba.types
intrinsic: Any = import_module("numba.extending").intrinsic
jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

__all__ = ["LANES", "fill_offsets", "fold", "fold_in_logs", "infer_in_logs", "infer_rows", "unfold"]

LANES = 16

# Columns of a contraction.
MODE, X, X_STATIC, Y, Y_STATIC, Z, N_Z, TABLE, N_HI, N_LO, RUN, N_KH, N_KL, VARIANT = range(14)
OP_COLUMNS = 14
# Modes.
IN_LANES, K_LANES, Z_RUNS, Z_TILES, K_RUNS, CELLS = range(6)

_F64 = ir.DoubleType()
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_WIDTH = 8
_VECTOR = ir.VectorType(_F64, _WIDTH)
_ROW = ir.VectorType(_F64, LANES)
_BIG = 2.0**200
_SMALL = 2.0**-200
_TINY = 2.0**-500
_STEEP = 2.0**-300


def _vector_of(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _splat(b: Any, kind: Any, scalar: Any) -> Any:
    one = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, _I32(0))
    mask = ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count)
    return b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def _entry(b: Any, table: Any, i: Any) -> Any:
    pointer = b.inttoptr(b.add(table, b.shl(i, _I64(2))), _I32.as_pointer())
    return b.sext(b.load(pointer), _I64)


def _pointer(b: Any, base: Any, cell: Any, kind: Any, cell_bytes: int) -> Any:
    return b.inttoptr(b.add(base, b.mul(cell, _I64(cell_bytes))), kind.as_pointer())


def _larger(b: Any, one: Any, other: Any) -> Any:
    return b.select(b.fcmp_ordered(">", one, other), one, other)


def _accumulate(b: Any, place: Any, product: Any, maximum: bool) -> None:
    old = b.load(place)
    b.store(_larger(b, old, product) if maximum else b.fadd(old, product), place)


def _make_lanes(static_x: bool, maximum: bool) -> Any:
    """contract(x, y, z, table, n_z, n_k, peak): addresses; peak takes the largest entry of each lane."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, y, z, table, n_z, n_k, peak_at = args
        peak = cgutils.alloca_once(b, _ROW)
        total = cgutils.alloca_once(b, _ROW)
        b.store(_vector_of(_ROW, 0.0), peak)
        k_table = b.add(table, b.shl(n_z, _I64(3)))
        with cgutils.for_range(b, n_z) as cells:
            x_z = _entry(b, table, cells.index)
            y_z = _entry(b, table, b.add(n_z, cells.index))
            b.store(_vector_of(_ROW, 0.0), total)
            with cgutils.for_range(b, n_k) as ks:
                x_cell = b.add(x_z, _entry(b, k_table, ks.index))
                y_cell = b.add(y_z, _entry(b, k_table, b.add(n_k, ks.index)))
                if static_x:
                    left = _splat(b, _ROW, b.load(_pointer(b, x, x_cell, _F64, 8)))
                else:
                    left = b.load(_pointer(b, x, x_cell, _ROW, 8 * LANES), align=64)
                right = b.load(_pointer(b, y, y_cell, _ROW, 8 * LANES), align=64)
                _accumulate(b, total, b.fmul(left, right), maximum)
            result = b.load(total)
            b.store(result, _pointer(b, z, cells.index, _ROW, 8 * LANES), align=64)
            b.store(_larger(b, b.load(peak), result), peak)
        b.store(b.load(peak), b.inttoptr(peak_at, _ROW.as_pointer()), align=8)
        return context.get_dummy_value()

    def contract(typingctx: Any, x: Any, y: Any, z: Any, table: Any, n_z: Any, n_k: Any, peak: Any) -> tuple[Any, Any]:
        return types.void(*[types.int64] * 7), codegen

    return intrinsic(contract)


def _make_lanes_in_runs(static_x: bool) -> Any:
    """contract(x, y, z, table, n_z, n_k, peak, run, x_step, y_step): sums along a run, as `K_RUNS` adds them up.

    Every eighth term goes to the same of 8 sums.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, y, z, table, n_z, n_k, peak_at, run, x_step, y_step = args
        peak = cgutils.alloca_once_value(b, _vector_of(_ROW, 0.0))
        totals = [cgutils.alloca_once(b, _ROW) for _ in range(_WIDTH)]
        k_table = b.add(table, b.shl(n_z, _I64(3)))
        full = b.udiv(run, _I64(_WIDTH))
        rest = b.urem(run, _I64(_WIDTH))
        with cgutils.for_range(b, n_z) as cells:
            x_z = _entry(b, table, cells.index)
            y_z = _entry(b, table, b.add(n_z, cells.index))
            for total in totals:
                b.store(_vector_of(_ROW, 0.0), total)
            with cgutils.for_range(b, n_k) as ks:
                x_k = b.add(x_z, _entry(b, k_table, ks.index))
                y_k = b.add(y_z, _entry(b, k_table, b.add(n_k, ks.index)))

                def add(number: Any, total: Any, x_k: Any = x_k, y_k: Any = y_k) -> None:
                    x_cell = b.add(x_k, b.mul(number, x_step))
                    y_cell = b.add(y_k, b.mul(number, y_step))
                    if static_x:
                        left = _splat(b, _ROW, b.load(_pointer(b, x, x_cell, _F64, 8)))
                    else:
                        left = b.load(_pointer(b, x, x_cell, _ROW, 8 * LANES), align=64)
                    right = b.load(_pointer(b, y, y_cell, _ROW, 8 * LANES), align=64)
                    b.store(b.fadd(b.load(total), b.fmul(left, right)), total)

                with cgutils.for_range(b, full) as block:
                    for i, total in enumerate(totals):
                        add(b.add(b.mul(block.index, _I64(_WIDTH)), _I64(i)), total)
                for i, total in enumerate(totals[:-1]):
                    with b.if_then(b.icmp_signed("<", _I64(i), rest)):
                        add(b.add(b.mul(full, _I64(_WIDTH)), _I64(i)), total)
            sums = [b.load(total) for total in totals]
            while len(sums) > 1:
                half = len(sums) // 2
                sums = [b.fadd(sums[i], sums[i + half]) for i in range(half)]
            b.store(sums[0], _pointer(b, z, cells.index, _ROW, 8 * LANES), align=64)
            b.store(_larger(b, b.load(peak), sums[0]), peak)
        b.store(b.load(peak), b.inttoptr(peak_at, _ROW.as_pointer()), align=8)
        return context.get_dummy_value()

    def contract(
        typingctx: Any,
        x: Any,
        y: Any,
        z: Any,
        table: Any,
        n_z: Any,
        n_k: Any,
        peak: Any,
        run: Any,
        x_step: Any,
        y_step: Any,
    ) -> tuple[Any, Any]:
        return types.void(*[types.int64] * 10), codegen

    return intrinsic(contract)


def _masked_load(b: Any, pointer: Any, mask: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR.as_pointer(), _I32, ir.VectorType(ir.IntType(1), _WIDTH), _VECTOR])
    function = cgutils.get_or_insert_function(b.module, kind, f"llvm.masked.load.v{_WIDTH}f64.p0")
    return b.call(function, [pointer, _I32(8), mask, _vector_of(_VECTOR, 0.0)])


def _masked_store(b: Any, value: Any, pointer: Any, mask: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_VECTOR, _VECTOR.as_pointer(), _I32, ir.VectorType(ir.IntType(1), _WIDTH)])
    function = cgutils.get_or_insert_function(b.module, kind, f"llvm.masked.store.v{_WIDTH}f64.p0")
    b.call(function, [value, pointer, _I32(8), mask])


def _first_lanes(b: Any, count: Any) -> Any:
    kind = ir.VectorType(_I64, _WIDTH)
    return b.icmp_signed("<", ir.Constant(kind, list(range(_WIDTH))), _splat(b, kind, count))


def _across(b: Any, vector: Any, maximum: bool) -> Any:
    """The sum (or maximum) of the lanes: halves first, always in the same order."""
    lanes = [b.extract_element(vector, _I32(lane)) for lane in range(_WIDTH)]
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [
            _larger(b, lanes[i], lanes[i + half]) if maximum else b.fadd(lanes[i], lanes[i + half]) for i in range(half)
        ]
    return lanes[0]


def _make_runs(mode: int, vector_x: bool, vector_y: bool, maximum: bool, blocks: int = 0) -> Any:
    """contract(x, y, z, table, n_hi, n_lo, run, n_kh, n_kl) -> the largest entry.

    The table has the offsets in X and Y of the outer and inner cells of Z, then those of what is summed over. Where a
    sum is but one register, four cells of Z are worked on at once: additions have to wait for one another.
    """
    width = 1 if mode == Z_RUNS else 4  # cells (or runs) of Z at once

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, y, z, table, n_hi, n_lo, run, n_kh, n_kl = args
        peak = cgutils.alloca_once_value(b, _vector_of(_VECTOR, 0.0))
        top = cgutils.alloca_once_value(b, ir.Constant(_F64, 0.0))
        lo_table = b.add(table, b.shl(n_hi, _I64(3)))
        kh_table = b.add(lo_table, b.shl(n_lo, _I64(3)))
        kl_table = b.add(kh_table, b.shl(n_kh, _I64(3)))

        def address(base: Any, cell: Any) -> Any:
            return b.add(base, b.shl(cell, _I64(3)))

        def at(place: Any, kind: Any) -> Any:
            return b.inttoptr(place, kind.as_pointer())

        def over_k(inner: Callable[[Any, Any], None]) -> None:
            """Inner gets the offsets in X and Y, in bytes."""
            with cgutils.for_range(b, n_kh) as outer:
                x_h = _entry(b, kh_table, outer.index)
                y_h = _entry(b, kh_table, b.add(n_kh, outer.index))
                with cgutils.for_range(b, n_kl) as ks:
                    x_k = b.add(x_h, _entry(b, kl_table, ks.index))
                    y_k = b.add(y_h, _entry(b, kl_table, b.add(n_kl, ks.index)))
                    inner(b.shl(x_k, _I64(3)), b.shl(y_k, _I64(3)))

        def take(pointer: Any, vector: bool, offset: Any, mask: Any = None) -> Any:
            if not vector:
                return _splat(b, _VECTOR, b.load(at(pointer, _F64)))
            pointer = at(b.add(pointer, offset), _VECTOR)
            return b.load(pointer, align=8) if mask is None else _masked_load(b, pointer, mask)

        def zeros(kind: Any, count: int) -> list[Any]:
            zero = ir.Constant(_F64, 0.0) if kind is _F64 else _vector_of(kind, 0.0)
            places = [cgutils.alloca_once(b, kind) for _ in range(count)]
            for place in places:
                b.store(zero, place)
            return places

        def put(place: Any, result: Any, mask: Any = None) -> None:
            if mask is None:
                b.store(result, at(place, _VECTOR), align=8)
            else:  # what lies beyond the run is no entry of Z
                _masked_store(b, result, at(place, _VECTOR), mask)
                result = b.select(mask, result, _vector_of(_VECTOR, 0.0))
            b.store(_larger(b, b.load(peak), result), peak)

        def put_one(place: Any, result: Any) -> None:
            b.store(result, at(place, _F64))
            b.store(_larger(b, b.load(top), result), top)

        def z_runs(x_z: list[Any], y_z: list[Any], places: list[Any]) -> None:
            """Long runs: 4 vectors at a time."""
            start = cgutils.alloca_once(b, _I64)
            b.store(_I64(0), start)

            def block(count: int, mask: Any = None) -> None:
                offset = b.shl(b.load(start), _I64(3))
                totals = zeros(_VECTOR, count)

                def inner(x_k: Any, y_k: Any) -> None:
                    for i, total in enumerate(totals):
                        shift = b.add(offset, _I64(64 * i))
                        left = take(b.add(x_z[0], x_k), vector_x, shift, mask)
                        right = take(b.add(y_z[0], y_k), vector_y, shift, mask)
                        _accumulate(b, total, b.fmul(left, right), maximum)

                over_k(inner)
                for i, total in enumerate(totals):
                    put(b.add(places[0], b.add(offset, _I64(64 * i))), b.load(total), mask)
                b.store(b.add(b.load(start), _I64(_WIDTH * count)), start)

            with cgutils.for_range(b, b.udiv(run, _I64(4 * _WIDTH))):
                block(4)
            with cgutils.for_range(b, b.udiv(b.urem(run, _I64(4 * _WIDTH)), _I64(_WIDTH))):
                block(1)
            rest = b.urem(run, _I64(_WIDTH))
            with b.if_then(b.icmp_signed(">", rest, _I64(0))):
                block(1, _first_lanes(b, rest))

        def z_tiles(x_z: list[Any], y_z: list[Any], places: list[Any]) -> None:
            """Runs of one or two vectors, the last of them not full."""
            mask = _first_lanes(b, b.sub(run, _I64(_WIDTH * (blocks - 1))))
            masks = [None] * (blocks - 1) + [mask]
            totals = zeros(_VECTOR, width * blocks)

            def inner(x_k: Any, y_k: Any) -> None:
                for i in range(width):
                    for j in range(blocks):
                        left = take(b.add(x_z[i], x_k), vector_x, _I64(64 * j), masks[j])
                        right = take(b.add(y_z[i], y_k), vector_y, _I64(64 * j), masks[j])
                        _accumulate(b, totals[i * blocks + j], b.fmul(left, right), maximum)

            over_k(inner)
            for i in range(width):
                for j in range(blocks):
                    put(b.add(places[i], _I64(64 * j)), b.load(totals[i * blocks + j]), masks[j])

        def k_runs(x_z: list[Any], y_z: list[Any], places: list[Any]) -> None:
            """Sums along runs."""
            totals = zeros(_VECTOR, width)
            full = b.udiv(run, _I64(_WIDTH))
            rest = b.urem(run, _I64(_WIDTH))
            tail = _first_lanes(b, rest)

            def inner(x_k: Any, y_k: Any) -> None:
                def step(shift: Any, mask: Any = None) -> None:
                    for i, total in enumerate(totals):
                        left = take(b.add(x_z[i], x_k), vector_x, shift, mask)
                        right = take(b.add(y_z[i], y_k), vector_y, shift, mask)
                        _accumulate(b, total, b.fmul(left, right), maximum)

                with cgutils.for_range(b, full) as block:
                    step(b.shl(block.index, _I64(6)))
                with b.if_then(b.icmp_signed(">", rest, _I64(0))):
                    step(b.shl(full, _I64(6)), tail)

            over_k(inner)
            for place, total in zip(places, totals, strict=True):
                put_one(place, _across(b, b.load(total), maximum))

        def cells(x_z: list[Any], y_z: list[Any], places: list[Any]) -> None:
            totals = zeros(_F64, width)

            def inner(x_k: Any, y_k: Any) -> None:
                for i, total in enumerate(totals):
                    left, right = (b.load(at(b.add(one, k), _F64)) for one, k in ((x_z[i], x_k), (y_z[i], y_k)))
                    _accumulate(b, total, b.fmul(left, right), maximum)

            over_k(inner)
            for place, total in zip(places, totals, strict=True):
                put_one(place, b.load(total))

        body = {Z_RUNS: z_runs, Z_TILES: z_tiles, K_RUNS: k_runs, CELLS: cells}[mode]
        cell = b.mul(run, _I64(8)) if mode in (Z_RUNS, Z_TILES) else _I64(8)
        last = b.sub(n_lo, _I64(1))
        steps = b.udiv(b.add(n_lo, _I64(width - 1)), _I64(width))
        with cgutils.for_range(b, n_hi) as outer:
            x_h = address(x, _entry(b, table, outer.index))
            y_h = address(y, _entry(b, table, b.add(n_hi, outer.index)))
            z_h = b.add(z, b.mul(b.mul(outer.index, n_lo), cell))
            with cgutils.for_range(b, steps) as inner:
                x_z, y_z, places = [], [], []
                for i in range(width):
                    number = b.add(b.mul(inner.index, _I64(width)), _I64(i))
                    if width > 1:  # the last cells are done twice, the same way, if there is not a full tile of them
                        number = b.select(b.icmp_signed("<", number, last), number, last)
                    x_z.append(address(x_h, _entry(b, lo_table, number)))
                    y_z.append(address(y_h, _entry(b, lo_table, b.add(n_lo, number))))
                    places.append(b.add(z_h, b.mul(number, cell)))
                body(x_z, y_z, places)
        return _larger(b, b.load(top), _across(b, b.load(peak), True))

    def contract(
        typingctx: Any, x: Any, y: Any, z: Any, table: Any, n_hi: Any, n_lo: Any, run: Any, n_kh: Any, n_kl: Any
    ) -> tuple[Any, Any]:
        return types.float64(*[types.int64] * 9), codegen

    return intrinsic(contract)


def _make_search(kind: Any) -> Any:
    """search(x, n, found): found becomes 1 where one of n vectors is positive and tiny; one number for a whole run."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, n, found_at = args
        found = cgutils.alloca_once_value(b, _vector_of(kind, 0.0))
        with cgutils.for_range(b, n) as loop:
            value = b.load(_pointer(b, x, loop.index, kind, 8 * kind.count), align=8)
            positive = b.fcmp_ordered(">", value, _vector_of(kind, 0.0))
            tiny = b.and_(positive, b.fcmp_ordered("<", value, _vector_of(kind, _TINY)))
            b.store(b.select(tiny, _vector_of(kind, 1.0), b.load(found)), found)
        result, target = b.load(found), kind
        if kind is _VECTOR:
            result, target = _across(b, result, True), _F64
        place = b.inttoptr(found_at, target.as_pointer())
        b.store(_larger(b, b.load(place, align=8), result), place, align=8)
        return context.get_dummy_value()

    def search(typingctx: Any, x: Any, n: Any, found: Any) -> tuple[Any, Any]:
        return types.void(*[types.int64] * 3), codegen

    return intrinsic(search)


_tiny_cells = _make_search(_VECTOR)
_tiny_lanes = _make_search(_ROW)
_lanes_sum = _make_lanes(False, False)
_lanes_sum_static = _make_lanes(True, False)
_lanes_max = _make_lanes(False, True)
_lanes_runs = _make_lanes_in_runs(False)
_lanes_runs_static = _make_lanes_in_runs(True)
_lanes_max_static = _make_lanes(True, True)
_runs_both = _make_runs(Z_RUNS, True, True, False)
_runs_one = _make_runs(Z_RUNS, False, True, False)
_tiles_both = _make_runs(Z_TILES, True, True, False, 1)
_tiles_one = _make_runs(Z_TILES, False, True, False, 1)
_pairs_both = _make_runs(Z_TILES, True, True, False, 2)
_pairs_one = _make_runs(Z_TILES, False, True, False, 2)
_sums_both = _make_runs(K_RUNS, True, True, False)
_sums_one = _make_runs(K_RUNS, False, True, False)
_cells = _make_runs(CELLS, False, False, False)
_runs_both_max = _make_runs(Z_RUNS, True, True, True)
_runs_one_max = _make_runs(Z_RUNS, False, True, True)
_cells_max = _make_runs(CELLS, False, False, True)


@jit
def _contract_row(op: Any, x: int, y: int, z: int, table: int, maximum: bool) -> Any:
    h, lo, r, kh, kl = op[N_HI], op[N_LO], op[RUN], op[N_KH], op[N_KL]
    mode, both = op[MODE], op[VARIANT] == 2
    if maximum:
        if mode == Z_RUNS and both:
            return _runs_both_max(x, y, z, table, h, lo, r, kh, kl)
        if mode == Z_RUNS:
            return _runs_one_max(x, y, z, table, h, lo, r, kh, kl)
        return _cells_max(x, y, z, table, h, lo, r, kh, kl)
    if mode == Z_RUNS and both:
        return _runs_both(x, y, z, table, h, lo, r, kh, kl)
    if mode == Z_RUNS:
        return _runs_one(x, y, z, table, h, lo, r, kh, kl)
    if mode == Z_TILES and r <= 8 and both:
        return _tiles_both(x, y, z, table, h, lo, r, kh, kl)
    if mode == Z_TILES and r <= 8:
        return _tiles_one(x, y, z, table, h, lo, r, kh, kl)
    if mode == Z_TILES and both:
        return _pairs_both(x, y, z, table, h, lo, r, kh, kl)
    if mode == Z_TILES:
        return _pairs_one(x, y, z, table, h, lo, r, kh, kl)
    if mode == K_RUNS and both:
        return _sums_both(x, y, z, table, h, lo, r, kh, kl)
    if mode == K_RUNS:
        return _sums_one(x, y, z, table, h, lo, r, kh, kl)
    return _cells(x, y, z, table, h, lo, r, kh, kl)


@jit
def _contract_lanes(op: Any, x: int, y: int, z: int, table: int, peak: int, maximum: bool) -> None:
    n_z, n_k, static = op[N_Z], op[N_KL], op[X_STATIC]
    if op[MODE] == K_LANES:
        if static:
            _lanes_runs_static(x, y, z, table, n_z, n_k, peak, op[RUN], op[N_HI], op[N_LO])
        else:
            _lanes_runs(x, y, z, table, n_z, n_k, peak, op[RUN], op[N_HI], op[N_LO])
    elif maximum:
        if static:
            _lanes_max_static(x, y, z, table, n_z, n_k, peak)
        else:
            _lanes_max(x, y, z, table, n_z, n_k, peak)
    elif static:
        _lanes_sum_static(x, y, z, table, n_z, n_k, peak)
    else:
        _lanes_sum(x, y, z, table, n_z, n_k, peak)


@jit
def _exponent_of(peak: float) -> Any:
    """The power of two to take out: 0 where the largest entry is fit, or 0, or not finite."""
    if peak == 0.0 or _SMALL <= peak <= _BIG or not peak < np.inf:
        return 0
    _, exponent = math.frexp(peak)
    return exponent


@jit
def _run(
    ops: Any,
    index: Any,
    constants: Any,
    arena: Any,
    exponents: Any,
    peaks: Any,
    tiny: Any,
    steep: Any,
    watch: bool,
    maximum: bool,
) -> None:
    """Do all contractions; the powers of two taken out are added to `exponents`, one for each lane.

    If told to watch, `tiny` is set to 1 for lanes with entries so small that their products may vanish, `steep` where
    the largest entry of a product is small.
    """
    n_lanes = len(exponents)
    cell = 8 * n_lanes
    base = arena.ctypes.data
    tables = index.ctypes.data
    fixed = constants.ctypes.data
    for i in range(len(ops)):
        op = ops[i]
        x = fixed + 8 * op[X] if op[X_STATIC] else base + cell * op[X]
        y = fixed + 8 * op[Y] if op[Y_STATIC] else base + cell * op[Y]
        z = base + cell * op[Z]
        table = tables + 4 * op[TABLE]
        if op[MODE] <= K_LANES:
            _contract_lanes(op, x, y, z, table, peaks.ctypes.data, maximum)
            low = peaks[0]
            high = peaks[0]
            for lane in range(1, n_lanes):
                low = min(low, peaks[lane])
                high = max(high, peaks[lane])
            if low < _SMALL or high > _BIG:
                for lane in range(n_lanes):
                    exponent = _exponent_of(peaks[lane])
                    if peaks[lane] < _STEEP:
                        steep[lane] = 1.0
                    if exponent != 0:
                        exponents[lane] += exponent
                        _scale(arena, op[Z] * n_lanes + lane, op[N_Z], n_lanes, exponent)
        else:
            peak = _contract_row(op, x, y, z, table, maximum)
            exponent = _exponent_of(peak)
            if peak < _STEEP:
                steep[0] = 1.0
            if exponent != 0:
                exponents[0] += exponent
                _scale(arena, op[Z], op[N_Z], 1, exponent)
        if watch:
            _look_for_tiny(arena, op[Z] * n_lanes, op[N_Z], tiny)


@jit
def _look_for_tiny(arena: Any, first: int, count: int, tiny: Any) -> None:
    if len(tiny) == 1:
        _tiny_cells(arena.ctypes.data + 8 * first, count // _WIDTH, tiny.ctypes.data)
        for i in range(first + count // _WIDTH * _WIDTH, first + count):
            if 0.0 < arena[i] < _TINY:
                tiny[0] = 1.0
    else:
        _tiny_lanes(arena.ctypes.data + 8 * first, count, tiny.ctypes.data)


@jit
def _exclusive(pairs: Any, constants: Any, arena: Any, lane: int, n_lanes: int) -> bool:
    """Whether some table and its adjoint nearly exclude each other."""
    for i in range(len(pairs)):
        base, static, adjoint, size = pairs[i]
        total = 0.0
        for cell in range(size):
            value = constants[base + cell] if static else arena[(base + cell) * n_lanes + lane]
            total += value * arena[(adjoint + cell) * n_lanes + lane]
        if total < _STEEP:
            return True
    return False


@jit
def _scale(arena: Any, first: int, count: int, step: int, exponent: int) -> None:
    # in two steps: 2^1074 is no number
    half = exponent // 2
    one = math.ldexp(1.0, -half)
    two = math.ldexp(1.0, half - exponent)
    for i in range(count):
        arena[first + i * step] = arena[first + i * step] * one * two


@jit
def fold(ops: Any, index: Any, constants: Any, maximum: bool, shifts: Any) -> int:
    """Contract constants into constants; `shifts` takes the power of two taken out of each. Return their sum."""
    base = constants.ctypes.data
    taken = 0
    for i in range(len(ops)):
        op = ops[i]
        peak = _contract_row(
            op, base + 8 * op[X], base + 8 * op[Y], base + 8 * op[Z], index.ctypes.data + 4 * op[TABLE], maximum
        )
        shifts[i] = 0
        if peak > 0.0:
            _, shifts[i] = math.frexp(peak)
            _scale(constants, op[Z], op[N_Z], 1, shifts[i])
        taken += shifts[i]
    return taken


@jit
def unfold(ops: Any, shifts: Any, index: Any, constants: Any, counts: Any) -> None:
    """The adjoints of `fold`: derivatives by products into derivatives by what was multiplied.

    Those by zeros, which may be as large as one likes, and count for nothing in the end, are set to 0.
    """
    _forget_zeros(constants, counts, 0, len(counts))
    for i in range(len(ops)):
        op = ops[i]
        x = constants.ctypes.data if op[X_STATIC] else counts.ctypes.data
        y = constants.ctypes.data if op[Y_STATIC] else counts.ctypes.data
        _contract_row(
            op, x + 8 * op[X], y + 8 * op[Y], counts.ctypes.data + 8 * op[Z], index.ctypes.data + 4 * op[TABLE], False
        )
        _scale(counts, op[Z], op[N_Z], 1, shifts[i])
        _forget_zeros(constants, counts, op[Z], op[Z] + op[N_Z])


@jit
def _forget_zeros(constants: Any, counts: Any, first: int, last: int) -> None:
    for cell in range(first, last):
        if constants[cell] == 0.0:
            counts[cell] = 0.0


@jit
def fill_offsets(axes: Any, bounds: Any, index: Any) -> None:
    """Write tables of offsets into `index`: of each group of axes (size, step in X, step in Y), X first, then Y.

    The axes of group g are ``axes[bounds[g, 0]:bounds[g, 1]]``; its table begins at ``bounds[g, 2]``. The last axis
    runs fastest.
    """
    for g in range(len(bounds)):
        first, last, start = bounds[g]
        total = 1
        for a in range(first, last):
            total *= axes[a, 0]
        index[start] = 0
        index[start + total] = 0
        done = 1
        for a in range(last - 1, first - 1, -1):
            size, x_step, y_step = axes[a]
            for i in range(1, size):
                for j in range(done):
                    index[start + i * done + j] = index[start + j] + i * x_step
                    index[start + total + i * done + j] = index[start + total + j] + i * y_step
            done *= size


@jit
def _load(
    codes: Any,
    soft: Any,
    row: int,
    stop: int,
    lambdas: Any,
    loads: Any,
    load_variables: Any,
    index: Any,
    constants: Any,
    arena: Any,
    found: Any,
) -> None:
    """Write the evidence of the rows from `row` on into the arena: indicators, and slices of tables.

    The last row is taken for lanes that are left over. `found`: work space, one integer for each lane.
    """
    n_lanes = len(found)
    for i in range(len(lambdas)):
        variable, base, size, offset = lambdas[i]
        for lane in range(n_lanes):
            found[lane] = codes[min(row + lane, stop - 1), variable]
        for state in range(size):
            place = (base + state) * n_lanes
            for lane in range(n_lanes):
                arena[place + lane] = 1.0 if found[lane] < 0 or found[lane] == state else 0.0
        if soft.shape[0] > 0:
            for lane in range(n_lanes):
                for state in range(size):
                    arena[(base + state) * n_lanes + lane] *= soft[min(row + lane, stop - 1), offset + state]
    for i in range(len(loads)):
        base, size, table, constant, first, last = loads[i]
        for lane in range(n_lanes):
            r = min(row + lane, stop - 1)
            start = constant
            for j in range(first, last):
                start += codes[r, load_variables[j, 0]] * load_variables[j, 1]
            for cell in range(size):
                arena[(base + cell) * n_lanes + lane] = constants[start + index[table + cell]]


@jit
def _log_root(root: Any, constants: Any, arena: Any, lane: int, n_lanes: int, exponent: int, shift: float) -> Any:
    value = constants[root[0]] if root[1] else arena[root[0] * n_lanes + lane]
    if value > 0.0:
        return np.log(value) + (exponent * 0.6931471805599453 + shift)
    return -np.inf


@jit
def infer_rows(
    program: Any,
    shift: float,
    codes: Any,
    soft: Any,
    start: int,
    stop: int,
    work: Any,
    maximum: bool,
    log_evidence: Any,
    marginals: Any,
    walk: Any,
    tally: Any,
    again: Any,
    pairs: Any,
) -> None:
    """Rows [start, stop): log P(evidence), and what else is asked for by arrays that are not empty.

    The work space is the arena, and exponents, largest entries, sums and flags of each lane. `marginals`: one column
    for each state. `walk`: how to go down (`_trace`), random numbers, states (row, draw, variable). `tally`: where
    adjoints are added up, weights of the rows, and derivatives of log P(evidence) by the constants. `again`: empty, or
    True where there are tiny constants; becomes True for rows in which something may be lost, and which were not added
    up: such with tiny entries, if their tables and adjoints (`pairs`) nearly exclude each other, or are not known.
    """
    # One function for all: what it calls is compiled into it, and that takes seconds.
    lambdas, loads, load_variables, forward, backward, outputs, index, constants, root = program
    arena, exponents, peaks, totals, tiny = work
    steps, scopes, offsets, uniforms, states = walk
    leaves, weights, counts = tally
    n_lanes = len(exponents)
    n_draws = states.shape[1]
    down = marginals.shape[1] > 0 or len(leaves) > 0
    watch = len(again) > 0
    for row in range(start, stop, n_lanes):
        count = min(n_lanes, stop - row)
        _load(codes, soft, row, stop, lambdas, loads, load_variables, index, constants, arena, exponents)
        exponents[:] = 0
        tiny[:] = 0.0
        totals[:] = 0.0  # here: whether a product was steep
        if watch:
            for lane in range(count):
                tiny[lane] = 1.0 if again[row + lane] else 0.0
            for i in range(len(lambdas)):
                _look_for_tiny(arena, lambdas[i, 1] * n_lanes, lambdas[i, 2], tiny)
        for direction in range(2 if down else 1):
            ops = backward if direction else forward
            _run(ops, index, constants, arena, exponents, peaks, tiny, totals, watch, maximum)
            if direction == 0:
                for lane in range(count):
                    log_evidence[row + lane] = _log_root(root, constants, arena, lane, n_lanes, exponents[lane], shift)
                for lane in range(n_lanes):
                    arena[root[2] * n_lanes + lane] = 1.0
        for lane in range(count):
            r = row + lane
            possible = log_evidence[r] > -np.inf
            if watch:
                doubt = tiny[lane] > 0.0
                if doubt and possible and totals[lane] == 0.0 and len(pairs) > 0:
                    doubt = _exclusive(pairs, constants, arena, lane, n_lanes)
                again[r] = doubt
                tiny[lane] = 1.0 if doubt else 0.0
                if doubt and len(pairs) > 0:
                    continue
            for draw in range(n_draws):
                for variable in range(codes.shape[1]):
                    states[r, draw, variable] = codes[r, variable]
                if possible:
                    _trace(
                        steps,
                        scopes,
                        offsets,
                        constants,
                        arena,
                        lane,
                        n_lanes,
                        uniforms[r, draw],
                        maximum,
                        states[r, draw],
                    )
            if down:
                _write_marginals(outputs, codes, arena, lane, n_lanes, r, possible, marginals)
        if len(leaves) > 0:
            for lane in range(n_lanes):
                r = row + lane
                fit = lane < count and log_evidence[min(r, stop - 1)] > -np.inf and tiny[lane] == 0.0
                peaks[lane] = weights[r] if fit else 0.0
            _tally(leaves, load_variables, index, constants, codes, arena, totals, row, count, peaks, counts)


@jit
def _write_marginals(
    outputs: Any, codes: Any, arena: Any, lane: int, n_lanes: int, row: int, possible: bool, marginals: Any
) -> None:
    for i in range(len(outputs)):
        base, size, column, variable = outputs[i]
        if not possible:
            for state in range(size):
                marginals[row, column + state] = np.nan
        elif base < 0:  # observed, and sliced
            for state in range(size):
                marginals[row, column + state] = 1.0 if codes[row, variable] == state else 0.0
        else:
            total = 0.0
            for state in range(size):
                total += arena[(base + state) * n_lanes + lane]
            for state in range(size):
                marginals[row, column + state] = arena[(base + state) * n_lanes + lane] / total


@jit
def _tally(
    leaves: Any,
    load_variables: Any,
    index: Any,
    constants: Any,
    codes: Any,
    arena: Any,
    totals: Any,
    row: int,
    count: int,
    weights: Any,
    counts: Any,
) -> None:
    """Add weight times the derivative of log P(evidence) by each entry of the constants, row after row."""
    n_lanes = len(totals)
    for i in range(len(leaves)):
        adjoint, size, table, constant, first, last = leaves[i]
        if table < 0:  # the same entries for all rows
            totals[:] = 0.0
            for cell in range(size):
                value = constants[constant + cell]
                place = (adjoint + cell) * n_lanes
                for lane in range(n_lanes):
                    totals[lane] += value * arena[place + lane]
            for lane in range(n_lanes):
                totals[lane] = weights[lane] / totals[lane] if weights[lane] > 0.0 else 0.0
            for cell in range(size):
                place = (adjoint + cell) * n_lanes
                value = counts[constant + cell]
                for lane in range(n_lanes):
                    value += totals[lane] * arena[place + lane]
                counts[constant + cell] = value
            continue
        for lane in range(count):
            if weights[lane] > 0.0:
                start = constant
                for j in range(first, last):
                    start += codes[row + lane, load_variables[j, 0]] * load_variables[j, 1]
                total = 0.0
                for cell in range(size):
                    total += constants[start + index[table + cell]] * arena[(adjoint + cell) * n_lanes + lane]
                factor = weights[lane] / total
                for cell in range(size):
                    counts[start + index[table + cell]] += factor * arena[(adjoint + cell) * n_lanes + lane]


@jit
def _trace(
    steps: Any,
    scopes: Any,
    offsets: Any,
    constants: Any,
    arena: Any,
    lane: int,
    n_lanes: int,
    uniforms: Any,
    maximum: bool,
    states: Any,
) -> None:
    """Give the variables that were summed over states, from the root down: the best ones, or random ones."""
    for i in range(len(steps)):
        x, x_static, x_first, x_last, y, y_static, y_first, y_last, table, n_k, k_first, k_last = steps[i]
        for j in range(x_first, x_last):
            x += states[scopes[j, 0]] * scopes[j, 1]
        for j in range(y_first, y_last):
            y += states[scopes[j, 0]] * scopes[j, 1]
        best = -1.0
        chosen = 0
        target = 0.0
        for again in range(1 if maximum else 2):
            total = 0.0
            for k in range(n_k):
                x_cell = x + offsets[table + k]
                y_cell = y + offsets[table + n_k + k]
                weight = constants[x_cell] if x_static else arena[x_cell * n_lanes + lane]
                weight *= constants[y_cell] if y_static else arena[y_cell * n_lanes + lane]
                if maximum:
                    if weight > best:
                        best = weight
                        chosen = k
                elif weight > 0.0:
                    total += weight
                    if again == 1:
                        chosen = k
                        if target < total:
                            break
            if not maximum:
                target = uniforms[i] * total
        for j in range(k_first, k_last):
            states[scopes[j, 0]] = chosen // scopes[j, 1] % scopes[j, 2]


# ---- the same in logarithms: slow, for what is too far apart for numbers ---------------------------------------------


@jit
def _log_sum(peak: float, total: float, value: float) -> Any:
    """Add one more to ``exp(peak) * total``."""
    if value == -np.inf:
        return peak, total
    if value <= peak:
        return peak, total + math.exp(value - peak)
    return value, total * math.exp(peak - value) + 1.0


@jit
def _contract_logs(op: Any, x: Any, y: Any, z: Any, index: Any, maximum: bool) -> None:
    """One contraction of a program for single rows; x, y, z hold logarithms."""
    table = op[TABLE]
    n_hi, n_lo, n_kh, n_kl, variant = op[N_HI], op[N_LO], op[N_KH], op[N_KL], op[VARIANT]
    x_step, y_step = int(variant == 2), int(variant >= 1)
    lo_table = table + 2 * n_hi
    kh_table = lo_table + 2 * n_lo
    kl_table = kh_table + 2 * n_kh
    z_run = op[RUN] if op[MODE] == Z_RUNS or op[MODE] == Z_TILES else 1
    k_run = op[RUN] if op[MODE] == K_RUNS else 1
    to = op[Z]
    for hi in range(n_hi):
        for lo in range(n_lo):
            x_z = op[X] + index[table + hi] + index[lo_table + lo]
            y_z = op[Y] + index[table + n_hi + hi] + index[lo_table + n_lo + lo]
            for r in range(z_run):
                peak, total = -np.inf, 0.0
                for kh in range(n_kh):
                    for kl in range(n_kl):
                        x_k = x_z + r * x_step + index[kh_table + kh] + index[kl_table + kl]
                        y_k = y_z + r * y_step + index[kh_table + n_kh + kh] + index[kl_table + n_kl + kl]
                        for k in range(k_run):
                            value = x[x_k + k * x_step] + y[y_k + k * y_step]
                            if maximum:
                                peak = max(peak, value)
                            else:
                                peak, total = _log_sum(peak, total, value)
                z[to] = peak + math.log(total) if total > 0.0 else peak
                to += 1


@jit
def fold_in_logs(ops: Any, index: Any, constants: Any, maximum: bool) -> None:
    """What `fold` does, without taking anything out."""
    for i in range(len(ops)):
        _contract_logs(ops[i], constants, constants, constants, index, maximum)


@jit
def infer_in_logs(
    program: Any,
    shift: float,
    codes: Any,
    soft: Any,
    rows: Any,
    arena: Any,
    maximum: bool,
    log_evidence: Any,
    marginals: Any,
    walk: Any,
    tally: Any,
) -> None:
    """What `infer_rows` does, for these rows; constants and the arena hold logarithms.

    Tally: where adjoints are, the contractions of `unfold` and their tables of offsets, work space, weights, and sums,
    which take posterior probabilities of what each entry of the constants stands for.
    """
    lambdas, loads, load_variables, forward, backward, outputs, index, constants, root = program
    steps, scopes, offsets, uniforms, states = walk
    leaves, unfolding, unfolding_index, derivatives, weights, counts = tally
    for r in rows:
        for i in range(len(lambdas)):
            variable, base, size, offset = lambdas[i]
            code = codes[r, variable]
            for state in range(size):
                value = 0.0 if code < 0 or code == state else -np.inf
                if soft.shape[0] > 0:
                    value += math.log(soft[r, offset + state]) if soft[r, offset + state] > 0.0 else -np.inf
                arena[base + state] = value
        for i in range(len(loads)):
            base, size, table, start, first, last = loads[i]
            for j in range(first, last):
                start += codes[r, load_variables[j, 0]] * load_variables[j, 1]
            for cell in range(size):
                arena[base + cell] = constants[start + index[table + cell]]
        for direction in range(2):
            ops = backward if direction else forward
            for i in range(len(ops)):
                op = ops[i]
                x = constants if op[X_STATIC] else arena
                y = constants if op[Y_STATIC] else arena
                _contract_logs(op, x, y, arena, index, maximum)
            if direction == 0:
                value = constants[root[0]] if root[1] else arena[root[0]]
                log_evidence[r] = value + shift
                arena[root[2]] = 0.0
        total = constants[root[0]] if root[1] else arena[root[0]]
        possible = total > -np.inf
        for draw in range(states.shape[1]):
            for variable in range(codes.shape[1]):
                states[r, draw, variable] = codes[r, variable]
            if possible:
                _trace_logs(steps, scopes, offsets, constants, arena, uniforms[r, draw], maximum, states[r, draw])
        for i in range(len(outputs)):
            base, size, column, variable = outputs[i]
            for state in range(size):
                value = np.nan
                if possible and base < 0:
                    value = 1.0 if codes[r, variable] == state else 0.0
                elif possible:
                    value = math.exp(arena[base + state] - total)
                marginals[r, column + state] = value
            if possible and base >= 0:
                share = 0.0
                for state in range(size):
                    share += marginals[r, column + state]
                for state in range(size):
                    marginals[r, column + state] /= share
        if len(leaves) == 0 or not possible or not weights[r] > 0.0:
            continue
        derivatives[:] = -np.inf
        for i in range(len(leaves)):
            adjoint, size, table, start, first, last = leaves[i]
            for j in range(first, last):
                start += codes[r, load_variables[j, 0]] * load_variables[j, 1]
            for cell in range(size):
                place = start + (index[table + cell] if table >= 0 else cell)
                derivatives[place] = arena[adjoint + cell]
        for i in range(len(unfolding)):
            op = unfolding[i]
            x = constants if op[X_STATIC] else derivatives
            y = constants if op[Y_STATIC] else derivatives
            _contract_logs(op, x, y, derivatives, unfolding_index, False)
        for cell in range(len(counts)):
            value = constants[cell] + derivatives[cell] - total
            if value > -np.inf:
                counts[cell] += weights[r] * math.exp(value)


@jit
def _trace_logs(
    steps: Any, scopes: Any, offsets: Any, constants: Any, arena: Any, uniforms: Any, maximum: bool, states: Any
) -> None:
    """`_trace` in logarithms."""
    for i in range(len(steps)):
        x, x_static, x_first, x_last, y, y_static, y_first, y_last, table, n_k, k_first, k_last = steps[i]
        for j in range(x_first, x_last):
            x += states[scopes[j, 0]] * scopes[j, 1]
        for j in range(y_first, y_last):
            y += states[scopes[j, 0]] * scopes[j, 1]
        best = -np.inf
        chosen = 0
        target = total = 0.0
        for again in range(1 if maximum else 3):  # the largest; the sum; where the sum passes the target
            total = 0.0
            for k in range(n_k):
                x_cell = x + offsets[table + k]
                y_cell = y + offsets[table + n_k + k]
                value = constants[x_cell] if x_static else arena[x_cell]
                value += constants[y_cell] if y_static else arena[y_cell]
                if again == 0:
                    if value > best:
                        best = value
                        chosen = k
                elif value > -np.inf:
                    total += math.exp(value - best)
                    if again == 2 and math.exp(value - best) > 0.0:
                        chosen = k
                        if target < total:
                            break
            if again == 1:
                target = uniforms[i] * total
        for j in range(k_first, k_last):
            states[scopes[j, 0]] = chosen // scopes[j, 1] % scopes[j, 2]
