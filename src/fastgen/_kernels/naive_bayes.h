/* Naive Bayes, for _naive_bayes.pyx: log p(x, y) of rows under C classes, and the sums that fits need.
 *
 *   log p(x, y = c) = log p(c) + sum_j log p(x_j | c)
 *
 * A model is a list of terms, each for some columns of X. One walk over the rows: the joint of a tile of 32 rows, (C,
 * TILE), is made in L1, term by term, and then becomes what is wanted. Gaussian and linear terms run with samples along
 * the vectors, 4 vectors for several classes at a time; tables and sparse rows with classes along them.
 */
#ifndef FASTGEN_NAIVE_BAYES_H
#define FASTGEN_NAIVE_BAYES_H

#include <string.h>

#include "tile.h"

#define NB_VECTORS (TILE / VL)
#define NB_INFINITE 1e280
#define NB_COLUMNS 64 /* of a tile that is loaded at a time: 16 KiB */

/* Kinds of terms. SPARSE: of a matrix in compressed rows. */
enum { NB_GAUSSIAN, NB_LINEAR, NB_BINARY, NB_TABLE, NB_SPARSE };

/* Types of the elements of X. */
enum { NB_F64, NB_F32, NB_I8, NB_I16, NB_I32, NB_I64, NB_U8, NB_U16, NB_U32, NB_U64 };

/* What is wanted. */
enum { NB_JOINT, NB_PREDICT, NB_PROBA, NB_LOG_PROBA, NB_LOG_PROB };

/* What a kernel has met: sums that are not finite; negative values, or codes of missing ones; codes of no category;
 * indices of no column. */
enum { NB_NOT_FINITE = 1, NB_NEGATIVE = 2, NB_UNSEEN = 4, NB_BROKEN = 8 };

typedef struct {
    int kind, type;
    ptrdiff_t columns; /* d of this term */
    const char *x;     /* dense: the first row; strides in bytes */
    ptrdiff_t row_stride;
    const ptrdiff_t *offsets; /* (d,) of its columns within a row, in bytes */
    int contiguous;           /* they follow each other */
    const double *a, *b; /* GAUSSIAN: means, 1 / standard deviations; LINEAR: weights, what a missing value takes away;
                            BINARY: log p, log q */
    const double *norm;  /* GAUSSIAN: (C, d) log(2 pi variance), if values are missing */
    const double *by_column; /* LINEAR, BINARY as a product: a transposed, (d, P). TABLE: the categories of each column
                                and class along `lanes` numbers, (d, C, lanes); both may be absent */
    int lanes;               /* 8 or 16, at least all sizes */

    double threshold;               /* BINARY, SPARSE if binary */
    int binary;                     /* SPARSE: 1 for what is above the threshold */
    const ptrdiff_t *sizes, *first; /* TABLE: (d,) categories of each column, and where its rows of `a` begin */
    const void *indices, *indptr;   /* SPARSE */
    int wide_indices, wide_indptr;  /* 64 bits */
} nb_term;

/* Twice the negative joint, less a constant, in single precision: k[c] + sum_j (z_j q[c, j] + p[c, j])^2 with
 * z = x - centre. Of the best and the second, a < b, a is the best of double precision, too, if
 * a slope + intercept < b: see `_screen` in _naive_bayes.py. */
typedef struct {
    const double *centre;   /* (d,) */
    const float *q, *p, *k; /* (C, d), (C, d), (C,) */
    float slope, intercept;
} nb_screen;

typedef struct {
    ptrdiff_t C, P; /* classes; padded to a multiple of 8 */
    const double *log_prior;
    const nb_screen *screen; /* of a single Gaussian term, for PREDICT; may be absent */
    ptrdiff_t terms;
    const nb_term *term;
    int infinite; /* what is beyond NB_INFINITE stands for infinity: 0 times a finite weight is 0 */
} nb_model;

static ALWAYS_INLINE double nb_value(const char *x, const int type) {
    switch (type) {
    case NB_F64: return *(const double *)x;
    case NB_F32: return *(const float *)x;
    case NB_I8: return *(const int8_t *)x;
    case NB_I16: return *(const int16_t *)x;
    case NB_I32: return *(const int32_t *)x;
    case NB_I64: return (double)*(const int64_t *)x;
    case NB_U8: return *(const uint8_t *)x;
    case NB_U16: return *(const uint16_t *)x;
    case NB_U32: return *(const uint32_t *)x;
    default: return (double)*(const uint64_t *)x;
    }
}

/* t[j * TILE + s] <- columns from..from + d - 1 of `rows` rows. */
static ALWAYS_INLINE void nb_load_type(const nb_term *m, const int type, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from,
                                       ptrdiff_t d, double *t) {
    const char *x = m->x + row * m->row_stride;
    if (m->contiguous && type <= NB_F32) {
        const ptrdiff_t size = type == NB_F64 ? 8 : 4;
        if (m->row_stride % size == 0) {
            load_tile(x + m->offsets[from], type == NB_F32, rows, d, m->row_stride / size, 1, t);
            return;
        }
    }
    for (ptrdiff_t j = 0; j < d; j++)
        for (ptrdiff_t s = 0; s < TILE; s++)
            t[j * TILE + s] = s < rows ? nb_value(x + s * m->row_stride + m->offsets[from + j], type) : 0.0;
}

#define NB_BY_TYPE(type, call)                                                                                         \
    switch (type) {                                                                                                    \
    case NB_F64: call(NB_F64); break;                                                                                  \
    case NB_F32: call(NB_F32); break;                                                                                  \
    case NB_I8: call(NB_I8); break;                                                                                    \
    case NB_I16: call(NB_I16); break;                                                                                  \
    case NB_I32: call(NB_I32); break;                                                                                  \
    case NB_I64: call(NB_I64); break;                                                                                  \
    case NB_U8: call(NB_U8); break;                                                                                    \
    case NB_U16: call(NB_U16); break;                                                                                  \
    case NB_U32: call(NB_U32); break;                                                                                  \
    default: call(NB_U64); break;                                                                                      \
    }

static __attribute__((noinline)) void nb_load(const nb_term *m, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from,
                                              ptrdiff_t d, double *t) {
#define CALL(type) nb_load_type(m, type, row, rows, from, d, t)
    NB_BY_TYPE(m->type, CALL)
#undef CALL
}

/* The tile that is wanted next, which is fetched during the work on this one, a few lines of 64 bytes at each step: a
 * burst would stall it. */
typedef struct {
    const char *at;           /* the next line */
    ptrdiff_t each, left;     /* lines at each step, and of all */
    ptrdiff_t across, in_row; /* lines to the end of the row, and of a row */
    ptrdiff_t jump;           /* bytes from the end of a row's lines to the next row */
    int near;                 /* it has room in the L1 cache, beside this one */
} nb_next;

static ALWAYS_INLINE nb_next nb_next_tile(const nb_term *m, ptrdiff_t row, ptrdiff_t from, ptrdiff_t steps) {
    static const char size[] = {8, 4, 1, 2, 4, 8, 1, 2, 4, 8}; /* by type */
    nb_next next = {m->x + row * m->row_stride + m->offsets[from], 0, 0, 0, 0, 0, 0};
    if (!m->contiguous) return next;
    next.across = next.in_row = (VMIN(NB_COLUMNS, m->columns - from) * size[m->type] + 63) / 64;
    next.left = next.in_row * TILE;
    next.near = next.left <= 128;
    next.each = (next.left + steps - 1) / steps;
    next.jump = m->row_stride - next.in_row * 64;
    return next;
}

/* Fetch the lines of one step; addresses may be beyond the end. */
static ALWAYS_INLINE void nb_fetch(nb_next *next) {
    if (next->left <= 0) return;
    next->left -= next->each;
    for (ptrdiff_t k = next->each; k; k--) {
        if (next->near)
            __builtin_prefetch(next->at, 0, 3);
        else
            __builtin_prefetch(next->at, 0, 2);
        next->at += 64;
        if (--next->across == 0) {
            next->across = next->in_row;
            next->at += next->jump;
        }
    }
}

