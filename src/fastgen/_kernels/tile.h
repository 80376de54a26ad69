/* Tiles: how a kernel reads rows of X and writes its results.
 *
 * A tile is TILE samples held feature-major, t[j * TILE + s], so that every inner loop runs across samples,
 * whatever the number of features. X may be float32 or float64 (a float32 is widened, so all arithmetic
 * is float64) with any strides, counted in elements. `single` is always a compile-time constant here.
 */
#ifndef FASTGEN_TILE_H
#define FASTGEN_TILE_H

#include "simd.h"

#define TILE 32
#define VMIN(a, b) ((a) < (b) ? (a) : (b))
#define VMAX(a, b) ((a) > (b) ? (a) : (b))

typedef double v4d __attribute__((vector_size(32)));
typedef double v4d_any __attribute__((vector_size(32), aligned(8), may_alias));
typedef float v4f_any __attribute__((vector_size(16), aligned(4), may_alias));

static ALWAYS_INLINE double element(const void *x, ptrdiff_t i, const int single) {
    return single ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

static ALWAYS_INLINE v4d four(const void *x, ptrdiff_t i, const int single) {
    return single ? __builtin_convertvector(*(const v4f_any *)((const float *)x + i), v4d)
                  : (v4d) * (const v4d_any *)((const double *)x + i);
}

/* c[q][lane] <- row[lane][q]: a VL x 4 transpose. */
static ALWAYS_INLINE void transpose_in(const v4d row[VL], vd c[4]) {
#if VL == 8
    vd r[4], t[4];
    for (int i = 0; i < 4; i++) r[i] = __builtin_shufflevector(row[i], row[i + 4], 0, 1, 2, 3, 4, 5, 6, 7);
    for (int i = 0; i < 4; i += 2) {
        t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int i = 0; i < 2; i++) {
        c[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        c[i + 2] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
#elif VL == 4
    vd t[4];
    for (int i = 0; i < 4; i += 2) {
        t[i] = __builtin_shufflevector(row[i], row[i + 1], 0, 4, 2, 6);
        t[i + 1] = __builtin_shufflevector(row[i], row[i + 1], 1, 5, 3, 7);
    }
    for (int i = 0; i < 2; i++) {
        c[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 4, 5);
        c[i + 2] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 6, 7);
    }
#else
    for (int q = 0; q < 4; q++) c[q] = (vd){row[0][q], row[1][q]};
#endif
}

/* The even and the odd elements of VL pairs that lie one after the other. */
static ALWAYS_INLINE void deinterleave(const double *x, vd *even, vd *odd) {
    vd a = vload(x), b = vload(x + VL);
#if VL == 8
    *even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    *odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#elif VL == 4
    *even = __builtin_shufflevector(a, b, 0, 2, 4, 6);
    *odd = __builtin_shufflevector(a, b, 1, 3, 5, 7);
#else
    *even = __builtin_shufflevector(a, b, 0, 2);
    *odd = __builtin_shufflevector(a, b, 1, 3);
#endif
}

/* Where a tile of X lies; strides in bytes. */
typedef struct {
    const char *x;
    ptrdiff_t row, column;
} tile_source;

/* Fetch up to 8 columns from j on, of `rows` (a multiple of 8) rows from s on, into the L2 cache. */
static ALWAYS_INLINE void prefetch_columns(const tile_source *t, ptrdiff_t s, ptrdiff_t rows, ptrdiff_t j,
                                           ptrdiff_t columns) {
    const char *x = t->x + s * t->row + j * t->column;
    if (t->column <= 8)
        for (ptrdiff_t r = 0; r < rows; r++) __builtin_prefetch(x + r * t->row, 0, 2);
    else
        for (ptrdiff_t q = 0; q < columns; q++)
            for (ptrdiff_t r = 0; r < rows; r += 8) __builtin_prefetch(x + q * t->column + r * t->row, 0, 2);
}

/* t[j * TILE + s] <- X[s, j] for `rows` <= TILE samples; samples that are not there are 0. */
static ALWAYS_INLINE void load_tile(const void *x, const int single, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t row_stride,
                                    ptrdiff_t column_stride, double *t) {
    if (rows == TILE && column_stride == 1 && d >= 4) {
        for (ptrdiff_t s = 0; s < TILE; s += VL)
            for (ptrdiff_t j = 0; j < d; j += 4) {
                if (j + 4 > d) j = d - 4; /* the last four overlap those before: nothing is read past a row */
                v4d row[VL];
                vd c[4];
                EACH(i, VL) row[i] = four(x, (s + i) * row_stride + j, single);
                transpose_in(row, c);
                EACH(q, 4) vstore(t + (j + q) * TILE + s, c[q]);
            }
    } else if (!single && rows == TILE && d == 2 && column_stride == 1 && row_stride == 2) {
        for (ptrdiff_t s = 0; s < TILE; s += VL) {
            vd even, odd;
            deinterleave((const double *)x + 2 * s, &even, &odd);
            vstore(t + s, even);
            vstore(t + TILE + s, odd);
        }
    } else {
        for (ptrdiff_t j = 0; j < d; j++) {
            double *c = t + j * TILE;
            if (rows == TILE && row_stride == 1)
                for (ptrdiff_t s = 0; s < TILE; s++) c[s] = element(x, s + j * column_stride, single);
            else
                for (ptrdiff_t s = 0; s < TILE; s++)
                    c[s] = s < rows ? element(x, s * row_stride + j * column_stride, single) : 0.0;
        }
    }
}

/* out[s, k] <- t[k * TILE + s] for `rows` <= TILE samples. */
static ALWAYS_INLINE void store_tile(const double *t, ptrdiff_t rows, ptrdiff_t K, void *out, const int single,
                                     ptrdiff_t row_stride, ptrdiff_t column_stride) {
    for (ptrdiff_t s = 0; s < rows; s++)
        for (ptrdiff_t k = 0; k < K; k++) {
            ptrdiff_t i = s * row_stride + k * column_stride;
            if (single)
                ((float *)out)[i] = (float)t[k * TILE + s];
            else
                ((double *)out)[i] = t[k * TILE + s];
        }
}

/* The caller's work space, aligned to a cache line (the caller gives 8 doubles more than are needed). */
static ALWAYS_INLINE double *aligned(double *work) { return (double *)(((uintptr_t)work + 63) & ~(uintptr_t)63); }

#endif