/* joint (H classes, TILE) += x (d, TILE) under classes whose parameters begin at a, b, `stride` apart. */
static ALWAYS_INLINE void nb_block(const int kind, const int missing, const int H, const double *x, ptrdiff_t d,
                                   const double *a, const double *b, const double *norm, ptrdiff_t stride,
                                   double threshold, nb_next *next, double *joint) {
    for (int from = 0; from < NB_VECTORS; from += 4) {
        vd acc[4][4];
        EACH(h, H)
            EACH(v, 4) acc[h][v] = vset(0.0);
        for (ptrdiff_t j = 0; j < d; j++) {
            vd value[4];
            if (from == 0) nb_fetch(next);
            EACH(v, 4) value[v] = in_register(vload(x + j * TILE + (from + v) * VL));
            EACH(h, H) {
                const vd p = vset(a[h * stride + j]);
                if (kind == NB_LINEAR && missing) {
                    const vd q = b ? vset(b[h * stride + j]) : vset(0.0);
                    EACH(v, 4) acc[h][v] += vselect((vi)(value[v] == value[v]), value[v] * p, -q);
                } else if (kind == NB_LINEAR) {
                    EACH(v, 4) acc[h][v] = vfma(value[v], p, acc[h][v]);
                } else if (kind == NB_GAUSSIAN) {
                    const vd q = vset(b[h * stride + j]);
                    EACH(v, 4) {
                        const vd z = (value[v] - p) * q;
                        if (missing)
                            acc[h][v] += vselect((vi)(value[v] == value[v]), z * z, -vset(norm[h * stride + j]));
                        else
                            acc[h][v] = vfma(z, z, acc[h][v]);
                    }
                } else {
                    const vd q = vset(b[h * stride + j]);
                    EACH(v, 4) {
                        vd part = vselect((vi)(value[v] > vset(threshold)), p, q);
                        if (missing) part = vselect((vi)(value[v] == value[v]), part, vset(0.0));
                        acc[h][v] += part;
                    }
                }
            }
        }
        EACH(h, H)
            EACH(v, 4) {
                double *target = joint + h * TILE + (from + v) * VL;
                const vd old = vload(target);
                vstore(target, kind == NB_GAUSSIAN ? vfma(vset(-0.5), acc[h][v], old) : old + acc[h][v]);
            }
    }
}

static ALWAYS_INLINE void nb_columns(const int kind, const int missing, const double *x, ptrdiff_t d, const nb_term *m,
                                     ptrdiff_t from, ptrdiff_t C, nb_next *next, double *joint) {
    const ptrdiff_t stride = m->columns;
    const double *a = m->a + from, *b = m->b ? m->b + from : 0, *norm = m->norm ? m->norm + from : 0;
    const int most = kind == NB_GAUSSIAN ? 2 : 4;
    ptrdiff_t c = 0;
#define CALL(H)                                                                                                        \
    nb_block(kind, missing, H, x, d, a + c * stride, b ? b + c * stride : 0, norm ? norm + c * stride : 0, stride,     \
             m->threshold, next, joint + c * TILE)
    for (; c + most <= C; c += most) CALL(most);
    switch (C - c) {
    case 3: CALL(3); break;
    case 2: CALL(2); break;
    case 1: CALL(1); break;
    }
#undef CALL
}

/* joint (C, TILE) += rows (TILE, P), by way of x (NB_COLUMNS, TILE). */
static ALWAYS_INLINE void nb_add_transposed(const double *rows, ptrdiff_t C, ptrdiff_t P, double *x, double *joint) {
    for (ptrdiff_t c = 0; c < C; c += NB_COLUMNS) {
        const ptrdiff_t here = VMIN(NB_COLUMNS, C - c);
        load_tile(rows + c, 0, TILE, here, P, 1, x);
        for (ptrdiff_t i = 0; i < here * TILE; i += VL)
            vstore(joint + c * TILE + i, vload(joint + c * TILE + i) + vload(x + i));
    }
}

/* sums (rows, P) in chunks of at most 32 classes, `width` times 8. */
#define NB_BY_WIDTH(P, call)                                                                                           \
    for (ptrdiff_t c = 0; c < (P);) switch (VMIN(((P) - c) / 8, 4)) {                                                  \
        case 4:                                                                                                        \
            call(4);                                                                                                   \
            c += 32;                                                                                                   \
            break;                                                                                                     \
        case 3:                                                                                                        \
            call(3);                                                                                                   \
            c += 24;                                                                                                   \
            break;                                                                                                     \
        case 2:                                                                                                        \
            call(2);                                                                                                   \
            c += 16;                                                                                                   \
            break;                                                                                                     \
        default:                                                                                                       \
            call(1);                                                                                                   \
            c += 8;                                                                                                    \
            break;                                                                                                     \
        }

#if VL == 8
/* Counts and events are mostly zeros, which add exactly nothing: leave them out. The bits are those of nb_block. */

/* Bit j: x[j] is not 0 (binary: above the threshold). *bad becomes NaN with any that is not finite. */
static ALWAYS_INLINE uint64_t nb_nonzero(const char *x, const int single, const int binary, ptrdiff_t d,
                                         double threshold, vd *bad) {
    uint64_t bits = 0;
    for (ptrdiff_t j = 0; j < d; j += 8) {
        const __mmask8 there = (__mmask8)(d - j < 8 ? (1u << (d - j)) - 1 : 0xff);
        const __m512d v = single ? _mm512_cvtps_pd(_mm256_maskz_loadu_ps(there, (const float *)x + j))
                                 : _mm512_maskz_loadu_pd(there, (const double *)x + j);
        const __mmask8 some = binary ? _mm512_mask_cmp_pd_mask(there, v, _mm512_set1_pd(threshold), _CMP_GT_OQ)
                                     : _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NEQ_UQ);
        if (binary) *bad = vfma((vd)v, vset(0.0), *bad);
        bits |= (uint64_t)some << j;
    }
    return bits;
}

#define NB_BLOCKS 32 /* of NB_COLUMNS columns, which are looked through at a time: row by row, as memory likes it */

/* bits[b][s]: nb_nonzero of each block of columns and row. Returns in which blocks all is finite and few cells count.
 */
static ALWAYS_INLINE uint32_t nb_survey_type(const nb_term *m, const int single, const int binary, ptrdiff_t row,
                                             ptrdiff_t rows, ptrdiff_t from, ptrdiff_t C, ptrdiff_t P,
                                             uint64_t bits[NB_BLOCKS][TILE]) {
    const ptrdiff_t d = VMIN(NB_BLOCKS * NB_COLUMNS, m->columns - from);
    ptrdiff_t count[NB_BLOCKS] = {0};
    vd bad = vset(0.0);
    for (ptrdiff_t s = 0; s < rows; s++) {
        const char *x = m->x + (row + s) * m->row_stride + m->offsets[from];
        for (ptrdiff_t b = 0; b * NB_COLUMNS < d; b++) {
            const ptrdiff_t here = VMIN(NB_COLUMNS, d - b * NB_COLUMNS);
            bits[b][s] = nb_nonzero(x + b * NB_COLUMNS * (single ? 4 : 8), single, binary, here, m->threshold, &bad);
            count[b] += __builtin_popcountll(bits[b][s]);
        }
    }
    uint32_t few = 0;
    if (any_lane(bad)) return few;
    for (ptrdiff_t b = 0; b * NB_COLUMNS < d; b++) {
        const ptrdiff_t here = VMIN(NB_COLUMNS, d - b * NB_COLUMNS);
        few |= (uint32_t)(count[b] * VMAX(5, P / 6) <= rows * here * C / 8) << b;
    }
    return few;
}

static __attribute__((noinline)) uint32_t nb_survey(const nb_term *m, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from,
                                                    ptrdiff_t C, ptrdiff_t P, uint64_t bits[NB_BLOCKS][TILE]) {
    switch (2 * (m->type == NB_F32) + (m->kind == NB_BINARY)) {
    case 0: return nb_survey_type(m, 0, 0, row, rows, from, C, P, bits);
    case 1: return nb_survey_type(m, 0, 1, row, rows, from, C, P, bits);
    case 2: return nb_survey_type(m, 1, 0, row, rows, from, C, P, bits);
    default: return nb_survey_type(m, 1, 1, row, rows, from, C, P, bits);
    }
}

/* sums (TILE, P) <- the products of the cells whose bits are set. */
static ALWAYS_INLINE void nb_few_width(const nb_term *m, const int single, const int binary, const uint64_t *bits,
                                       ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from, ptrdiff_t P, ptrdiff_t c,
                                       const int width, double *sums) {
    const double *a = m->by_column + from * P + c;
    for (ptrdiff_t s = 0; s < rows; s++) {
        const char *x = m->x + (row + s) * m->row_stride + m->offsets[from];
        vd acc[4];
        EACH(v, width) acc[v] = vset(0.0);
        ptrdiff_t ahead = TILE * m->row_stride;
        if (!binary) /* from the L2 cache, before it is wanted */
            for (ptrdiff_t k = 0; k < NB_COLUMNS; k += single ? 16 : 8)
                __builtin_prefetch(x + 2 * m->row_stride + k * (single ? 4 : 8), 0, 3);
        for (uint64_t left = bits[s]; left; left &= left - 1) {
            const ptrdiff_t j = __builtin_ctzll(left);
            __builtin_prefetch(x + ahead, 0, 2); /* of the next tile, a line at each step: a burst would stall */
            ahead += 64;
            const vd value = vset(binary ? 1.0 : element(x, j, single));
            EACH(v, width) acc[v] = vfma(value, vload(a + j * P + v * VL), acc[v]);
        }
        EACH(v, width) vstore(sums + s * P + c + v * VL, acc[v]);
    }
}

/* joint += the products of a block of columns. x, sums: work space. */
static __attribute__((noinline)) void nb_few(const nb_term *m, const uint64_t *bits, ptrdiff_t row, ptrdiff_t rows,
                                             ptrdiff_t from, ptrdiff_t C, ptrdiff_t P, double *x, double *sums,
                                             double *joint) {
#define WIDTH(width) nb_few_width(m, SINGLE, BITS, bits, row, rows, from, P, c, width, sums)
#define CALL(single, binary)                                                                                           \
    do {                                                                                                               \
        enum { SINGLE = single, BITS = binary };                                                                       \
        NB_BY_WIDTH(P, WIDTH)                                                                                          \
    } while (0)
    switch (2 * (m->type == NB_F32) + (m->kind == NB_BINARY)) {
    case 0: CALL(0, 0); break;
    case 2: CALL(1, 0); break;
    default: CALL(0, 1); break;
    }
#undef CALL
#undef WIDTH
    nb_add_transposed(sums, C, P, x, joint);
}
#endif

/* many: tiles so far that were not looked through for zeros, or in vain; it is tried again now and then. */
static __attribute__((noinline)) void nb_dense(const nb_term *m, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t C,
                                               ptrdiff_t P, int missing, double *x, double *sums, double *joint,
                                               ptrdiff_t *many) {
#if VL == 8
    const int look = m->by_column && m->contiguous && m->type <= NB_F32 && !missing && *many % 16 == 0;
    uint64_t bits[NB_BLOCKS][TILE];
    uint32_t few = 0;
    *many += m->by_column != 0;
#endif
    for (ptrdiff_t from = 0; from < m->columns; from += NB_COLUMNS) {
        const ptrdiff_t d = VMIN(NB_COLUMNS, m->columns - from);
#if VL == 8
        const ptrdiff_t block = from / NB_COLUMNS % NB_BLOCKS;
        if (look && block == 0) few = nb_survey(m, row, rows, from, C, P, bits);
        if (few >> block & 1) {
            nb_few(m, bits[block], row, rows, from, C, P, x, sums, joint);
            *many = 0;
            continue;
        }
#endif
        nb_load(m, row, rows, from, d, x);
        const int over = from + d == m->columns;               /* the next tile is of other rows */
        const ptrdiff_t most = m->kind == NB_GAUSSIAN ? 2 : 4; /* classes at a time */
        nb_next next = nb_next_tile(m, over ? row + TILE : row, over ? 0 : from + d, (C + most - 1) / most * d);
        if (m->kind == NB_BINARY && !missing) /* a comparison would hide NaN */
            for (ptrdiff_t s = 0; s < TILE; s += VL) {
                vd nan = vset(0.0);
                for (ptrdiff_t j = 0; j < d; j++) nan = vfma(vload(x + j * TILE + s), vset(0.0), nan);
                for (ptrdiff_t c = 0; c < C; c++) vstore(joint + c * TILE + s, vload(joint + c * TILE + s) + nan);
            }
        if (m->kind == NB_BINARY && m->binary) { /* a product costs less than a choice */
            for (ptrdiff_t i = 0; i < d * TILE; i += VL) {
                const vd value = vload(x + i), bit = vselect((vi)(value > vset(m->threshold)), vset(1.0), vset(0.0));
                vstore(x + i, missing ? vselect((vi)(value == value), bit, value) : bit);
            }
            if (missing)
                nb_columns(NB_LINEAR, 1, x, d, m, from, C, &next, joint);
            else
                nb_columns(NB_LINEAR, 0, x, d, m, from, C, &next, joint);
            continue;
        }
        switch (m->kind * 2 + missing) {
        case 2 * NB_GAUSSIAN: nb_columns(NB_GAUSSIAN, 0, x, d, m, from, C, &next, joint); break;
        case 2 * NB_GAUSSIAN + 1: nb_columns(NB_GAUSSIAN, 1, x, d, m, from, C, &next, joint); break;
        case 2 * NB_BINARY:
        case 2 * NB_BINARY + 1: nb_columns(NB_BINARY, 1, x, d, m, from, C, &next, joint); break;
        case 2 * NB_LINEAR + 1: nb_columns(NB_LINEAR, 1, x, d, m, from, C, &next, joint); break;
        default: nb_columns(NB_LINEAR, 0, x, d, m, from, C, &next, joint); break;
        }
    }
}

/* Which row of a table a cell means: `size` what is not among the categories, size + 1 what is missing. */
static ALWAYS_INLINE ptrdiff_t nb_code(const char *cell, const int type, ptrdiff_t size) {
    if (type <= NB_F32) {
        const double value = nb_value(cell, type);
        return !(value > -1.0) ? size + 1 : value >= (double)size ? size : (ptrdiff_t)value;
    }
    if (type == NB_U64) return *(const uint64_t *)cell < (uint64_t)size ? *(const ptrdiff_t *)cell : size;
    const int64_t value = type == NB_I8    ? *(const int8_t *)cell
                          : type == NB_I16 ? *(const int16_t *)cell
                          : type == NB_I32 ? *(const int32_t *)cell
                          : type == NB_I64 ? *(const int64_t *)cell
                          : type == NB_U8  ? *(const uint8_t *)cell
                          : type == NB_U16 ? *(const uint16_t *)cell
                                           : *(const uint32_t *)cell;
    return (uint64_t)value < (uint64_t)size ? value : value < 0 ? size + 1 : size;
}

/* places[j] <- the row of `a` that column from + j of a row means. Returns what it has met. */
static ALWAYS_INLINE int nb_places_type(const nb_term *m, const int type, const char *x, ptrdiff_t from, ptrdiff_t d,
                                        ptrdiff_t *places) {
    int missing = 0, unseen = 0;
    for (ptrdiff_t j = 0; j < d; j++) {
        const ptrdiff_t size = m->sizes[from + j], code = nb_code(x + m->offsets[from + j], type, size);
        places[j] = m->first[from + j] + code;
        missing |= code > size;
        unseen |= code == size;
    }
    return (missing ? NB_NEGATIVE : 0) | (unseen ? NB_UNSEEN : 0);
}

/* sums (P,) += these rows of the tables. */
static ALWAYS_INLINE void nb_table_width(const nb_term *m, const ptrdiff_t *places, ptrdiff_t d, ptrdiff_t P,
                                         ptrdiff_t c, const int width, double *sums) {
    vd acc[4 * 8 / VL];
    EACH(v, width * 8 / VL) acc[v] = vload(sums + c + v * VL);
    for (ptrdiff_t j = 0; j < d; j++)
        EACH(v, width * 8 / VL) acc[v] += vload(m->a + places[j] * P + c + v * VL);
    EACH(v, width * 8 / VL) vstore(sums + c + v * VL, acc[v]);
}

/* sums (rows, P) <- the rows of the tables; a: for each column sizes + 2 rows of P. */
static __attribute__((noinline)) int nb_table(const nb_term *m, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t P,
                                              double *sums) {
    int met = 0;
    memset(sums, 0, (size_t)(rows * P) * sizeof(double));
    for (ptrdiff_t s = 0; s < rows; s++)
        for (ptrdiff_t from = 0; from < m->columns; from += NB_COLUMNS) {
            const char *x = m->x + (row + s) * m->row_stride;
            const ptrdiff_t d = VMIN(NB_COLUMNS, m->columns - from);
            ptrdiff_t places[NB_COLUMNS];
#define CALL(type) met |= nb_places_type(m, type, x, from, d, places)
            NB_BY_TYPE(m->type, CALL)
#undef CALL
#define CALL(width) nb_table_width(m, places, d, P, c, width, sums + s * P)
            NB_BY_WIDTH(P, CALL)
#undef CALL
        }
    return met;
}

#if VL == 8
/* codes (d, TILE) <- columns from..from + d - 1. Returns whether any is not a category. */
static ALWAYS_INLINE int nb_codes_type(const nb_term *m, const int type, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from,
                                       ptrdiff_t d, vi *codes) {
    const char *x = m->x + row * m->row_stride;
    int64_t *out = (int64_t *)codes;
    vi other = (vi)vset(0.0);
    if (type == NB_I64 && m->contiguous && rows == TILE && m->row_stride % 8 == 0) {
        load_tile(x + m->offsets[from], 0, rows, d, m->row_stride / 8, 1, (double *)codes);
        for (ptrdiff_t j = 0; j < d; j++)
            EACH(v, 4) other |= (vi)((vu)codes[j * 4 + v] >= (vu)((vi)vset(0.0) + m->sizes[from + j]));
    } else {
        for (ptrdiff_t s = 0; s < TILE; s++)
            for (ptrdiff_t j = 0; j < d; j++) {
                const ptrdiff_t size = m->sizes[from + j];
                const ptrdiff_t code = s < rows ? nb_code(x + s * m->row_stride + m->offsets[from + j], type, size) : 0;
                if (code >= size) return 1;
                out[j * TILE + s] = code;
            }
    }
    return any_lane((vd)(other & (vi)vset(1.0)));
}

static ALWAYS_INLINE vd nb_pick(const int lanes, const double *table, vi code) {
    if (lanes == 8) return (vd)_mm512_permutexvar_pd((__m512i)code, (__m512d)vload(table));
    return (vd)_mm512_permutex2var_pd((__m512d)vload(table), (__m512i)code, (__m512d)vload(table + 8));
}

/* sums (H, TILE) += the categories' numbers; table: (d, C, lanes). */
static ALWAYS_INLINE void nb_pick_block(const int lanes, const int H, const vi *codes, ptrdiff_t d, ptrdiff_t C,
                                        const double *table, nb_next *next, double *sums) {
    vd acc[4][4];
    EACH(h, H)
        EACH(v, 4) acc[h][v] = vload(sums + h * TILE + v * VL);
    for (ptrdiff_t j = 0; j < d; j++) {
        vi code[4];
        nb_fetch(next);
        EACH(v, 4) code[v] = codes[j * 4 + v];
        EACH(h, H)
            EACH(v, 4) acc[h][v] += nb_pick(lanes, table + (j * C + h) * lanes, code[v]);
    }
    EACH(h, H)
        EACH(v, 4) vstore(sums + h * TILE + v * VL, acc[h][v]);
}

/* Whether all cells are categories, and the joint is done. x, sums: work space. The bits are those of nb_table. */
static __attribute__((noinline)) int nb_pick_table(const nb_term *m, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t C,
                                                   double *x, double *sums, double *joint) {
    memset(sums, 0, (size_t)(C * TILE) * sizeof(double));
    for (ptrdiff_t from = 0; from < m->columns; from += NB_COLUMNS) {
        const ptrdiff_t d = VMIN(NB_COLUMNS, m->columns - from);
        const int over = from + d == m->columns;
        nb_next next = nb_next_tile(m, over ? row + TILE : row, over ? 0 : from + d, (C + 3) / 4 * d);
        int other;
#define CALL(type) other = nb_codes_type(m, type, row, rows, from, d, (vi *)x)
        NB_BY_TYPE(m->type, CALL)
#undef CALL
        if (other) return 0;
        const double *table = m->by_column + from * C * m->lanes;
        ptrdiff_t c = 0;
#define CALL(H)                                                                                                        \
    if (m->lanes == 8)                                                                                                 \
        nb_pick_block(8, H, (vi *)x, d, C, table + c * 8, &next, sums + c * TILE);                                     \
    else                                                                                                               \
        nb_pick_block(16, H, (vi *)x, d, C, table + c * 16, &next, sums + c * TILE)
        for (; c + 4 <= C; c += 4) CALL(4);
        switch (C - c) {
        case 3: CALL(3); break;
        case 2: CALL(2); break;
        case 1: CALL(1); break;
        }
#undef CALL
    }
    for (ptrdiff_t i = 0; i < C * TILE; i += VL) vstore(joint + i, vload(joint + i) + vload(sums + i));
    return 1;
}
#endif

static ALWAYS_INLINE ptrdiff_t nb_index(const void *array, const int wide, ptrdiff_t i) {
    return wide ? (ptrdiff_t)((const int64_t *)array)[i] : (ptrdiff_t)((const int32_t *)array)[i];
}

/* The first n <= VL of the numbers at p, then zeros: nothing is read beyond. */
static ALWAYS_INLINE vd nb_first(const double *p, ptrdiff_t n) {
#if VL == 8
    return (vd)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#elif VL == 4
    return (vd)_mm256_maskload_pd(p, (__m256i)((vi){0, 1, 2, 3} < ((vi)vset(0.0) + n)));
#else
    vd x = vset(0.0);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = p[i];
    return x;
#endif
}

/* sums (rows, P) <- x a, of sparse rows; a: (columns, C). `width` times 8 classes from c on. */
static ALWAYS_INLINE int nb_sparse_width(const nb_term *m, const int single, const int wide, const int binary,
                                         ptrdiff_t row, ptrdiff_t rows, ptrdiff_t C, ptrdiff_t P, ptrdiff_t c,
                                         const int width, double *sums) {
    const ptrdiff_t last = VMIN(8, C - c - 8 * (width - 1)); /* classes among the last 8 */
    int broken = 0;
    for (ptrdiff_t s = 0; s < rows; s++) {
        const ptrdiff_t first = nb_index(m->indptr, m->wide_indptr, row + s);
        const ptrdiff_t stop = nb_index(m->indptr, m->wide_indptr, row + s + 1);
        vd acc[4 * 8 / VL];
        EACH(v, width * 8 / VL) acc[v] = vset(0.0);
        for (ptrdiff_t k = first; k < stop; k++) {
            const double value = element(m->x, k, single);
            const ptrdiff_t ahead = VMIN(k + 12, stop - 1);
            const double *next = m->a + nb_index(m->indices, wide, ahead) * C + c;
            EACH(v, width) __builtin_prefetch(next + v * 8, 0, 3);
            if (C % 8) __builtin_prefetch(next + (width - 1) * 8 + last - 1, 0, 3); /* rows may begin within a line */
            const ptrdiff_t j = nb_index(m->indices, wide, k);
            if ((size_t)j >= (size_t)m->columns) {
                broken = NB_BROKEN;
                break;
            }
            const double *w = m->a + j * C + c;
            /* NaN and infinity are to be seen in the sums */
            const vd factor = vset(binary ? (value > m->threshold ? 1.0 : 0.0) + value * 0.0 : value);
            EACH(v, (width - 1) * 8 / VL) acc[v] = vfma(factor, vload(w + v * VL), acc[v]);
            EACH(v, 8 / VL) {
                const int at = (width - 1) * 8 / VL + v;
                acc[at] = vfma(factor, nb_first(w + at * VL, VMAX(0, VMIN(VL, last - v * VL))), acc[at]);
            }
        }
        double *target = sums + s * P + c;
        EACH(v, width * 8 / VL) vstore(target + v * VL, acc[v]);
    }
    return broken;
}

/* Returns what it has met. */
static __attribute__((noinline)) int nb_sparse(const nb_term *m, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t C,
                                               ptrdiff_t P, double *sums) {
    const int single = m->type == NB_F32;
    int met = 0;
#define CALL(width)                                                                                                    \
    switch (4 * single + 2 * (m->wide_indices != 0) + (m->binary != 0)) {                                              \
    case 0: met |= nb_sparse_width(m, 0, 0, 0, row, rows, C, P, c, width, sums); break;                                \
    case 1: met |= nb_sparse_width(m, 0, 0, 1, row, rows, C, P, c, width, sums); break;                                \
    case 2: met |= nb_sparse_width(m, 0, 1, 0, row, rows, C, P, c, width, sums); break;                                \
    case 3: met |= nb_sparse_width(m, 0, 1, 1, row, rows, C, P, c, width, sums); break;                                \
    case 4: met |= nb_sparse_width(m, 1, 0, 0, row, rows, C, P, c, width, sums); break;                                \
    case 5: met |= nb_sparse_width(m, 1, 0, 1, row, rows, C, P, c, width, sums); break;                                \
    case 6: met |= nb_sparse_width(m, 1, 1, 0, row, rows, C, P, c, width, sums); break;                                \
    default: met |= nb_sparse_width(m, 1, 1, 1, row, rows, C, P, c, width, sums); break;                               \
    }
    NB_BY_WIDTH(P, CALL)
#undef CALL
    return met;
}

/* Doubles of work space of nb_score. */
static inline ptrdiff_t nb_work_size(ptrdiff_t C) { return NB_COLUMNS * TILE + 2 * TILE * ((C + 7) & -8) + 8; }

/* The best class of VL samples. */
static ALWAYS_INLINE vd nb_best(const double *joint, ptrdiff_t C, vd *arg) {
    vd best = vload(joint);
    *arg = vset(0.0);
    for (ptrdiff_t c = 1; c < C; c++) {
        const vd value = vload(joint + c * TILE);
        const vi better = (vi)(value > best);
        *arg = vselect(better, vset((double)c), *arg);
        best = vmax(value, best);
    }
    return best;
}

/* Screening: most rows belong to one class beyond the errors of single precision, which costs half as much ----------
 */

#define NB_SINGLES (TILE / (2 * VL))

/* sums (H, TILE) <- those of classes from c on; begun with k, or with what they hold. */
static ALWAYS_INLINE void nb_screen_block(const int H, const int begin, const float *x, ptrdiff_t d, const nb_screen *m,
                                          ptrdiff_t c, ptrdiff_t j0, ptrdiff_t stride, nb_next *next, float *sums) {
    const int width = VL == 2 ? 2 : NB_SINGLES; /* vectors at a time: registers */
    const float *q = m->q + c * stride + j0, *p = m->p + c * stride + j0;
    for (int from = 0; from < NB_SINGLES; from += width) {
        vs acc[5][4];
        EACH(h, H)
            EACH(v, width) acc[h][v] = begin ? sset(m->k[c + h]) : *(const vs *)(sums + h * TILE + (from + v) * 2 * VL);
        for (ptrdiff_t j = 0; j < d; j++) {
            vs value[4];
            if (from == 0) nb_fetch(next);
            EACH(v, width) value[v] = *(const vs *)(x + j * TILE + (from + v) * 2 * VL);
            EACH(h, H) {
                const vs scale = sset(q[h * stride + j]), shift = sset(p[h * stride + j]);
                EACH(v, width) {
                    const vs z = sfma(value[v], scale, shift);
                    acc[h][v] = sfma(z, z, acc[h][v]);
                }
            }
        }
        EACH(h, H)
            EACH(v, width) *(vs *)(sums + h * TILE + (from + v) * 2 * VL) = acc[h][v];
    }
}

#if VL >= 4
/* For 16 or 8 lanes: the same within each half of 8. */
#if VL == 8
#define NB_EIGHTS(a, b, i0, i1, i2, i3, i4, i5, i6, i7)                                                                \
    __builtin_shufflevector(a, b, i0 + i0 / 8 * 8, i1 + i1 / 8 * 8, i2 + i2 / 8 * 8, i3 + i3 / 8 * 8, i4 + i4 / 8 * 8, \
                            i5 + i5 / 8 * 8, i6 + i6 / 8 * 8, i7 + i7 / 8 * 8, i0 + i0 / 8 * 8 + 8,                    \
                            i1 + i1 / 8 * 8 + 8, i2 + i2 / 8 * 8 + 8, i3 + i3 / 8 * 8 + 8, i4 + i4 / 8 * 8 + 8,        \
                            i5 + i5 / 8 * 8 + 8, i6 + i6 / 8 * 8 + 8, i7 + i7 / 8 * 8 + 8)
#else
#define NB_EIGHTS __builtin_shufflevector
#endif

/* r[q] <- r[lane][q]: transposes of 8 x 8. */
static ALWAYS_INLINE void nb_transpose(vs r[8]) {
    vs t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = NB_EIGHTS(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = NB_EIGHTS(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            u[i + 2 * k] = NB_EIGHTS(t[i + k], t[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            u[i + 2 * k + 1] = NB_EIGHTS(t[i + k], t[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = NB_EIGHTS(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = NB_EIGHTS(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* x - centre of columns j..j + 7 of two rows (AVX-512) or of one. */
static ALWAYS_INLINE vs nb_eight(const double *x, ptrdiff_t other, const vd *centre) {
    const double *second = VL == 8 ? x + other : x + VL;
    const vs_half a = __builtin_convertvector(vload(x) - centre[0], vs_half);
    const vs_half b = __builtin_convertvector(vload(second) - centre[8 / VL - 1], vs_half);
#if VL == 8
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
#endif
}
#endif

/* z[j * TILE + s] <- x - centre in single precision. x: (NB_COLUMNS, TILE) of work space that z may share. */
static ALWAYS_INLINE void nb_load_single(const nb_term *m, const double *centre, ptrdiff_t row, ptrdiff_t from,
                                         ptrdiff_t d, double *x, float *z) {
#if VL >= 4
    if (m->type == NB_F64 && m->contiguous && d >= 8 && m->row_stride % 8 == 0) {
        const ptrdiff_t stride = m->row_stride / 8;
        const double *first = (const double *)(m->x + row * m->row_stride + m->offsets[from]);
        for (ptrdiff_t j = 0; j < d; j += 8) {
            if (j + 8 > d) j = d - 8; /* the last eight overlap those before */
            vd of[8 / VL];
            EACH(v, 8 / VL) of[v] = in_register(vload(centre + from + j + v * VL));
            for (ptrdiff_t s = 0; s < TILE; s += 2 * VL) {
                vs r[8];
                EACH(i, 8) r[i] = nb_eight(first + (s + i) * stride + j, 8 * stride, of);
                nb_transpose(r);
                EACH(q, 8) *(vs *)(z + (j + q) * TILE + s) = r[q];
            }
        }
        return;
    }
#endif
    nb_load(m, row, TILE, from, d, x);
    for (ptrdiff_t j = 0; j < d; j++)
        EACH(v, NB_VECTORS)
            *(vs_half *)(z + j * TILE + v * VL) =
                __builtin_convertvector(vload(x + j * TILE + v * VL) - vset(centre[from + j]), vs_half);
}

/* The classes of TILE rows, if single precision can tell them all. x: (NB_COLUMNS, TILE) of work space, sums: (C, TILE)
 * floats. */
static __attribute__((noinline)) int nb_screened(const nb_term *m, const nb_screen *screen, ptrdiff_t row, ptrdiff_t C,
                                                 double *x, float *sums, ptrdiff_t *labels) {
    const int most = VL == 4 ? 2 : VL == 8 ? 5 : 4; /* classes at a time */
    float *z = (float *)x;                          /* in place: it takes half the room */
    for (ptrdiff_t from = 0; from < m->columns; from += NB_COLUMNS) {
        const ptrdiff_t d = VMIN(NB_COLUMNS, m->columns - from);
        const int over = from + d == m->columns;
        nb_next next = nb_next_tile(m, over ? row + TILE : row, over ? 0 : from + d, (C + most - 1) / most * d);
        nb_load_single(m, screen->centre, row, from, d, x, z);
        ptrdiff_t c = 0;
#define CALL(H)                                                                                                        \
    if (from == 0)                                                                                                     \
        nb_screen_block(H, 1, z, d, screen, c, from, m->columns, &next, sums + c * TILE);                              \
    else                                                                                                               \
        nb_screen_block(H, 0, z, d, screen, c, from, m->columns, &next, sums + c * TILE)
        for (; c + most <= C; c += most) CALL(most);
        switch (C - c) {
        case 4: CALL(4); break;
        case 3: CALL(3); break;
        case 2: CALL(2); break;
        case 1: CALL(1); break;
        }
#undef CALL
    }
    const vsi none = (vsi)sset(0.0f);
    vsi known = ~none;
    for (int v = 0; v < NB_SINGLES; v++) {
        const float *at = sums + v * 2 * VL;
        vs best = *(const vs *)at, second = sset(INFINITY);
        vsi arg = none;
        for (ptrdiff_t c = 1; c < C; c++) {
            const vs value = *(const vs *)(at + c * TILE);
            const vsi better = (vsi)(value < best);
            arg = (better & (none + (int32_t)c)) | (~better & arg);
            second = smin(smax(value, best), second);
            best = smin(value, best);
        }
        known &= (vsi)(sfma(best, sset(screen->slope), sset(screen->intercept)) < second);
        int32_t number[2 * VL];
        memcpy(number, &arg, sizeof arg);
        for (int i = 0; i < 2 * VL; i++) labels[v * 2 * VL + i] = number[i];
    }
    vi both;
    memcpy(&both, &known, sizeof both);
    for (int i = 0; i < VL; i++)
        if (both[i] != -1) return 0;
    return 1;
}

/* Rows first..stop-1. out: (stop - first, C) for JOINT, PROBA, LOG_PROBA, (stop - first,) for LOG_PROB; labels for
 * PREDICT, `fallback` where no class is possible. missing: leave NaN out. Returns what it has met; NOT_FINITE: a best
 * joint. */
static int nb_score(const nb_model *model, int what, ptrdiff_t first, ptrdiff_t stop, int missing, ptrdiff_t fallback,
                    double *out, ptrdiff_t *labels, double *memory) {
    const ptrdiff_t C = model->C, P = model->P;
    double *x = aligned(memory), *joint = x + NB_COLUMNS * TILE, *sums = joint + P * TILE;
    vd bad = vset(0.0);
    ptrdiff_t many = 0, wait = 0, pause = 1;
    int met = 0;
    for (ptrdiff_t row = first; row < stop; row += TILE) {
        const ptrdiff_t rows = VMIN(TILE, stop - row);
        if (what == NB_PREDICT && model->screen && rows == TILE && !missing && wait-- <= 0) {
            if (nb_screened(model->term, model->screen, row, C, x, (float *)joint, labels + (row - first))) {
                pause = 1;
                continue;
            }
            wait = pause - 1; /* where it often fails, it is tried seldom */
            pause = VMIN(2 * pause, 64);
        }
        for (ptrdiff_t c = 0; c < C; c++)
            for (ptrdiff_t s = 0; s < TILE; s += VL) vstore(joint + c * TILE + s, vset(model->log_prior[c]));
        for (ptrdiff_t i = 0; i < model->terms; i++) {
            const nb_term *m = model->term + i;
            if (m->kind < NB_TABLE) {
                nb_dense(m, row, rows, C, P, missing, x, sums, joint, &many);
                continue;
            }
#if VL == 8
            if (m->kind == NB_TABLE && m->by_column && nb_pick_table(m, row, rows, C, x, sums, joint)) continue;
#endif
            if (m->kind == NB_TABLE)
                met |= nb_table(m, row, rows, P, sums);
            else
                met |= nb_sparse(m, row, rows, C, P, sums);
            nb_add_transposed(sums, C, P, x, joint);
        }
        if (model->infinite)
            for (ptrdiff_t i = 0; i < C * TILE; i += VL) {
                const vd value = vload(joint + i);
                const vd low = vselect((vi)(value < vset(-NB_INFINITE)), vset(-INFINITY), value);
                vstore(joint + i, vselect((vi)(value > vset(NB_INFINITE)), vset(INFINITY), low));
            }
        for (ptrdiff_t s = 0; s < TILE; s += VL) {
            double *js = joint + s;
            vd arg, top = nb_best(js, C, &arg);
            if (s < rows) {
                vd checked = top;
                for (ptrdiff_t q = VMIN(VL, rows - s); q < VL; q++) checked[q] = 0.0;
                bad = vfma(checked, vset(0.0), bad);
            }
            if (what == NB_PREDICT) {
                for (ptrdiff_t q = 0; q < VMIN(VL, rows - s); q++)
                    labels[row - first + s + q] = top[q] > -INFINITY ? (ptrdiff_t)arg[q] : fallback;
            } else if (what != NB_JOINT) {
                const vd total = lse_lanes(js, C, TILE, 0, what == NB_PROBA);
                if (what == NB_LOG_PROBA)
                    for (ptrdiff_t c = 0; c < C; c++) vstore(js + c * TILE, vload(js + c * TILE) - total);
                if (what == NB_LOG_PROB)
                    for (ptrdiff_t q = 0; q < VMIN(VL, rows - s); q++) out[row - first + s + q] = total[q];
            }
        }
        if (what != NB_PREDICT && what != NB_LOG_PROB) store_tile(joint, rows, C, out + (row - first) * C, 0, C, 1);
    }
    return met | (any_lane(bad) ? NB_NOT_FINITE : 0);
}

/* Sums of classes -------------------------------------------------------------------------------------------------- */

/* Columns j.. of a row whose columns follow each other: VL, or one (the rest is 0). */
static ALWAYS_INLINE vd nb_some(const char *x, const int type, ptrdiff_t j, const int whole) {
    if (!whole) {
        vd one = vset(0.0);
        one[0] = element(x, j, type == NB_F32);
        return one;
    }
    if (type == NB_F64) return vload((const double *)x + j);
    typedef float vf_any __attribute__((vector_size(VL * 4), aligned(4), may_alias));
    return __builtin_convertvector(*(const vf_any *)((const float *)x + j), vd);
}

/* What is summed up: the values, whether they are above a threshold, whether they are there. */
enum { NB_VALUES, NB_ABOVE, NB_OBSERVED };

/* target (d,) += w x of G rows, one after the other. */
static ALWAYS_INLINE void nb_add_rows(const int type, const int which, const int G, const char *const *x,
                                      const double *w, ptrdiff_t d, double threshold, double *target, vd *bad,
                                      vd *least) {
    for (ptrdiff_t j = 0; j < d;) {
        const int whole = j + VL <= d;
        vd sum = vset(0.0);
        if (whole)
            sum = vload(target + j);
        else
            sum[0] = target[j];
        EACH(g, G) {
            const vd value = nb_some(x[g], type, j, whole), factor = vset(w[g]);
            *bad = vfma(value, vset(0.0), *bad);
            *least = vmin(value, *least);
            if (which == NB_VALUES)
                sum += factor * value;
            else
                sum += vselect(which == NB_OBSERVED ? (vi)(value == value) : (vi)(value > vset(threshold)), factor,
                               vset(0.0));
        }
        if (whole)
            vstore(target + j, sum);
        else
            target[j] = sum[0];
        j += whole ? VL : 1;
    }
}

#define NB_AHEAD 16 /* rows: what hardware does not fetch in time by itself */
#define NB_GROUP 4  /* rows of a class that are added to its sums at a time, which then move between caches less */

/* sums (C, d) += w x of the rows of each class; total (C,) += w. codes: of the classes, absolute row numbers.
 * waiting: (C, NB_GROUP + 1) numbers, all 0, for groups of rows; or none. Returns what it has met. */
static ALWAYS_INLINE int nb_sums_type(const nb_term *m, const int type, const int which, const ptrdiff_t *codes,
                                      const double *weights, ptrdiff_t first, ptrdiff_t stop, ptrdiff_t C,
                                      ptrdiff_t *waiting, double *total, double *sums) {
    const ptrdiff_t d = m->columns;
    vd bad = vset(0.0), least = vset(0.0);
    int met = 0;
    if (m->contiguous && type <= NB_F32) {
        const ptrdiff_t most = waiting ? NB_GROUP : 1;
        for (ptrdiff_t i = first; i < stop + (waiting ? C : 0); i++) {
            const ptrdiff_t c = i < stop ? codes[i] : i - stop; /* at last what still waits */
            ptrdiff_t alone[2] = {0}, *queue = waiting ? waiting + c * (NB_GROUP + 1) : alone;
            if (i < stop) {
                queue[1 + queue[0]++] = i;
                total[c] += weights ? weights[i] : 1.0;
                if (queue[0] < most) continue;
            }
            const char *x[NB_GROUP];
            double w[NB_GROUP];
            for (ptrdiff_t g = 0; g < queue[0]; g++) {
                x[g] = m->x + queue[1 + g] * m->row_stride + m->offsets[0];
                w[g] = weights ? weights[queue[1 + g]] : 1.0;
            }
            if (queue[0] == NB_GROUP)
                nb_add_rows(type, which, NB_GROUP, x, w, d, m->threshold, sums + c * d, &bad, &least);
            else
                for (ptrdiff_t g = 0; g < queue[0]; g++)
                    nb_add_rows(type, which, 1, x + g, w + g, d, m->threshold, sums + c * d, &bad, &least);
            queue[0] = 0;
        }
    } else {
        double low = 0.0, wrong = 0.0;
        for (ptrdiff_t i = first; i < stop; i++) {
            const char *x = m->x + i * m->row_stride;
            const double w = weights ? weights[i] : 1.0;
            double *target = sums + codes[i] * d;
            total[codes[i]] += w;
            for (ptrdiff_t j = 0; j < d; j++) {
                const double value = nb_value(x + m->offsets[j], type);
                if (type <= NB_F32) wrong += value * 0.0;
                low = value < low ? value : low;
                target[j] += which == NB_VALUES     ? w * value
                             : which == NB_OBSERVED ? (value == value ? w : 0.0)
                                                    : (value > m->threshold ? w : 0.0);
            }
        }
        bad[0] = wrong;
        least[0] = low;
    }
    for (int q = 0; q < VL; q++) met |= (least[q] < 0.0 ? NB_NEGATIVE : 0);
    return met | (any_lane(bad) ? NB_NOT_FINITE : 0);
}

static int nb_sums(const nb_term *m, int which, const ptrdiff_t *codes, const double *weights, ptrdiff_t first,
                   ptrdiff_t stop, ptrdiff_t C, ptrdiff_t *waiting, double *total, double *sums) {
#define CALL(type, which) return nb_sums_type(m, type, which, codes, weights, first, stop, C, waiting, total, sums)
#define INTEGERS(type) CALL(type, which)
    switch (m->type * 3 + which) {
    case 3 * NB_F64 + NB_VALUES: CALL(NB_F64, NB_VALUES);
    case 3 * NB_F64 + NB_ABOVE: CALL(NB_F64, NB_ABOVE);
    case 3 * NB_F64 + NB_OBSERVED: CALL(NB_F64, NB_OBSERVED);
    case 3 * NB_F32 + NB_VALUES: CALL(NB_F32, NB_VALUES);
    case 3 * NB_F32 + NB_ABOVE: CALL(NB_F32, NB_ABOVE);
    case 3 * NB_F32 + NB_OBSERVED: CALL(NB_F32, NB_OBSERVED);
    }
    switch (m->type) {
    case NB_I8: INTEGERS(NB_I8);
    case NB_I16: INTEGERS(NB_I16);
    case NB_I32: INTEGERS(NB_I32);
    case NB_I64: INTEGERS(NB_I64);
    case NB_U8: INTEGERS(NB_U8);
    case NB_U16: INTEGERS(NB_U16);
    case NB_U32: INTEGERS(NB_U32);
    default: INTEGERS(NB_U64);
    }
#undef INTEGERS
#undef CALL
}

/* The same of sparse rows, which are given: the rows of one class after the other stay in the cache. `lowest` is the
 * class that total and sums begin with. */
static ALWAYS_INLINE int nb_sparse_sums_type(const nb_term *m, const int single, const int wide, const int binary,
                                             const ptrdiff_t *rows, const ptrdiff_t *codes, const double *weights,
                                             ptrdiff_t first, ptrdiff_t stop, ptrdiff_t lowest, double *total,
                                             double *sums) {
    const ptrdiff_t d = m->columns;
    double bad = 0.0, least = 0.0;
    int broken = 0;
    for (ptrdiff_t r = first; r < stop; r++) {
        const ptrdiff_t i = rows[r], c = codes[i] - lowest;
        const double w = weights ? weights[i] : 1.0;
        double *target = sums + c * d;
        total[c] += w;
        const ptrdiff_t from = nb_index(m->indptr, m->wide_indptr, i), end = nb_index(m->indptr, m->wide_indptr, i + 1);
        if (r + 1 < stop) { /* rows of a class lie apart */
            const ptrdiff_t next = nb_index(m->indptr, m->wide_indptr, rows[r + 1]);
            const ptrdiff_t next_end = nb_index(m->indptr, m->wide_indptr, rows[r + 1] + 1);
            for (ptrdiff_t k = next; k < next_end; k += 8) {
                __builtin_prefetch(m->x + k * (single ? 4 : 8), 0, 3);
                __builtin_prefetch((const char *)m->indices + k * (wide ? 8 : 4), 0, 3);
            }
        }
        for (ptrdiff_t k = from; k < end; k++) {
            const double value = element(m->x, k, single);
            bad += value * 0.0;
            least = value < least ? value : least;
            const ptrdiff_t j = nb_index(m->indices, wide, k);
            if ((size_t)j >= (size_t)d) {
                broken = NB_BROKEN;
                break;
            }
            target[j] += binary ? (value > m->threshold ? w : 0.0) : w * value;
        }
    }
    return broken | (bad == 0.0 ? 0 : NB_NOT_FINITE) | (least < 0.0 ? NB_NEGATIVE : 0);
}

static int nb_sparse_sums(const nb_term *m, int binary, const ptrdiff_t *rows, const ptrdiff_t *codes,
                          const double *weights, ptrdiff_t first, ptrdiff_t stop, ptrdiff_t lowest, double *total,
                          double *sums) {
#define CALL(single, wide, binary)                                                                                     \
    return nb_sparse_sums_type(m, single, wide, binary, rows, codes, weights, first, stop, lowest, total, sums)
    switch (4 * (m->type == NB_F32) + 2 * (m->wide_indices != 0) + (binary != 0)) {
    case 0: CALL(0, 0, 0);
    case 1: CALL(0, 0, 1);
    case 2: CALL(0, 1, 0);
    case 3: CALL(0, 1, 1);
    case 4: CALL(1, 0, 0);
    case 5: CALL(1, 0, 1);
    case 6: CALL(1, 1, 0);
    default: CALL(1, 1, 1);
    }
#undef CALL
}

/* A code; of floats the whole part, -1 for NaN and from -1 down. */
static ALWAYS_INLINE int64_t nb_integer(const char *cell, const int type) {
    switch (type) {
    case NB_I8: return *(const int8_t *)cell;
    case NB_I16: return *(const int16_t *)cell;
    case NB_I32: return *(const int32_t *)cell;
    case NB_U8: return *(const uint8_t *)cell;
    case NB_U16: return *(const uint16_t *)cell;
    case NB_U32: return *(const uint32_t *)cell;
    case NB_F32:
    case NB_F64: {
        const double value = nb_value(cell, type);
        return value >= 9e18 ? INT64_MAX : value > -1.0 ? (int64_t)value : -1;
    }
    case NB_U64: {
        const uint64_t value = *(const uint64_t *)cell;
        return value > INT64_MAX ? INT64_MAX : (int64_t)value;
    }
    default: return *(const int64_t *)cell;
    }
}

/* counts of column j and class c: sizes[j] + 2 numbers from begin[c * d + j] on, += w, or, without weights, += 1 in
 * whole numbers. Returns what it has met. */
static ALWAYS_INLINE int nb_counts_type(const nb_term *m, const int type, const int packed, const ptrdiff_t *begin,
                                        const ptrdiff_t *codes, const double *weights, ptrdiff_t first, ptrdiff_t stop,
                                        uint32_t *whole, double *counts) {
    static const char size_of[] = {8, 4, 1, 2, 4, 8, 1, 2, 4, 8};
    const ptrdiff_t d = m->columns;
    uint64_t met = 0;
    for (ptrdiff_t i = first; i < stop; i++)
        for (ptrdiff_t from = 0; from < d; from += NB_COLUMNS) {
            const char *x = m->x + i * m->row_stride + (packed ? m->offsets[from] : 0);
            const ptrdiff_t n = VMIN(NB_COLUMNS, d - from), *start = begin + codes[i] * d + from;
            const ptrdiff_t *sizes = m->sizes + from, *offsets = m->offsets + from;
            ptrdiff_t place[NB_COLUMNS];
            if (packed)
                for (ptrdiff_t k = 0; k < n * size_of[type]; k += 64)
                    __builtin_prefetch(x + NB_AHEAD * m->row_stride + k, 0, 2);
            for (ptrdiff_t j = 0; j < n; j++) {
                const int64_t code = nb_integer(x + (packed ? j * size_of[type] : offsets[j]), type);
                const uint64_t below = (uint64_t)(code >> 63),
                               other = -(uint64_t)((uint64_t)code >= (uint64_t)sizes[j]);
                place[j] = start[j] + (ptrdiff_t)((~other & (uint64_t)code) | (other & ((uint64_t)sizes[j] - below)));
                met |= (below & NB_NEGATIVE) | (other & ~below & NB_UNSEEN);
            }
            if (whole)
                for (ptrdiff_t j = 0; j < n; j++) whole[place[j]]++;
            else
                for (ptrdiff_t j = 0; j < n; j++) counts[place[j]] += weights[i];
        }
    return (int)met;
}

static int nb_counts(const nb_term *m, const ptrdiff_t *begin, const ptrdiff_t *codes, const double *weights,
                     ptrdiff_t first, ptrdiff_t stop, uint32_t *whole, double *counts) {
#define CALL(type) return nb_counts_type(m, type, 1, begin, codes, weights, first, stop, whole, counts)
    if (!m->contiguous) return nb_counts_type(m, m->type, 0, begin, codes, weights, first, stop, whole, counts);
    NB_BY_TYPE(m->type, CALL)
#undef CALL
}

/* counts ((d + 1) / 2, 2^bits, 2^bits) += step at the low bits of the codes of columns 2 k and 2 k + 1 of a row; a last
 * column is paired with itself. Returns the codes, or-ed. */
static ALWAYS_INLINE uint64_t nb_pair_up(const char *x, const int type, ptrdiff_t d, int bits, uint32_t step,
                                         uint32_t *counts) {
    static const char size_of[] = {8, 4, 1, 2, 4, 8, 1, 2, 4, 8};
    const ptrdiff_t size = size_of[type];
    const uint64_t mask = ((uint64_t)1 << bits) - 1;
    uint64_t all = 0;
#define PAIR(j, k)                                                                                                     \
    do {                                                                                                               \
        const uint64_t one = (uint64_t)nb_integer(x + (j) * size, type);                                               \
        const uint64_t two = (uint64_t)nb_integer(x + (k) * size, type);                                               \
        all |= one | two;                                                                                              \
        counts[((one & mask) << bits) + (two & mask)] += step;                                                         \
        counts += (ptrdiff_t)1 << 2 * bits;                                                                            \
    } while (0)
    for (; d >= 4; d -= 4, x += 4 * size) {
        PAIR(0, 1);
        PAIR(2, 3);
    }
    if (d >= 2) PAIR(0, 1);
    if (d % 2) PAIR(d - 1, d - 1);
#undef PAIR
    return all;
}

/* The same in whole numbers by pairs of columns, which halves the increments: pairs (C, (d + 1) / 2, 2^bits, 2^bits).
 * Rows with a code of more bits go to `whole`, as in nb_counts. */
static ALWAYS_INLINE int nb_pairs_type(const nb_term *m, const int type, const ptrdiff_t *begin, const ptrdiff_t *codes,
                                       ptrdiff_t first, ptrdiff_t stop, int bits, uint32_t *pairs, uint32_t *whole) {
    const ptrdiff_t d = m->columns, record = (d + 1) / 2 << 2 * bits;
    const ptrdiff_t ahead = VMAX(NB_AHEAD * m->row_stride, 8192);
    const char *x = m->x + first * m->row_stride + m->offsets[0];
    int met = 0;
    for (ptrdiff_t i = first; i < stop; i++, x += m->row_stride) {
        for (ptrdiff_t k = 0; k < VMIN(8 * d, m->row_stride); k += 64) __builtin_prefetch(x + ahead + k, 0, 3);
        uint32_t *counts = pairs + codes[i] * record;
        if (nb_pair_up(x, type, d, bits, 1, counts) >> bits) {
            nb_pair_up(x, type, d, bits, (uint32_t)-1, counts);
            met |= nb_counts(m, begin, codes, 0, i, i + 1, whole, 0);
        }
    }
    return met;
}

static int nb_pairs(const nb_term *m, const ptrdiff_t *begin, const ptrdiff_t *codes, ptrdiff_t first, ptrdiff_t stop,
                    int bits, uint32_t *pairs, uint32_t *whole) {
#define CALL(type) return nb_pairs_type(m, type, begin, codes, first, stop, bits, pairs, whole)
    switch (m->type) {
    case NB_I64: CALL(NB_I64);
    case NB_I32: CALL(NB_I32);
    case NB_U8: CALL(NB_U8);
    default: CALL(NB_I8);
    }
#undef CALL
}

/* Weight, count (C, d) and moments of the cells that are there, class by class: about the first of them, so that an
 * offset costs no digits, or about what is `given`. */
static ALWAYS_INLINE void nb_moments_type(const nb_term *m, const int type, const int missing, int given,
                                          const ptrdiff_t *codes, const double *weights, ptrdiff_t first,
                                          ptrdiff_t stop, double *total, double *about, double *count, double *sums,
                                          double *squares) {
    const ptrdiff_t d = m->columns;
    for (ptrdiff_t i = first; i < stop; i++) {
        const char *x = m->x + i * m->row_stride;
        const ptrdiff_t c = codes[i];
        const double w = weights ? weights[i] : 1.0;
        double *a = about + c * d, *f = sums + c * d, *q = squares + c * d, *n = count + c * d;
        if (m->contiguous && d <= 8 * NB_COLUMNS)
            for (ptrdiff_t k = 0; k < d * 8; k += 64)
                __builtin_prefetch(x + m->offsets[0] + NB_AHEAD * m->row_stride + k, 0, 2);
        if (total[c] == 0.0 && !given)
            for (ptrdiff_t j = 0; j < d; j++) {
                const double value = nb_value(x + m->offsets[j], type);
                a[j] = value == value ? value : 0.0;
            }
        total[c] += w;
        if (m->contiguous && type <= NB_F32 && !missing) {
            const char *from = x + m->offsets[0];
#pragma GCC ivdep
            for (ptrdiff_t j = 0; j < d; j++) {
                const double z = element(from, j, type == NB_F32) - a[j], y = w * z;
                f[j] += y;
                q[j] += y * z;
            }
            continue;
        }
        for (ptrdiff_t j = 0; j < d; j++) {
            const double value = nb_value(x + m->offsets[j], type);
            if (missing && !(value == value)) continue;
            if (missing && n[j] == 0.0 && !given) a[j] = value;
            const double z = value - a[j], y = w * z;
            n[j] += w;
            f[j] += y;
            q[j] += y * z;
        }
    }
}

static void nb_moments(const nb_term *m, int missing, int given, const ptrdiff_t *codes, const double *weights,
                       ptrdiff_t first, ptrdiff_t stop, double *total, double *about, double *count, double *sums,
                       double *squares) {
#define CALL(type, missing)                                                                                            \
    nb_moments_type(m, type, missing, given, codes, weights, first, stop, total, about, count, sums, squares)
    switch (m->type * 2 + missing) {
    case 2 * NB_F64: CALL(NB_F64, 0); break;
    case 2 * NB_F64 + 1: CALL(NB_F64, 1); break;
    case 2 * NB_F32: CALL(NB_F32, 0); break;
    case 2 * NB_F32 + 1: CALL(NB_F32, 1); break;
    default: CALL(m->type, 0); break;
    }
#undef CALL
}

#endif
