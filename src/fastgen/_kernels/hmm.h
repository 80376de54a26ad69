/* Hidden Markov models, for _hmm.pyx: forward-backward, expected transitions, Viterbi.
 *
 *   forward    a_t(j) = b_t(j) sum_i a_{t-1}(i) A_ij / c_t        backward   beta_t(i) = sum_j A_ij w_{t+1}(j)
 *   posterior  gamma_t(i) ~ a_t(i) beta_t(i)                      w_t(j) = b_t(j) beta_t(j)
 *   expected transitions  xi_ij = A_ij sum_t a_t(i) w_{t+1}(j) / (a_t beta_t)
 *
 * in linear space: b_t is the row of likelihoods divided by its maximum, and a_t and w_t are divided by their sums.
 *
 * The recursions wait for each other; their dependency chain is broken by running 8 of them side by side, in the lanes
 * of vectors. A lane is a run of pieces: whole sequences, or a part of a long one, which is started a warm-up earlier
 * from a flat distribution. What a warm-up arrived at is returned beside what it must be, the end of the lane before:
 * the caller compares them. A tile holds 4 steps of the 8 lanes (sample 8 step + lane); emissions come in tiles,
 * gathered from 8 places of X, so that the kernels of gaussian.h and mixture.h serve as they are.
 */
#ifndef FASTGEN_HMM_H
#define FASTGEN_HMM_H

#include "mixture.h"

#define STEPS (TILE / LANES)
#define BLOCK_TILES BATCH(FULL) /* of the backward pass: expected transitions and moments are summed up for so many */

/* Kinds of emissions beyond the Gaussians' (FULL, ..., SPHERICAL). */
enum { LOGS = 5, LIKELIHOODS, TABLE };

/* Where a scaled sum (of a step, or of a tile) falls below this, small numbers may have lost digits: the result is NaN,
 * and the caller looks for another way. What is above 1e-200 of the sum is exact to rounding otherwise. */
#define WEAK 1e-60

/* Transitions that are at least this probable keep a state from being lost. */
#define SAFE 1e-40

/* Of pieces: whether they begin and end their sequence. */
enum { BEGINS = 1, ENDS = 2 };

/* Of samples in a tile that is not plain. */
enum { FIRST = 1, LAST = 2, PIECE_END = 4, ACTIVE = 8 };

typedef struct {
    int kind, single;
    mixture m;
    const char
        *x; /* Gaussians: rows of d features; LOGS, LIKELIHOODS: rows of K; TABLE: rows of a (symbols, K) table */
    ptrdiff_t row_bytes, column_stride;
    const ptrdiff_t *symbols; /* TABLE: the row of the table for each step; its rows have maximum 1 */
    const double *table_top;  /* TABLE: log of what the row was divided by */
    ptrdiff_t columns;        /* of x */
} emission;

/* Possible transitions: of state j, at[j]..at[j + 1] - 1, with its neighbour in `state` and probability p. */
typedef struct {
    const ptrdiff_t *at, *state;
    const double *p;
} links;

typedef struct {
    ptrdiff_t K, step;            /* step: K, padded with states that are never in use */
    const double *start, *A, *AT; /* (step,), (step, step), its transpose; 0 where padded */
    int wide;                     /* then, instead of A: */
    links into, out_of;
} chain;

/* Where warm-ups start: nothing that the truth could be by chance, or for symmetry, so that two that agree have
 * forgotten it. Not normalised. */
static ALWAYS_INLINE double anywhere(ptrdiff_t k, int backward) {
    const double x = (double)(k + 1) * (backward ? 0.7548776662466927 : 0.6180339887498949);
    return 0.3 + x - floor(x);
}

typedef struct {
    const ptrdiff_t *lanes;                         /* pieces lanes[i]..lanes[i + 1] - 1 belong to lane i */
    const ptrdiff_t *row, *length, *before, *after; /* of pieces: where, how long, rows of the sequence around it */
    const int *kind;
    const double *weight; /* of pieces, or NULL */
} schedule;

static ALWAYS_INLINE ptrdiff_t state_step(ptrdiff_t K) { return K <= 8 ? K : (K + 3) & ~(ptrdiff_t)3; }

/* Emissions -------------------------------------------------------------------------------------------------------- */

/* Whether the rows of each lane follow each other. */
static ALWAYS_INLINE int follow(const ptrdiff_t *rows) {
    ptrdiff_t gaps = 0;
    for (int i = 1; i < STEPS; i++)
        for (int q = 0; q < LANES; q++) gaps |= rows[i * LANES + q] - rows[q] - i;
    return gaps == 0;
}

/* t[j * TILE + s] <- column j of row rows[s]. */
static ALWAYS_INLINE void gather(const char *x, const int single, ptrdiff_t row_bytes, ptrdiff_t column_stride,
                                 const ptrdiff_t *rows, ptrdiff_t d, double *t) {
    if (column_stride == 1 && d >= 4) {
        for (ptrdiff_t s = 0; s < TILE; s += VL)
            for (ptrdiff_t j = 0; j < d; j += 4) {
                if (j + 4 > d) j = d - 4;
                v4d row[VL];
                vd c[4];
                EACH(i, VL) row[i] = four(x + rows[s + i] * row_bytes, j, single);
                transpose_in(row, c);
                EACH(q, 4) vstore(t + (j + q) * TILE + s, c[q]);
            }
    } else if (column_stride == 1 && row_bytes == d * (single ? 4 : 8) && follow(rows)) {
        /* The STEPS rows of a lane are one after the other in memory: d times 4 numbers. */
        for (ptrdiff_t q = 0; q < LANES; q += VL) {
            ptrdiff_t j = 0, step = 0;
            for (ptrdiff_t m = 0; m < d; m++) {
                v4d row[VL];
                vd c[4];
                EACH(i, VL) row[i] = four(x + rows[q + i] * row_bytes, 4 * m, single);
                transpose_in(row, c);
                EACH(v, 4) {
                    vstore(t + j * TILE + step * LANES + q, c[v]);
                    const ptrdiff_t next = ++j == d;
                    step += next;
                    j = next ? 0 : j;
                }
            }
        }
    } else {
        for (ptrdiff_t j = 0; j < d; j++)
            for (ptrdiff_t s = 0; s < TILE; s++)
                t[j * TILE + s] = element(x + rows[s] * row_bytes, j * column_stride, single);
    }
}

/* b <- exp(b - top), top <- the largest of each sample. */
static ALWAYS_INLINE void divide_by_largest(double *b, ptrdiff_t K, double *top) {
    for (ptrdiff_t s = 0; s < TILE; s += VL) {
        vd m = vload(b + s);
        for (ptrdiff_t k = 1; k < K; k++) m = vmax(m, vload(b + k * TILE + s));
        vstore(top + s, m);
        for (ptrdiff_t k = 0; k < K; k++) vstore(b + k * TILE + s, vexp_nonpositive(vload(b + k * TILE + s) - m));
    }
}

/* b (K, TILE) and top of 32 rows. x: (d, TILE), the rows, for Gaussians; z, y: work space. logs: b <- logarithms. */
static ALWAYS_INLINE void emit_kind(const int kind, const int single, const emission *e, const ptrdiff_t *rows,
                                    const int logs, double *x, double *z, double *y, double *b, double *top) {
    const ptrdiff_t K = e->m.K;
    if (kind == TABLE || kind == LIKELIHOODS) {
        ptrdiff_t symbols[TILE];
        if (kind == TABLE) {
            for (ptrdiff_t s = 0; s < TILE; s++) {
                symbols[s] = e->symbols[rows[s]];
                top[s] = e->table_top[symbols[s]];
            }
            gather(e->x, 0, e->row_bytes, 1, symbols, K, b);
        } else {
            gather(e->x, single, e->row_bytes, e->column_stride, rows, K, b);
            for (ptrdiff_t s = 0; s < TILE; s += VL) {
                vd m = vload(b + s);
                for (ptrdiff_t k = 1; k < K; k++) m = vmax(m, vload(b + k * TILE + s));
                const vd scale = vset(1.0) / m;
                for (ptrdiff_t k = 0; k < K; k++) vstore(b + k * TILE + s, vload(b + k * TILE + s) * scale);
                vstore(top + s, vlog(m));
            }
        }
        for (ptrdiff_t s = 0; s < TILE && logs; s += VL)
            for (ptrdiff_t k = 0; k < K; k++) vstore(b + k * TILE + s, vlog(vload(b + k * TILE + s)) + vload(top + s));
        return;
    }
    if (kind == LOGS) {
        gather(e->x, single, e->row_bytes, e->column_stride, rows, K, b);
    } else {
        gather(e->x, single, e->row_bytes, e->column_stride, rows, e->m.d, x);
        const double *from = x;
        if (kind == TIED) {
            whiten(x, e->m.d, e->m.centre, e->m.factors, z, y, 0);
            from = y;
        }
        for (ptrdiff_t k = 0; k < K; k++)
            component(kind, from, e->m.d, k, e->m.means, e->m.factors, e->m.factor_size, e->m.log_norm, 0.0, z,
                      b + k * TILE, 0);
    }
    if (!logs) divide_by_largest(b, K, top);
}

#define EMIT(kind)                                                                                                     \
    case kind:                                                                                                         \
        if (e->single)                                                                                                 \
            emit_kind(kind, 1, e, rows, logs, x, z, y, b, top);                                                        \
        else                                                                                                           \
            emit_kind(kind, 0, e, rows, logs, x, z, y, b, top);                                                        \
        return

static __attribute__((noinline)) void emit_any(const emission *e, const ptrdiff_t *rows, int logs, double *x, double *z,
                                               double *y, double *b, double *top) {
    switch (e->kind) {
        EMIT(FULL);
        EMIT(TIED);
        EMIT(DIAG);
        EMIT(DIAG_MISSING);
        EMIT(SPHERICAL);
        EMIT(LOGS);
        EMIT(LIKELIHOODS);
    case TABLE: emit_kind(TABLE, 0, e, rows, logs, x, z, y, b, top); return;
    }
}

static ALWAYS_INLINE int is_gaussian(const emission *e) { return e->kind <= SPHERICAL; }

/* Which rows come next --------------------------------------------------------------------------------------------- */

typedef struct {
    ptrdiff_t row[LANES], left[LANES], begin[LANES]; /* the next step, how many the piece has left, where it began */
    ptrdiff_t piece[LANES], stop[LANES];             /* the present one, and where the lane's end */
} cursor;

/* What is known of the samples of one tile. */
typedef struct {
    ptrdiff_t row[TILE], piece[TILE]; /* of pieces the first LANES, if the tile is */
    int plain;                        /* all lanes are in the midst of their pieces, and flags mean nothing */
    int flags[TILE];
} tile_rows;

static ALWAYS_INLINE void open_piece(const schedule *S, cursor *c, int q) {
    const ptrdiff_t p = c->piece[q];
    if (p == c->stop[q]) { /* any row will do from now on */
        c->left[q] = 0;
        return;
    }
    c->row[q] = c->begin[q] = S->row[p];
    c->left[q] = S->length[p];
}

static ALWAYS_INLINE void open_lanes(const schedule *S, ptrdiff_t lane, cursor *c) {
    for (int q = 0; q < LANES; q++) {
        c->piece[q] = S->lanes[lane + q];
        c->stop[q] = S->lanes[lane + q + 1];
        c->row[q] = c->begin[q] = 0;
        open_piece(S, c, q);
    }
}

/* The next STEPS steps of lane q. */
static ALWAYS_INLINE void next_steps(const schedule *S, cursor *c, int q, tile_rows *t) {
    for (int i = 0; i < STEPS; i++) {
        const int s = i * LANES + q;
        const ptrdiff_t p = c->piece[q];
        t->row[s] = c->row[q];
        t->piece[s] = p;
        t->flags[s] = 0;
        if (p == c->stop[q]) continue;
        t->flags[s] = ACTIVE | (c->row[q] == c->begin[q] && S->kind[p] & BEGINS ? FIRST : 0);
        if (--c->left[q] == 0) {
            t->flags[s] |= PIECE_END | (S->kind[p] & ENDS ? LAST : 0);
            c->piece[q]++;
            open_piece(S, c, q);
        } else
            c->row[q]++;
    }
}

/* The next STEPS steps of all lanes; returns whether there are any. */
static ALWAYS_INLINE int next_tile(const schedule *S, cursor *c, tile_rows *t) {
    ptrdiff_t plain = 1, any = 0;
    for (int q = 0; q < LANES; q++) plain &= (c->left[q] > STEPS) & (c->row[q] != c->begin[q]);
    t->plain = (int)plain;
    if (plain) {
        for (int i = 0; i < STEPS; i++)
            for (int q = 0; q < LANES; q++) t->row[i * LANES + q] = c->row[q] + i;
        for (int q = 0; q < LANES; q++) {
            t->piece[q] = c->piece[q];
            c->row[q] += STEPS;
            c->left[q] -= STEPS;
        }
        return 1;
    }
    for (int q = 0; q < LANES; q++) any |= c->left[q];
    if (any)
        for (int q = 0; q < LANES; q++) next_steps(S, c, q, t);
    return any != 0;
}

/* Lanes that have nothing in a step get likelihoods of 1. */
static ALWAYS_INLINE void blank(const tile_rows *t, ptrdiff_t K, double *b, double *top) {
    for (int s = 0; s < TILE; s++)
        if (!(t->flags[s] & ACTIVE)) {
            for (ptrdiff_t k = 0; k < K; k++) b[k * TILE + s] = 1.0;
            top[s] = 0.0;
        }
}

/* All-ones where a flag is set, for VL lanes of one step. */
static ALWAYS_INLINE vi flagged(const int *flags, int which) {
    vi mask;
    for (int i = 0; i < VL; i++) mask[i] = flags[i] & which ? -1 : 0;
    return mask;
}

/* Numbers of any range ------------------------------------------------------------------------------------------------
 *
 * Each is a mantissa in [1, 2) (or 0) and an exponent, a double that holds an integer. Nothing underflows, so zeros in
 * A are exact and no evidence is too strong. */
#define NO_EXPONENT -0x1p1000 /* of 0 */

/* 2^n for integers n <= 0; 2^-900 below: far from where products become subnormal. */
static ALWAYS_INLINE vd power_of_two(vd n) {
    const vd t = vmax(vset(-900.0), n) + vset(0x1.8p52);
    return (vd)(((vu)t + 1023) << 52);
}

/* x = m 2^e, x >= 0 and normal or 0. */
static ALWAYS_INLINE void split(vd x, vd *m, vd *e) {
    const vu bits = (vu)x;
    const vi zero = (vi)(x == vset(0.0));
    const vd exponent = (vd)(bits >> 52 | 0x4330000000000000) - vset(0x1p52 + 1023.0);
    *e = vselect(zero, vset(NO_EXPONENT), exponent);
    *m = vselect(zero, x, (vd)((bits & 0x000fffffffffffff) | 0x3ff0000000000000));
}

/* (m, e) <- exp(l): l = e ln 2 + r. */
static ALWAYS_INLINE void wide_exp(vd l, vd *m, vd *e) {
    const vi none = (vi)(l == vset(-INFINITY));
    l = vselect(none, vset(0.0), l);
    const vd k = l * vset(0x1.71547652b82fep+0) + vset(0x1.8p52) - vset(0x1.8p52); /* an integer */
    vd r = vfma(k, vset(-0x1.62e42p-1), l); /* 21 bits: exact without FMA too, for k below 2^32 */
    r = vfma(k, vset(-0x1.fdf47p-22), r);
    r = vfma(k, vset(-0x1.ef35793c7673p-45), r);
    vd mantissa, exponent;
    split(vexp(r), &mantissa, &exponent);
    *m = vselect(none, vset(0.0), mantissa);
    *e = vselect(none, vset(NO_EXPONENT), k + exponent);
}

/* Sum of (m, e), `stride` apart, as a mantissa, which is returned, for the exponent *top. */
static ALWAYS_INLINE double wide_sum(ptrdiff_t K, const double *m, const double *e, ptrdiff_t stride, double *top) {
    double most = NO_EXPONENT, sum = 0.0;
    for (ptrdiff_t k = 0; k < K; k++) most = e[k * stride] > most && m[k * stride] > 0.0 ? e[k * stride] : most;
    for (ptrdiff_t k = 0; k < K; k++)
        if (e[k * stride] - most > -1100.0) sum += ldexp(m[k * stride], (int)(e[k * stride] - most));
    *top = most;
    return sum;
}

/* (high, low) += x. */
static ALWAYS_INLINE void add_one(double *high, double *low, double x) {
    const double total = *high + x, part = total - *high;
    *low += (*high - (total - part)) + (x - part);
    *high = total;
}

/* logs (high, low) += log(sum 2^exponent). */
static ALWAYS_INLINE void wide_log(double sum, double exponent, double *logs) {
    const double high = exponent * 0x1.62e42fefa39efp-1;
    logs[1] += fma(exponent, 0x1.62e42fefa39efp-1, -high) + exponent * 0x1.abc9e3b39803fp-56 + log(sum);
    add_one(logs, logs + 1, high);
}

/* One step in lanes ------------------------------------------------------------------------------------------------ */

/* y[j] <- sum_i a[i] M[i, j] for W states from j on; vectors of VL lanes, `stride` apart. */
static ALWAYS_INLINE void times_block(ptrdiff_t K, const double *a, ptrdiff_t stride, const double *M, ptrdiff_t j,
                                      const int W, double *y) {
    vd acc[8];
    EACH(v, W) acc[v] = vset(0.0);
    for (ptrdiff_t i = 0; i < K; i++) {
        const vd x = in_register(vload(a + i * stride));
        EACH(v, W) acc[v] = vfma(x, vset(M[i * K + j + v]), acc[v]);
    }
    EACH(v, W) vstore(y + (j + v) * LANES, acc[v]);
}

/* The same for all states; K > 8, a multiple of 4. */
static ALWAYS_INLINE void times(ptrdiff_t K, const double *a, ptrdiff_t stride, const double *M, double *y) {
    ptrdiff_t j = 0;
    for (; j + 8 <= K; j += 8) times_block(K, a, stride, M, j, 8, y);
    if (j < K) times_block(K, a, stride, M, j, 4, y);
}

/* The same for K = small states in registers. */
static ALWAYS_INLINE void times_small(const int small, const vd *a, const double *M, vd *y) {
    EACH(j, small) {
        vd sum = a[0] * vset(M[j]);
        EACH(i, small)
            if (i) sum = vfma(a[i], vset(M[i * small + j]), sum);
        y[j] = sum;
    }
}

/* Sums of logarithms, with what rounding loses of them; 8 lanes each. */
typedef struct {
    double high[LANES], low[LANES];
} long_sum;

static ALWAYS_INLINE void add_long(long_sum *sum, int half, vd x) {
    const vd high = vload(sum->high + half), total = high + x, part = total - high;
    vstore(sum->high + half, total);
    vstore(sum->low + half, vload(sum->low + half) + ((high - (total - part)) + (x - part)));
}

/* One tile forward. a (K, LANES): the state before and after it, adding up to 1. alpha (K, TILE): a_t, each up to a
 * factor. y: work space (K, LANES). t: NULL in plain tiles; otherwise a_t is divided by its sum in each step, `start`
 * (K, LANES) takes the place of the prediction in FIRST steps, and lanes stay as they are in steps that are not ACTIVE.
 * factors: log of the factors are added to sum; step_logs (TILE), if t: of each step, instead. */
static ALWAYS_INLINE void forward_tile(const int small, ptrdiff_t K, const double *A, double *a, const double *b,
                                       double *alpha, const tile_rows *t, const double *start, const double *top,
                                       long_sum *sum, double *step_logs, double *y) {
    if (small) K = small;
    for (int half = 0; half < LANES; half += VL) {
        vd state[8], next[8];
        if (small)
            EACH(j, small) state[j] = vload(a + j * LANES + half);
        for (int i = 0; i < STEPS; i++) {
            const double *bi = b + i * LANES + half;
            double *ai = alpha + i * LANES + half;
            vd total = vset(0.0);
            vi first = {0}, active = {0};
            if (t) {
                first = flagged(t->flags + i * LANES + half, FIRST);
                active = flagged(t->flags + i * LANES + half, ACTIVE);
            }
            if (small) {
                times_small(small, state, A, next);
                EACH(j, small) {
                    if (t) next[j] = vselect(first, vload(start + j * LANES + half), next[j]);
                    next[j] *= vload(bi + j * TILE);
                    if (t) total += next[j];
                    if (!t) vstore(ai + j * TILE, next[j]);
                    if (!t) state[j] = next[j];
                }
            } else {
                if (i == 0 || t)
                    times(K, a + half, LANES, A, y + half);
                else
                    times(K, ai - LANES, TILE, A, y + half);
                for (ptrdiff_t j = 0; j < K; j++) {
                    vd p = vload(y + j * LANES + half);
                    if (t) p = vselect(first, vload(start + j * LANES + half), p);
                    p *= vload(bi + j * TILE);
                    vstore(ai + j * TILE, p);
                    if (t) total += p;
                }
            }
            if (!t) continue;
            const vd scale = vset(1.0) / total;
            if (small) {
                EACH(j, small) {
                    state[j] = vselect(active, next[j] * scale, state[j]);
                    vstore(ai + j * TILE, state[j]);
                }
            } else
                for (ptrdiff_t j = 0; j < K; j++) {
                    const vd p = vselect(active, vload(ai + j * TILE) * scale, vload(a + j * LANES + half));
                    vstore(ai + j * TILE, p);
                    vstore(a + j * LANES + half, p);
                }
            const vd weak = vselect((vi)(total >= vset(WEAK)), vset(0.0), vset(NAN));
            vstore(step_logs + i * LANES + half, vlog(total) + weak + vload(top + i * LANES + half));
        }
        if (!t) {
            const double *last = alpha + (STEPS - 1) * LANES + half;
            vd total = vset(0.0);
            if (small)
                EACH(j, small) total += state[j];
            else
                for (ptrdiff_t j = 0; j < K; j++) total += vload(last + j * TILE);
            const vd scale = vset(1.0) / total;
            if (small)
                EACH(j, small) vstore(a + j * LANES + half, state[j] * scale);
            else
                for (ptrdiff_t j = 0; j < K; j++) vstore(a + j * LANES + half, vload(last + j * TILE) * scale);
            const vd weak = vselect((vi)(total >= vset(WEAK)), vset(0.0), vset(NAN));
            const vd tops = (vload(top + half) + vload(top + LANES + half)) +
                            (vload(top + 2 * LANES + half) + vload(top + 3 * LANES + half));
            add_long(sum, half, vlog(total) + tops + weak);
        } else if (small)
            EACH(j, small) vstore(a + j * LANES + half, state[j]);
    }
}

#define BY_STATES(call)                                                                                                \
    switch (c->step) {                                                                                                 \
    case 1: call(1); return;                                                                                           \
    case 2: call(2); return;                                                                                           \
    case 3: call(3); return;                                                                                           \
    case 4: call(4); return;                                                                                           \
    case 5: call(5); return;                                                                                           \
    case 6: call(6); return;                                                                                           \
    case 7: call(7); return;                                                                                           \
    case 8: call(8); return;                                                                                           \
    default: call(0); return;                                                                                          \
    }

static __attribute__((noinline)) void forward_plain(const chain *c, double *a, const double *b, double *alpha,
                                                    const double *top, long_sum *sum, double *y) {
#define CALL(small) forward_tile(small, c->step, c->A, a, b, alpha, 0, 0, top, sum, 0, y)
    BY_STATES(CALL)
#undef CALL
}

static __attribute__((noinline)) void forward_any(const chain *c, double *a, const double *b, double *alpha,
                                                  const tile_rows *t, const double *start, const double *top,
                                                  double *step_logs, double *y) {
#define CALL(small) forward_tile(small, c->step, c->A, a, b, alpha, t, start, top, 0, step_logs, y)
    BY_STATES(CALL)
#undef CALL
}

/* One tile backward. w (K, LANES): b_{t+1} beta_{t+1}, up to a factor, before and after it. b: the likelihoods;
 * if `transitions`, w_{t+1} weight / (a_t beta_t), 0 in LAST steps, take their place. gamma (K, TILE) <- posteriors
 * times weight (TILE); it may be alpha unless `transitions`. t: NULL in plain tiles. */
static ALWAYS_INLINE void backward_tile(const int small, ptrdiff_t K, const double *AT, double *w, double *b,
                                        const double *alpha, double *gamma, const tile_rows *t, const double *weight,
                                        const int transitions, double *y) {
    if (small) K = small;
    for (int half = 0; half < LANES; half += VL) {
        vd state[8], beta[8];
        if (small)
            EACH(j, small) state[j] = vload(w + j * LANES + half);
        for (int i = STEPS - 1; i >= 0; i--) {
            const ptrdiff_t at = i * LANES + half;
            vi last = {0}, active = {0};
            vd total = vset(0.0), next = vset(0.0);
            if (t) {
                last = flagged(t->flags + at, LAST);
                active = flagged(t->flags + at, ACTIVE);
            }
            if (small) {
                times_small(small, state, AT, beta);
                EACH(j, small) {
                    if (t) beta[j] = vselect(last, vset(1.0), beta[j]);
                    total = vfma(vload(alpha + j * TILE + at), beta[j], total);
                }
            } else {
                times(K, w + half, LANES, AT, y + half);
                for (ptrdiff_t j = 0; j < K; j++) {
                    vd beta_j = vload(y + j * LANES + half);
                    if (t) {
                        beta_j = vselect(last, vset(1.0), beta_j);
                        vstore(y + j * LANES + half, beta_j);
                    }
                    total = vfma(vload(alpha + j * TILE + at), beta_j, total);
                }
            }
            const vd share = vload(weight + at) / total;
            if (small) {
                EACH(j, small) {
                    const vd bj = vload(b + j * TILE + at);
                    vstore(gamma + j * TILE + at, vload(alpha + j * TILE + at) * share * beta[j]);
                    if (transitions) {
                        vd v = state[j] * share;
                        if (t) v = vselect(last, vset(0.0), v);
                        vstore(b + j * TILE + at, v);
                    }
                    beta[j] *= bj;
                    if (t) next += beta[j];
                    if (!t) state[j] = beta[j];
                }
                if (t) {
                    const vd scale = vset(1.0) / next;
                    EACH(j, small) state[j] = vselect(active, beta[j] * scale, state[j]);
                }
            } else {
                for (ptrdiff_t j = 0; j < K; j++) {
                    const vd bj = vload(b + j * TILE + at), beta_j = vload(y + j * LANES + half);
                    vstore(gamma + j * TILE + at, vload(alpha + j * TILE + at) * share * beta_j);
                    if (transitions) {
                        vd v = vload(w + j * LANES + half) * share;
                        if (t) v = vselect(last, vset(0.0), v);
                        vstore(b + j * TILE + at, v);
                    }
                    const vd u = beta_j * bj;
                    vstore((t ? y : w) + j * LANES + half, u);
                    if (t) next += u;
                }
                if (t) {
                    const vd scale = vset(1.0) / next;
                    for (ptrdiff_t j = 0; j < K; j++)
                        vstore(w + j * LANES + half,
                               vselect(active, vload(y + j * LANES + half) * scale, vload(w + j * LANES + half)));
                }
            }
        }
        if (!t) {
            vd next = vset(0.0);
            if (small)
                EACH(j, small) next += state[j];
            else
                for (ptrdiff_t j = 0; j < K; j++) next += vload(w + j * LANES + half);
            const vd scale = vset(1.0) / next;
            if (small)
                EACH(j, small) vstore(w + j * LANES + half, state[j] * scale);
            else
                for (ptrdiff_t j = 0; j < K; j++) vstore(w + j * LANES + half, vload(w + j * LANES + half) * scale);
        } else if (small)
            EACH(j, small) vstore(w + j * LANES + half, state[j]);
    }
}

static __attribute__((noinline)) void backward_plain(const chain *c, double *w, double *b, const double *alpha,
                                                     double *gamma, const double *weight, int transitions, double *y) {
#define CALL(small)                                                                                                    \
    if (transitions)                                                                                                   \
        backward_tile(small, c->step, c->AT, w, b, alpha, gamma, 0, weight, 1, y);                                     \
    else                                                                                                               \
        backward_tile(small, c->step, c->AT, w, b, alpha, gamma, 0, weight, 0, y)
    BY_STATES(CALL)
#undef CALL
}

static __attribute__((noinline)) void backward_any(const chain *c, double *w, double *b, const double *alpha,
                                                   double *gamma, const tile_rows *t, const double *weight,
                                                   int transitions, double *y) {
#define CALL(small) backward_tile(small, c->step, c->AT, w, b, alpha, gamma, t, weight, transitions, y)
    BY_STATES(CALL)
#undef CALL
}

/* xi[i + h, j + v] += sum a_t(i + h) v_t(j + v) for H x W pairs of states, over `tiles` tiles, in LANES lanes. */
static ALWAYS_INLINE void transitions_block(ptrdiff_t K, const double *alpha, const double *v, ptrdiff_t tiles,
                                            ptrdiff_t i, ptrdiff_t j, const int H, const int W, double *xi) {
    for (int half = 0; half < LANES; half += VL) {
        vd acc[4][4];
        EACH(h, H)
            EACH(q, W) acc[h][q] = vload(xi + ((i + h) * K + j + q) * LANES + half);
        for (ptrdiff_t t = 0; t < tiles; t++)
            for (int s = half; s < TILE; s += LANES) {
                const double *at = alpha + (t * K + i) * TILE + s, *vt = v + (t * K + j) * TILE + s;
                vd y[4];
                EACH(q, W) y[q] = in_register(vload(vt + q * TILE));
                EACH(h, H) {
                    const vd x = in_register(vload(at + h * TILE));
                    EACH(q, W) acc[h][q] = vfma(x, y[q], acc[h][q]);
                }
            }
        EACH(h, H)
            EACH(q, W) vstore(xi + ((i + h) * K + j + q) * LANES + half, acc[h][q]);
    }
}

static ALWAYS_INLINE void transitions_row(ptrdiff_t K, const double *alpha, const double *v, ptrdiff_t tiles,
                                          ptrdiff_t i, const int H, double *xi) {
    ptrdiff_t j = 0;
    for (; j + 4 <= K; j += 4) transitions_block(K, alpha, v, tiles, i, j, H, 4, xi);
    switch (K - j) {
    case 3: transitions_block(K, alpha, v, tiles, i, j, H, 3, xi); break;
    case 2: transitions_block(K, alpha, v, tiles, i, j, H, 2, xi); break;
    case 1: transitions_block(K, alpha, v, tiles, i, j, H, 1, xi); break;
    }
}

static __attribute__((noinline)) void add_transitions(ptrdiff_t K, const double *alpha, const double *v,
                                                      ptrdiff_t tiles, double *xi) {
    ptrdiff_t i = 0;
#if VL == 8
    for (; i + 4 <= K; i += 4) transitions_row(K, alpha, v, tiles, i, 4, xi);
#endif
    for (; i + 2 <= K; i += 2) transitions_row(K, alpha, v, tiles, i, 2, xi);
    if (i < K) transitions_row(K, alpha, v, tiles, i, 1, xi);
}

/* Wide numbers in lanes: (2, step, ...) for (step, ...), mantissas and then exponents
 * ---------------------------------- */

/* sum 2^top <- sum of (a, ae) p over the links of state j; terms: its summands, if wanted. */
static ALWAYS_INLINE void wide_step(const links *L, ptrdiff_t j, const double *a, const double *ae, ptrdiff_t stride,
                                    double *terms, vd *sum, vd *top) {
    const ptrdiff_t first = L->at[j], stop = L->at[j + 1];
    vd most = vset(NO_EXPONENT), s = vset(0.0);
    for (ptrdiff_t q = first; q < stop; q++) most = vmax(most, vload(ae + L->state[q] * stride));
    for (ptrdiff_t q = first; q < stop; q++) {
        const ptrdiff_t i = L->state[q] * stride;
        const vd term = vload(a + i) * vset(L->p[q]) * power_of_two(vload(ae + i) - most);
        if (terms) vstore(terms + q * LANES, term);
        s += term;
    }
    *sum = s;
    *top = most;
}

/* (m, x) <- sum 2^top (b, be). */
static ALWAYS_INLINE void wide_product(vd sum, vd top, vd b, vd be, vd *m, vd *x) {
    vd carry;
    split(sum * b, m, &carry);
    *x = vselect((vi)(*m == vset(0.0)), vset(NO_EXPONENT), top + be + carry);
}

/* b: logarithms -> wide numbers, divided by the largest, whose logarithm is top; lanes that have nothing get 1. bad:
 * lanes where something is NaN or infinite. */
static ALWAYS_INLINE void wide_emissions(const chain *c, const tile_rows *t, double *b, double *top, int *bad) {
    const ptrdiff_t K = c->K, size = c->step * TILE;
    for (int s = 0; s < TILE && !t->plain; s++)
        for (ptrdiff_t k = 0; k < K && !(t->flags[s] & ACTIVE); k++) b[k * TILE + s] = 0.0;
    for (int s = 0; s < TILE; s += VL) {
        vi good = ~(vi){0};
        vd most = vset(-INFINITY);
        for (ptrdiff_t k = 0; k < K; k++) {
            good &= (vi)(vload(b + k * TILE + s) < vset(INFINITY));
            most = vmax(vload(b + k * TILE + s), most);
        }
        for (int q = 0; q < VL; q++) bad[(s + q) % LANES] |= !good[q];
        most = lse_shift(most);
        vstore(top + s, most);
        for (ptrdiff_t k = 0; k < K; k++) {
            vd m, x;
            wide_exp(vload(b + k * TILE + s) - most, &m, &x);
            vstore(b + k * TILE + s, m);
            vstore(b + size + k * TILE + s, x);
        }
    }
}

/* forward_tile; start: wide. */
static __attribute__((noinline)) void wide_forward(const chain *c, double *a, const double *b, double *alpha,
                                                   const tile_rows *t, const double *start) {
    const ptrdiff_t K = c->K, size = c->step * TILE, lanes = c->step * LANES;
    for (int half = 0; half < LANES; half += VL) {
        const double *from = a + half, *from_e = from + lanes;
        ptrdiff_t stride = LANES;
        for (int i = 0; i < STEPS; i++) {
            const ptrdiff_t at = i * LANES + half;
            for (ptrdiff_t j = 0; j < K; j++) {
                vd m, x;
                wide_step(&c->into, j, from, from_e, stride, 0, &m, &x);
                if (!t->plain) {
                    const vi first = flagged(t->flags + at, FIRST);
                    m = vselect(first, vload(start + j * LANES + half), m);
                    x = vselect(first, vload(start + lanes + j * LANES + half), x);
                }
                wide_product(m, x, vload(b + j * TILE + at), vload(b + size + j * TILE + at), &m, &x);
                if (!t->plain) {
                    const vi active = flagged(t->flags + at, ACTIVE);
                    m = vselect(active, m, vload(from + j * stride));
                    x = vselect(active, x, vload(from_e + j * stride));
                }
                vstore(alpha + j * TILE + at, m);
                vstore(alpha + size + j * TILE + at, x);
            }
            from = alpha + at;
            from_e = from + size;
            stride = TILE;
        }
        for (ptrdiff_t j = 0; j < K; j++) {
            vstore(a + j * LANES + half, vload(from + j * TILE));
            vstore(a + lanes + j * LANES + half, vload(from_e + j * TILE));
        }
    }
}

/* backward_tile, with expected transitions added to xi, unless it is NULL. work: (4, step, LANES) and a term for each
 * transition. */
static __attribute__((noinline)) void wide_backward(const chain *c, double *w, const double *b, const double *alpha,
                                                    double *gamma, const tile_rows *t, const double *weight, double *xi,
                                                    double *work) {
    const ptrdiff_t K = c->K, size = c->step * TILE, lanes = c->step * LANES;
    double *beta = work, *beta_e = work + lanes, *share = work + 2 * lanes, *terms = work + 4 * lanes;
    for (int half = 0; half < LANES; half += VL)
        for (int i = STEPS - 1; i >= 0; i--) {
            const ptrdiff_t at = i * LANES + half;
            const vi last = t->plain ? (vi){0} : flagged(t->flags + at, LAST);
            const vi active = t->plain ? ~(vi){0} : flagged(t->flags + at, ACTIVE);
            vd level = vset(NO_EXPONENT), total = vset(0.0);
            for (ptrdiff_t j = 0; j < K; j++) {
                vd sum, top;
                wide_step(&c->out_of, j, w + half, w + lanes + half, LANES, terms + half, &sum, &top);
                sum = vselect(last, vset(1.0), sum);
                top = vselect(last, vset(0.0), top);
                vstore(beta + j * LANES + half, sum);
                vstore(beta_e + j * LANES + half, top);
                level = vmax(level, top + vload(alpha + size + j * TILE + at));
            }
            for (ptrdiff_t j = 0; j < K; j++) {
                const vd away = vload(alpha + size + j * TILE + at) + vload(beta_e + j * LANES + half) - level;
                const vd part = zero_below(away, vset(-900.0), vload(alpha + j * TILE + at) * power_of_two(away));
                vstore(share + j * LANES + half, part);
                total = vfma(part, vload(beta + j * LANES + half), total);
            }
            const vd factor = vselect(active, vload(weight + at) / total, vset(0.0));
            for (ptrdiff_t j = 0; j < K; j++) {
                const vd part = vload(share + j * LANES + half) * factor, sum = vload(beta + j * LANES + half);
                vstore(gamma + j * TILE + at, part * sum);
                if (xi) {
                    const vd of_links = vselect(last, vset(0.0), part);
                    for (ptrdiff_t q = c->out_of.at[j]; q < c->out_of.at[j + 1]; q++) {
                        double *target = xi + (j * c->step + c->out_of.state[q]) * LANES + half;
                        vstore(target, vfma(vload(terms + q * LANES + half), of_links, vload(target)));
                    }
                }
            }
            for (ptrdiff_t j = 0; j < K; j++) {
                double *wj = w + j * LANES + half;
                vd m, x;
                wide_product(vload(beta + j * LANES + half), vload(beta_e + j * LANES + half), vload(b + j * TILE + at),
                             vload(b + size + j * TILE + at), &m, &x);
                vstore(wj, vselect(active, m, vload(wj)));
                vstore(wj + lanes, vselect(active, x, vload(wj + lanes)));
            }
        }
}

/* Groups of 8 lanes ------------------------------------------------------------------------------------------------ */

/* Rows of the tile that begins `first` steps (negative: before) from `row[q]`, for lanes that have `have[q]` rows on
 * that side; others, and steps beyond, are not ACTIVE. begin: lanes for which the step is their first (or last). */
static ALWAYS_INLINE void warm_tile(const ptrdiff_t *row, const ptrdiff_t *have, ptrdiff_t from, const int backward,
                                    tile_rows *t) {
    t->plain = 0;
    for (int i = 0; i < STEPS; i++)
        for (int q = 0; q < LANES; q++) {
            const int s = i * LANES + q;
            const ptrdiff_t away = from + i; /* forward: -W .. -1, backward: 0 .. W - 1 */
            const ptrdiff_t depth = backward ? away + 1 : -away;
            const int there = depth <= have[q];
            t->row[s] = there ? row[q] + away : row[q];
            t->flags[s] = there ? ACTIVE | (depth == have[q] ? FIRST | LAST : 0) : 0;
        }
}

typedef struct {
    double *x, *z, *y, *b, *top, *alpha, *state, *start, *steps, *weight, *gamma, *xs, *first, *xi, *sums;
    tile_rows *rows;
} workspace;

/* Divides `memory`, if it is not NULL, and returns how many doubles are needed. tiles: the most that a group has, 1 if
 * only scores are wanted. */
static inline ptrdiff_t hmm_layout(const int kind, ptrdiff_t d, ptrdiff_t K, int wide, ptrdiff_t tiles, int posterior,
                                   int transitions, int moments, double *memory, workspace *w) {
    const ptrdiff_t step = state_step(K), parts = wide ? 2 : 1; /* of each number */
    double *at = memory ? aligned(memory) : 0;
    ptrdiff_t used = 8;
#define PART(name, size)                                                                                               \
    do {                                                                                                               \
        const ptrdiff_t doubles = ((size) + 7) & ~(ptrdiff_t)7;                                                        \
        if (at) w->name = at + used - 8;                                                                               \
        used += doubles;                                                                                               \
    } while (0)
    const ptrdiff_t block = posterior ? BLOCK_TILES : 0;
    PART(x, d * TILE);
    PART(z, d * TILE);
    PART(y, VMAX(d * TILE, wide ? (4 * step + K * K) * LANES : step * LANES));
    PART(b, parts * tiles * step * TILE);
    PART(alpha, parts * tiles * step * TILE);
    PART(top, TILE);
    PART(state, parts * step * LANES);
    PART(start, parts * step * LANES);
    PART(steps, TILE);
    PART(weight, TILE);
    PART(gamma, VMAX(block, 1) * step * TILE);
    PART(xs, moments ? block * d * TILE : 0);
    PART(first, step * LANES);
    PART(xi, transitions ? step * step * LANES : 0);
    PART(sums, moments ? K * sums_size(kind, d, K) + BLOCK_TILES * TILE * 4 : 0);
    if (at) w->rows = (tile_rows *)(at + used - 8);
    used += (tiles * (ptrdiff_t)sizeof(tile_rows) + 7) / 8;
#undef PART
    return used + 8;
}

static ALWAYS_INLINE void copy_lane(const double *from, ptrdiff_t q, ptrdiff_t K, double *to) {
    for (ptrdiff_t k = 0; k < K; k++) to[k] = from[k * LANES + q];
}

/* The state of a lane, adding up to 1: to (K,), or, if wide, (2 K,), mantissas and exponents; sum and level: of what it
 * was before, if wide. */
static ALWAYS_INLINE void copy_state(const chain *c, const double *from, ptrdiff_t stride, double *to, double *sum,
                                     double *level) {
    const ptrdiff_t K = c->K;
    if (!c->wide) {
        for (ptrdiff_t k = 0; k < K; k++) to[k] = from[k * stride];
        *sum = 1.0;
        *level = 0.0;
        return;
    }
    const double *exponents = from + c->step * stride;
    *sum = wide_sum(K, from, exponents, stride, level);
    for (ptrdiff_t k = 0; k < K; k++) {
        to[k] = from[k * stride] / *sum;
        to[K + k] = from[k * stride] > 0.0 ? exponents[k * stride] - *level : 0.0;
    }
}

/* For one group: lane -> the first (or last) row of its first (last) piece, and the rows of a warm-up before (after)
 * it. Returns whether any lane has some. */
static ALWAYS_INLINE int warm_rows(const schedule *S, ptrdiff_t lane, ptrdiff_t W, const int backward, ptrdiff_t *row,
                                   ptrdiff_t *have, int *whole) {
    int any = 0;
    for (int q = 0; q < LANES; q++) {
        const ptrdiff_t first = S->lanes[lane + q], stop = S->lanes[lane + q + 1];
        row[q] = have[q] = 0;
        whole[q] = 1;
        if (first == stop) continue;
        const ptrdiff_t p = backward ? stop - 1 : first;
        const ptrdiff_t around = backward ? S->after[p] : S->before[p];
        row[q] = backward ? S->row[p] + S->length[p] : S->row[p];
        have[q] = VMIN(W, around);
        if (have[q] == 0) row[q] = S->row[p];
        whole[q] = have[q] == around;
        any |= have[q] > 0;
    }
    return any;
}

/* x (step, LANES) <- p for the lanes that are `whole`, and else where warm-ups start; wide, if the chain is. */
static ALWAYS_INLINE void set_state(const chain *c, const double *p, const int *whole, int backward, double *x) {
    double total = 0.0;
    for (ptrdiff_t k = 0; k < c->K; k++) total += anywhere(k, backward);
    for (ptrdiff_t k = 0; k < c->step; k++)
        for (int q = 0; q < LANES; q++)
            x[k * LANES + q] = whole[q] ? p[k] : k < c->K ? anywhere(k, backward) / total : 0.0;
    for (ptrdiff_t i = 0; i < c->step * LANES && c->wide; i += VL) {
        vd m, e;
        split(vload(x + i), &m, &e);
        vstore(x + i, m);
        vstore(x + c->step * LANES + i, e);
    }
}

/* b, top <- the emissions of a tile, in what numbers the chain wants. */
static ALWAYS_INLINE void emit_tile(const emission *e, const chain *c, const tile_rows *t, double *b, int *bad,
                                    const workspace *w) {
    emit_any(e, t->row, c->wide, w->x, w->z, w->y, b, w->top);
    if (c->wide)
        wide_emissions(c, t, b, w->top, bad);
    else if (!t->plain)
        blank(t, c->K, b, w->top);
}

/* state <- a at the step before the first of each lane that does not begin with a sequence. */
static ALWAYS_INLINE void warm_up_forward(const emission *e, const chain *c, const schedule *S, ptrdiff_t lane,
                                          ptrdiff_t W, const workspace *w) {
    ptrdiff_t row[LANES], have[LANES];
    int whole[LANES], none[LANES] = {0}, unused[LANES] = {0};
    set_state(c, c->start, none, 0, w->state);
    if (!warm_rows(S, lane, W, 0, row, have, whole)) return;
    set_state(c, c->start, whole, 0, w->start);
    for (ptrdiff_t from = -W; from < 0; from += STEPS) {
        warm_tile(row, have, from, 0, w->rows);
        emit_tile(e, c, w->rows, w->b, unused, w);
        if (c->wide)
            wide_forward(c, w->state, w->b, w->alpha, w->rows, w->start);
        else
            forward_any(c, w->state, w->b, w->alpha, w->rows, w->start, w->top, w->steps, w->y);
    }
}

/* state <- w at the step after the last of each lane that does not end with a sequence. scratch: 5 tiles. */
static ALWAYS_INLINE void warm_up_backward(const emission *e, const chain *c, const schedule *S, ptrdiff_t lane,
                                           ptrdiff_t W, tile_rows *rows, double *scratch, const workspace *w) {
    const ptrdiff_t size = c->step * TILE;
    double *b = scratch, *alpha = scratch + 2 * size, *gamma = scratch + 4 * size; /* only w is wanted: alpha is any */
    ptrdiff_t row[LANES], have[LANES];
    int whole[LANES], none[LANES] = {0}, unused[LANES] = {0};
    set_state(c, c->start, none, 1, w->state);
    for (ptrdiff_t i = c->K * TILE; i < size; i++) b[i] = 0.0;
    if (!warm_rows(S, lane, W, 1, row, have, whole)) return;
    for (ptrdiff_t from = W - STEPS; from >= 0; from -= STEPS) {
        warm_tile(row, have, from, 1, rows);
        emit_tile(e, c, rows, b, unused, w);
        if (c->wide)
            wide_backward(c, w->state, b, alpha, gamma, rows, w->weight, 0, w->y);
        else
            backward_any(c, w->state, b, alpha, gamma, rows, w->weight, 0, w->y);
    }
}

/* Logarithms of a tile that is not plain, and what belongs to pieces that end in it: logs (pieces, 2), end (lanes, K).
 */
static __attribute__((noinline)) void close_pieces(const tile_rows *t, const double *step_logs, const double *alpha,
                                                   ptrdiff_t K, ptrdiff_t lane, long_sum *sum, double *logs,
                                                   double *end) {
    for (int q = 0; q < LANES; q++)
        for (int i = 0; i < STEPS; i++) {
            const int s = i * LANES + q;
            if (!(t->flags[s] & ACTIVE)) continue;
            add_one(sum->high + q, sum->low + q, step_logs[s]);
            if (!(t->flags[s] & PIECE_END)) continue;
            logs[2 * t->piece[s]] = sum->high[q];
            logs[2 * t->piece[s] + 1] = sum->low[q];
            sum->high[q] = sum->low[q] = 0.0;
            if (end)
                for (ptrdiff_t k = 0; k < K; k++) end[(lane + q) * K + k] = alpha[k * TILE + s];
        }
}

/* The same in wide numbers: the logarithm of all from the start of the piece, of which `before` is the sum that it
 * began with; what emissions were divided by is in top. */
static __attribute__((noinline)) void close_wide(const chain *c, const tile_rows *t, const double *alpha,
                                                 ptrdiff_t lane, const double *top, double (*before)[2], int *bad,
                                                 long_sum *tops, double *logs, double *end) {
    for (int s = 0; s < TILE; s++) {
        const int q = s % LANES;
        const ptrdiff_t p = t->piece[s];
        double sum, level;
        if (!(t->flags[s] & ACTIVE)) continue;
        add_one(tops->high + q, tops->low + q, top[s]);
        if (!(t->flags[s] & PIECE_END)) continue;
        copy_state(c, alpha + s, TILE, end + (lane + q) * 2 * c->K, &sum, &level);
        logs[2 * p] = tops->high[q];
        logs[2 * p + 1] = tops->low[q];
        if (bad[q])
            logs[2 * p] = NAN;
        else if (sum == 0.0)
            logs[2 * p] = -INFINITY;
        else
            wide_log(sum / before[q][0], level - before[q][1], logs + 2 * p);
        before[q][0] = 1.0; /* what follows is another sequence */
        before[q][1] = tops->high[q] = tops->low[q] = 0.0;
        bad[q] = 0;
    }
}

/* Forward through one group; `keep`: b, alpha and rows of all tiles. Returns how many there are. */
static ALWAYS_INLINE ptrdiff_t forward_group(const emission *e, const chain *c, const schedule *S, ptrdiff_t lane,
                                             ptrdiff_t W, const int keep, double *logs, double *warm, double *end,
                                             const workspace *w) {
    const ptrdiff_t parts = c->wide ? 2 : 1, size = parts * c->step * TILE;
    double before[LANES][2];
    int all[LANES], bad[LANES] = {0};
    cursor cursors;
    long_sum sum = {{0}, {0}};
    warm_up_forward(e, c, S, lane, W, w);
    for (int q = 0; q < LANES; q++) {
        copy_state(c, w->state + q, LANES, warm + (lane + q) * parts * c->K, &before[q][0], &before[q][1]);
        all[q] = 1;
        const ptrdiff_t first = S->lanes[lane + q];
        if (first < S->lanes[lane + q + 1] && S->kind[first] & BEGINS) {
            before[q][0] = 1.0;
            before[q][1] = 0.0;
        }
    }
    open_lanes(S, lane, &cursors);
    set_state(c, c->start, all, 0, w->start);
    ptrdiff_t tiles = 0;
    for (;; tiles++) {
        const ptrdiff_t at = keep ? tiles : 0;
        tile_rows *t = w->rows + at;
        double *b = w->b + at * size, *alpha = w->alpha + at * size;
        if (!next_tile(S, &cursors, t)) return tiles;
        emit_tile(e, c, t, b, bad, w);
        if (c->wide) {
            wide_forward(c, w->state, b, alpha, t, w->start);
            if (t->plain)
                for (int i = 0; i < TILE; i += VL) add_long(&sum, i % LANES, vload(w->top + i));
            else
                close_wide(c, t, alpha, lane, w->top, before, bad, &sum, logs, end);
        } else if (t->plain)
            forward_plain(c, w->state, b, alpha, w->top, &sum, w->y);
        else {
            forward_any(c, w->state, b, alpha, t, w->start, w->top, w->steps, w->y);
            close_pieces(t, w->steps, alpha, c->K, lane, &sum, logs, end);
        }
    }
}

static void clear_padding(const chain *c, ptrdiff_t tiles, const workspace *w) {
    if (c->wide) return; /* only its links count */
    for (ptrdiff_t t = 0; t < tiles; t++)
        for (ptrdiff_t k = c->K; k < c->step; k++)
            for (int s = 0; s < TILE; s++) w->b[(t * c->step + k) * TILE + s] = 0.0;
}

/* Log-likelihoods of all pieces of groups first..stop-1: logs (pieces, 2), high and low part. warm, end: (lanes, K),
 * what a_t was after the warm-up and at the end of each lane; (lanes, 2 K) if the chain is wide. */
static void hmm_score(const emission *e, const chain *c, const schedule *S, ptrdiff_t first, ptrdiff_t stop,
                      ptrdiff_t W, double *logs, double *warm, double *end, double *memory) {
    workspace w = {0};
    hmm_layout(e->kind, e->columns, c->K, c->wide, 1, 0, 0, 0, memory, &w);
    clear_padding(c, 1, &w);
    for (ptrdiff_t group = first; group < stop; group++)
        forward_group(e, c, S, group * LANES, W, 0, logs, warm, end, &w);
}

/* row[lane][q] <- c[q][lane]: the inverse of transpose_in. */
static ALWAYS_INLINE void transpose_out(const vd c[4], v4d row[VL]) {
#if VL == 8
    vd r[4], t[4];
    for (int i = 0; i < 2; i++) {
        t[i] = __builtin_shufflevector(c[i], c[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        t[i + 2] = __builtin_shufflevector(c[i], c[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; i += 2) {
        r[i] = __builtin_shufflevector(t[i], t[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        r[i + 1] = __builtin_shufflevector(t[i], t[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int i = 0; i < 4; i++) {
        row[i] = __builtin_shufflevector(r[i], r[i], 0, 1, 2, 3);
        row[i + 4] = __builtin_shufflevector(r[i], r[i], 4, 5, 6, 7);
    }
#elif VL == 4
    vd t[4];
    for (int i = 0; i < 2; i++) {
        t[i] = __builtin_shufflevector(c[i], c[i + 2], 0, 1, 4, 5);
        t[i + 2] = __builtin_shufflevector(c[i], c[i + 2], 2, 3, 6, 7);
    }
    for (int i = 0; i < 4; i += 2) {
        row[i] = __builtin_shufflevector(t[i], t[i + 1], 0, 4, 2, 6);
        row[i + 1] = __builtin_shufflevector(t[i], t[i + 1], 1, 5, 3, 7);
    }
#else
    for (int i = 0; i < VL; i++) row[i] = (v4d){c[0][i], c[1][i], c[2][i], c[3][i]};
#endif
}

/* out[row, k] <- gamma (K, TILE). */
static __attribute__((noinline)) void store_posterior(const double *gamma, const tile_rows *t, ptrdiff_t K,
                                                      double *out) {
    if (t->plain && K >= 4) {
        for (ptrdiff_t s = 0; s < TILE; s += VL)
            for (ptrdiff_t k = 0; k < K; k += 4) {
                if (k + 4 > K) k = K - 4;
                vd c[4];
                v4d row[VL];
                EACH(q, 4) c[q] = vload(gamma + (k + q) * TILE + s);
                transpose_out(c, row);
                EACH(q, VL) *(v4d_any *)(out + t->row[s + q] * K + k) = row[q];
            }
        return;
    }
    for (int s = 0; s < TILE; s++)
        if (t->plain || t->flags[s] & ACTIVE)
            for (ptrdiff_t k = 0; k < K; k++) out[t->row[s] * K + k] = gamma[k * TILE + s];
}

/* Moments of a block of tiles: r (tiles, step, TILE). */
static ALWAYS_INLINE void add_moments_kind(const int kind, const double *x, ptrdiff_t d, ptrdiff_t K, const double *r,
                                           ptrdiff_t step, const double *about, double *rz, double *sums) {
    const ptrdiff_t size = sums_size(kind, d, K), p = row_step(d);
    for (ptrdiff_t k = 0; k < K; k++)
        if (kind == FULL)
            add_full(x, d, r + k * TILE, step * TILE, about + k * p, rz, sums + k * size);
        else
            for (ptrdiff_t t = 0; t < BLOCK_TILES; t += COLUMN_TILES)
                add_columns(kind, x + t * d * TILE, d, r + (t * step + k) * TILE, step * TILE, about + k * p,
                            sums + k * size);
}

static __attribute__((noinline)) void add_moments(const int kind, const double *x, ptrdiff_t d, ptrdiff_t K,
                                                  const double *r, ptrdiff_t step, const double *about, double *rz,
                                                  double *sums) {
#define CALL(kind) add_moments_kind(kind, x, d, K, r, step, about, rz, sums)
    switch (kind) {
    case FULL: CALL(FULL); return;
    case TIED: CALL(TIED); return;
    case DIAG: CALL(DIAG); return;
    case DIAG_MISSING: CALL(DIAG_MISSING); return;
    case SPHERICAL: CALL(SPHERICAL); return;
    }
#undef CALL
}

static __attribute__((noinline)) void gather_rows(const emission *e, const ptrdiff_t *rows, double *x) {
    if (e->single)
        gather(e->x, 1, e->row_bytes, e->column_stride, rows, e->m.d, x);
    else
        gather(e->x, 0, e->row_bytes, e->column_stride, rows, e->m.d, x);
}

/* Which results are wanted; NULL for those that are not. */
typedef struct {
    double *logs, *warm_a, *end_a, *warm_w, *end_w; /* of pieces (2) and of lanes (K), see hmm_score */
    double *posterior;                              /* (n, K) */
    double *start, *transitions;                    /* (K,), (K, K): without the factor A, unless the chain is wide */
    const double *about;                            /* (K, row_step(d)): then the moments, as e_step in mixture.h */
    double *weight, *first, *second, *count;
} results;

/* Forward and backward through groups first..stop-1, of at most `tiles` tiles. */
static void hmm_e_step(const emission *e, const chain *c, const schedule *S, ptrdiff_t first, ptrdiff_t stop,
                       ptrdiff_t W, ptrdiff_t tiles, const results *out, double *memory) {
    const ptrdiff_t K = c->K, step = c->step, d = e->m.d, size = step * TILE, parts = c->wide ? 2 : 1;
    const int transitions = out->transitions != 0, moments = out->about != 0;
    workspace w = {0};
    hmm_layout(e->kind, e->columns, K, c->wide, tiles, 1, transitions, moments, memory, &w);
    clear_padding(c, tiles, &w);
    for (ptrdiff_t i = 0; i < BLOCK_TILES * size; i++) w.gamma[i] = 1.0;
    for (int s = 0; s < TILE; s++) w.weight[s] = 1.0;
    double *rz = w.sums, *sums = w.sums + BLOCK_TILES * TILE * 4;
    if (moments) memset(sums, 0, (size_t)(K * sums_size(e->kind, d, K)) * sizeof(double));
    if (transitions) {
        memset(w.xi, 0, (size_t)(step * step * LANES) * sizeof(double));
        memset(w.first, 0, (size_t)(step * LANES) * sizeof(double));
    }
    for (ptrdiff_t lane = first * LANES; lane < stop * LANES; lane += LANES) {
        const ptrdiff_t here = forward_group(e, c, S, lane, W, 1, out->logs, out->warm_a, out->end_a, &w);
        tile_rows warm_tile_rows;
        double sum, level;
        for (int s = 0; s < TILE; s++) w.weight[s] = 1.0;
        warm_up_backward(e, c, S, lane, W, &warm_tile_rows, w.gamma, &w);
        for (int q = 0; q < LANES; q++)
            copy_state(c, w.state + q, LANES, out->warm_w + (lane + q) * parts * K, &sum, &level);
        for (ptrdiff_t block = (here - 1) / BLOCK_TILES * BLOCK_TILES; block >= 0; block -= BLOCK_TILES) {
            const ptrdiff_t in_block = VMIN(BLOCK_TILES, here - block);
            for (ptrdiff_t i = in_block; i < BLOCK_TILES && moments; i++) {
                memset(w.gamma + i * size, 0, (size_t)size * sizeof(double));
                memset(w.xs + i * d * TILE, 0, (size_t)(d * TILE) * sizeof(double));
            }
            for (ptrdiff_t i = in_block - 1; i >= 0; i--) {
                tile_rows *t = w.rows + block + i;
                double *b = w.b + (block + i) * parts * size, *alpha = w.alpha + (block + i) * parts * size;
                double *gamma = w.gamma + i * size;
                if (S->weight)
                    for (int s = 0; s < TILE; s++)
                        w.weight[s] = t->plain               ? S->weight[t->piece[s % LANES]]
                                      : t->flags[s] & ACTIVE ? S->weight[t->piece[s]]
                                                             : 0.0;
                else if (!t->plain)
                    for (int s = 0; s < TILE; s++) w.weight[s] = t->flags[s] & ACTIVE ? 1.0 : 0.0;
                if (c->wide)
                    wide_backward(c, w.state, b, alpha, gamma, t, w.weight, transitions ? w.xi : 0, w.y);
                else if (t->plain)
                    backward_plain(c, w.state, b, alpha, gamma, w.weight, transitions, w.y);
                else
                    backward_any(c, w.state, b, alpha, gamma, t, w.weight, transitions, w.y);
                if (!t->plain) {
                    for (int s = 0; s < TILE; s++) {
                        if (transitions && t->flags[s] & FIRST)
                            for (ptrdiff_t k = 0; k < K; k++) w.first[k] += gamma[k * TILE + s];
                        if (!S->weight) w.weight[s] = 1.0;
                    }
                }
                if (out->posterior) store_posterior(gamma, t, K, out->posterior);
                if (moments) {
                    gather_rows(e, t->row, w.xs + i * d * TILE);
                    for (int q = 0; q < TILE && !t->plain; q++)
                        for (ptrdiff_t j = 0; j < d && !(t->flags[q] & ACTIVE); j++) w.xs[(i * d + j) * TILE + q] = 0.0;
                }
            }
            if (transitions && !c->wide)
                add_transitions(step, w.alpha + block * size, w.b + block * size, in_block, w.xi);
            if (moments) add_moments(e->kind, w.xs, d, K, w.gamma, step, out->about, rz, sums);
        }
        for (int q = 0; q < LANES; q++)
            copy_state(c, w.state + q, LANES, out->end_w + (lane + q) * parts * K, &sum, &level);
        if (transitions) /* v overwrote b: its padding is 0 * share, which may be NaN */
            clear_padding(c, tiles, &w);
    }
    if (transitions)
        for (ptrdiff_t i = 0; i < K; i++) {
            out->start[i] = w.first[i];
            for (ptrdiff_t j = 0; j < K; j++) out->transitions[i * K + j] = sum_lanes(w.xi + (i * step + j) * LANES);
        }
    if (moments) {
#define CALL(kind) store_sums(kind, d, K, sums, out->weight, out->first, out->second, out->count)
        switch (e->kind) {
        case FULL: CALL(FULL); break;
        case TIED: CALL(TIED); break;
        case DIAG: CALL(DIAG); break;
        case DIAG_MISSING: CALL(DIAG_MISSING); break;
        case SPHERICAL: CALL(SPHERICAL); break;
        }
#undef CALL
    }
}

/* Viterbi in lanes --------------------------------------------------------------------------------------------------
 *
 *   delta_t(j) = l_t(j) + max_i (delta_{t-1}(i) + log A_ij), with the arguments of the maxima in the smallest integers
 *
 * Each lane goes on for a look-ahead after its end, traces back from the best state there, and so knows where its own
 * part of the path ends without waiting for the lanes behind it. */

/* a > b ? x : y, lane by lane. */
static ALWAYS_INLINE vd pick_greater(vd a, vd b, vd x, vd y) {
#if VL == 8
    return (vd)_mm512_mask_mov_pd((__m512d)y, _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ), (__m512d)x);
#elif VL == 4
    return (vd)_mm256_blendv_pd((__m256d)y, (__m256d)x, _mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_GT_OQ));
#else
    return vselect((vi)(a > b), x, y);
#endif
}

/* best[v], arg[v] <- max and its argument over i of d[i] + M[i, j + v]. */
static ALWAYS_INLINE void maxima(ptrdiff_t K, const double *d, const double *M, ptrdiff_t j, const int W, vd *best,
                                 vd *arg) {
    const vd x0 = vload(d);
    EACH(v, W) {
        best[v] = x0 + vset(M[j + v]);
        arg[v] = vset(0.0);
    }
    for (ptrdiff_t i = 1; i < K; i++) {
        const vd x = in_register(vload(d + i * LANES)), number = in_register(vset((double)i));
        EACH(v, W) {
            const vd candidate = x + vset(M[i * K + j + v]);
            arg[v] = pick_greater(candidate, best[v], number, arg[v]);
            best[v] = vmax(candidate, best[v]);
        }
    }
}

static ALWAYS_INLINE void store_back(vd arg, ptrdiff_t at, const int wide, void *back) {
    for (int q = 0; q < VL; q++) {
        if (wide)
            ((uint16_t *)back)[at + q] = (uint16_t)arg[q];
        else
            ((uint8_t *)back)[at + q] = (uint8_t)arg[q];
    }
}

#if VL == 8
static ALWAYS_INLINE void store_bytes(vd arg, ptrdiff_t at, void *back) {
    _mm_storel_epi64((__m128i *)((uint8_t *)back + at),
                     _mm512_cvtepi32_epi8(_mm512_castsi256_si512(_mm512_cvttpd_epi32((__m512d)arg))));
}
#else
static ALWAYS_INLINE void store_bytes(vd arg, ptrdiff_t at, void *back) { store_back(arg, at, 0, back); }
#endif

/* W states from j on of one step; delta and the new values: (K, LANES). */
static ALWAYS_INLINE void viterbi_block(ptrdiff_t K, const double *delta, const double *logA, const double *l,
                                        ptrdiff_t j, const int W, ptrdiff_t half, double *out, const int wide,
                                        void *back) {
    vd best[8], arg[8];
    maxima(K, delta + half, logA, j, W, best, arg);
    EACH(v, W) {
        vstore(out + (j + v) * LANES + half, best[v] + vload(l + (j + v) * TILE + half));
        if (wide)
            store_back(arg[v], (j + v) * LANES + half, 1, back);
        else
            store_bytes(arg[v], (j + v) * LANES + half, back);
    }
}

/* One step in VL lanes: `to` (K, LANES) from `from`; back (K, LANES). */
static ALWAYS_INLINE void viterbi_step(const int small, const int wide, ptrdiff_t K, const double *logA,
                                       const double *from, const double *l, int half, double *to, void *back) {
    if (small) {
        viterbi_block(small, from, logA, l, 0, small, half, to, wide, back);
        return;
    }
    ptrdiff_t j = 0;
    for (; j + 4 <= K; j += 4) viterbi_block(K, from, logA, l, j, 4, half, to, wide, back);
    for (; j < K; j++) viterbi_block(K, from, logA, l, j, 1, half, to, wide, back);
}

/* One plain tile: delta (K, LANES) before and after it, with its maximum 0, and what was subtracted in `sum`; back
 * (STEPS, K, LANES). other: work space. */
static ALWAYS_INLINE void viterbi_tile(const int small, const int wide, ptrdiff_t K, const double *logA, double *delta,
                                       const double *l, double *other, long_sum *sum, void *back) {
    if (small) K = small;
    const ptrdiff_t record = K * LANES * (wide ? 2 : 1);
    for (int half = 0; half < LANES; half += VL) {
        for (int i = 0; i < STEPS; i += 2) {
            char *bi = (char *)back + i * record;
            viterbi_step(small, wide, K, logA, delta, l + i * LANES, half, other, bi);
            viterbi_step(small, wide, K, logA, other, l + (i + 1) * LANES, half, delta, bi + record);
        }
        vd top = vload(delta + half);
        for (ptrdiff_t j = 1; j < K; j++) top = vmax(top, vload(delta + j * LANES + half));
        const vd shift = lse_shift(top);
        for (ptrdiff_t j = 0; j < K; j++) vstore(delta + j * LANES + half, vload(delta + j * LANES + half) - shift);
        add_long(sum, half, top);
    }
}

/* Step i of a tile that is not plain: what was subtracted in step_logs. `start` (K, LANES) in FIRST steps; lanes that
 * are not ACTIVE stay as they are. */
static ALWAYS_INLINE void viterbi_flagged(const int small, const int wide, ptrdiff_t K, const double *logA,
                                          const double *start, double *delta, const double *l, double *other,
                                          const tile_rows *t, int i, double *step_logs, void *back) {
    if (small) K = small;
    for (int half = 0; half < LANES; half += VL) {
        const vi first = flagged(t->flags + i * LANES + half, FIRST);
        const vi active = flagged(t->flags + i * LANES + half, ACTIVE);
        vd top = vset(-INFINITY);
        viterbi_step(small, wide, K, logA, delta, l + i * LANES, half, other, back);
        for (ptrdiff_t j = 0; j < K; j++) {
            const vd begun = vload(start + j * LANES + half) + vload(l + i * LANES + j * TILE + half);
            const vd value = vselect(first, begun, vload(other + j * LANES + half));
            vstore(other + j * LANES + half, value);
            top = vmax(top, value);
        }
        const vd shift = lse_shift(top);
        for (ptrdiff_t j = 0; j < K; j++) {
            const vd value = vload(other + j * LANES + half) - shift;
            vstore(delta + j * LANES + half, vselect(active, value, vload(delta + j * LANES + half)));
        }
        for (int q = half; q < half + VL; q++)
            for (ptrdiff_t j = 0; j < K && !(t->flags[i * LANES + q] & ACTIVE); j++)
                if (wide)
                    ((uint16_t *)back)[j * LANES + q] = (uint16_t)j;
                else
                    ((uint8_t *)back)[j * LANES + q] = (uint8_t)j;
        vstore(step_logs + half, top); /* -inf: no state is possible */
    }
}

typedef struct {
    const double *start, *logA; /* (K,), (K, K) logarithms */
    ptrdiff_t K;
} log_chain;

#define BY_FEW_STATES(call)                                                                                            \
    switch (c->K) {                                                                                                    \
    case 2: call(2, 0); return;                                                                                        \
    case 3: call(3, 0); return;                                                                                        \
    case 4: call(4, 0); return;                                                                                        \
    case 5: call(5, 0); return;                                                                                        \
    case 6: call(6, 0); return;                                                                                        \
    case 7: call(7, 0); return;                                                                                        \
    case 8: call(8, 0); return;                                                                                        \
    }                                                                                                                  \
    if (c->K <= 256)                                                                                                   \
        call(0, 0);                                                                                                    \
    else                                                                                                               \
        call(0, 1)

static __attribute__((noinline)) void viterbi_plain(const log_chain *c, double *delta, const double *l, double *other,
                                                    long_sum *sum, void *back) {
#define CALL(small, wide) viterbi_tile(small, wide, c->K, c->logA, delta, l, other, sum, back)
    BY_FEW_STATES(CALL);
#undef CALL
}

static __attribute__((noinline)) void viterbi_any(const log_chain *c, const double *start, double *delta,
                                                  const double *l, double *other, const tile_rows *t, int i,
                                                  double *step_logs, void *back) {
#define CALL(small, wide) viterbi_flagged(small, wide, c->K, c->logA, start, delta, l, other, t, i, step_logs, back)
    BY_FEW_STATES(CALL);
#undef CALL
}

static ALWAYS_INLINE ptrdiff_t back_at(const void *back, ptrdiff_t at, int wide) {
    return wide ? ((const uint16_t *)back)[at] : ((const uint8_t *)back)[at];
}

/* Doubles of work space of hmm_viterbi; tiles: the most that a group has, without warm-up and look-ahead. */
static inline ptrdiff_t viterbi_work_size(ptrdiff_t d, ptrdiff_t K, ptrdiff_t tiles, ptrdiff_t W) {
    const ptrdiff_t all = tiles + (W + STEPS - 1) / STEPS;
    return 3 * d * TILE + K * TILE + 3 * K * LANES + 2 * TILE + all * K * STEPS * LANES * (K <= 256 ? 1 : 2) / 8 +
           all * (ptrdiff_t)((sizeof(tile_rows) + 7) / 8) + 64;
}

static ALWAYS_INLINE int best_state(const double *delta, ptrdiff_t q, ptrdiff_t K) {
    ptrdiff_t best = 0;
    for (ptrdiff_t k = 1; k < K; k++)
        if (delta[k * LANES + q] > delta[best * LANES + q]) best = k;
    return (int)best;
}

/* The most probable paths of all pieces of groups first..stop-1: path (n,); logs (pieces, 2): log p of path and data,
 * high and low part. Of lanes: warm and end (K), delta after the warm-up and at the end; entry, the state that the path
 * comes from, and exit, its last state: where a sequence goes on, they must agree. Returns whether a log-likelihood was
 * not finite. */
static int hmm_viterbi(const emission *e, const log_chain *c, const schedule *S, ptrdiff_t first, ptrdiff_t stop,
                       ptrdiff_t W, ptrdiff_t tiles, double *logs, ptrdiff_t *path, double *warm, double *end,
                       ptrdiff_t *entry, ptrdiff_t *exits, double *memory) {
    const ptrdiff_t K = c->K, d = e->columns, W4 = (W + STEPS - 1) / STEPS * STEPS, all = tiles + W4 / STEPS;
    const int wide = K > 256;
    const ptrdiff_t record = K * STEPS * LANES * (wide ? 2 : 1);
    double *x = aligned(memory), *z = x + d * TILE, *y = z + d * TILE, *l = y + d * TILE, *delta = l + K * TILE;
    double *other = delta + K * LANES, *start = other + K * LANES, *top = start + K * LANES, *steps = top + TILE;
    tile_rows *rows = (tile_rows *)(steps + TILE);
    char *back = (char *)(rows + all);
    ptrdiff_t row[LANES], have[LANES], state[LANES];
    int whole[LANES];
    vd bad = vset(0.0);
    for (ptrdiff_t lane = first * LANES; lane < stop * LANES; lane += LANES) {
        cursor cursors;
        long_sum sum = {{0}, {0}};
        for (ptrdiff_t k = 0; k < K * LANES; k++) delta[k] = anywhere(k / LANES, 0);
        if (warm_rows(S, lane, W, 0, row, have, whole)) {
            for (ptrdiff_t k = 0; k < K; k++)
                for (int q = 0; q < LANES; q++) start[k * LANES + q] = whole[q] ? c->start[k] : anywhere(k, 0);
            for (ptrdiff_t from = -W4; from < 0; from += STEPS) {
                warm_tile(row, have, from, 0, rows);
                emit_any(e, rows->row, 1, x, z, y, l, top);
                for (int i = 0; i < STEPS; i++) viterbi_any(c, start, delta, l, other, rows, i, steps, back);
            }
        }
        for (int q = 0; q < LANES; q++) copy_lane(delta, q, K, warm + (lane + q) * K);
        open_lanes(S, lane, &cursors);
        for (ptrdiff_t k = 0; k < K; k++)
            for (int q = 0; q < LANES; q++) start[k * LANES + q] = c->start[k];
        ptrdiff_t here = 0;
        for (; next_tile(S, &cursors, rows + here); here++) {
            tile_rows *t = rows + here;
            emit_any(e, t->row, 1, x, z, y, l, top);
            for (ptrdiff_t i = 0; i < K * TILE; i += VL) bad = vfma(vload(l + i), vset(0.0), bad);
            if (t->plain) {
                viterbi_plain(c, delta, l, other, &sum, back + here * record);
                continue;
            }
            for (int i = 0; i < STEPS; i++) {
                viterbi_any(c, start, delta, l, other, t, i, steps, back + here * record + i * record / STEPS);
                for (int q = 0; q < LANES; q++) {
                    const int s = i * LANES + q, flags = t->flags[s];
                    if (!(flags & ACTIVE)) continue;
                    add_one(sum.high + q, sum.low + q, steps[q]);
                    if (flags & PIECE_END) {
                        logs[2 * t->piece[s]] = sum.high[q];
                        logs[2 * t->piece[s] + 1] = sum.low[q];
                        sum.high[q] = sum.low[q] = 0.0;
                        copy_lane(delta, q, K, end + (lane + q) * K);
                    }
                    if (flags & LAST) t->flags[s] |= best_state(delta, q, K) << 8;
                }
            }
        }
        ptrdiff_t ahead = 0;
        if (warm_rows(S, lane, W, 1, row, have, whole))
            for (ptrdiff_t from = 0; from < W4; from += STEPS, ahead++) {
                tile_rows *t = rows + here + ahead;
                warm_tile(row, have, from, 1, t);
                for (int s = 0; s < TILE; s++) t->flags[s] &= ~(FIRST | LAST);
                emit_any(e, t->row, 1, x, z, y, l, top);
                for (int i = 0; i < STEPS; i++)
                    viterbi_any(c, start, delta, l, other, t, i, steps,
                                back + (here + ahead) * record + i * record / STEPS);
            }
        for (int q = 0; q < LANES; q++) {
            state[q] = best_state(delta, q, K);
            exits[lane + q] = entry[lane + q] = -1;
        }
        for (ptrdiff_t i = (here + ahead) * STEPS - 1; i >= 0; i--) {
            const tile_rows *t = rows + i / STEPS;
            const char *bi = back + i * record / STEPS;
            if (t->plain && !wide) { /* in the midst of all lanes' pieces */
                const uint8_t *from = (const uint8_t *)bi;
                EACH(q, LANES) {
                    ptrdiff_t next = from[state[q] * LANES + q];
                    path[t->row[i % STEPS * LANES + q]] = state[q];
                    __asm__("" : "+r"(next)); /* or GCC puts states into a vector and takes them out again */
                    state[q] = next;
                }
                continue;
            }
            for (int q = 0; q < LANES; q++) {
                const int s = (int)(i % STEPS) * LANES + q;
                if (i < here * STEPS) {
                    if (!t->plain && !(t->flags[s] & ACTIVE)) continue;
                    if (!t->plain && t->flags[s] & LAST) state[q] = t->flags[s] >> 8;
                    path[t->row[s]] = state[q];
                    if (exits[lane + q] < 0) exits[lane + q] = state[q];
                }
                state[q] = back_at(bi, state[q] * LANES + q, wide);
                if (i < here * STEPS) entry[lane + q] = state[q];
            }
        }
    }
    return any_lane(bad);
}

/* One sequence at a time ---------------------------------------------------------------------------------------------
 *
 * For sequences that lanes do not serve: short ones, and chains that forget too slowly to be cut. States run along the
 * vectors: rows of P = padded(K) numbers, padded with 0. */

typedef struct {
    ptrdiff_t K, P;
    const double *start, *A, *AT;        /* (P,), (K, P), (K, P) */
    const double *exponent, *exponent_T; /* WIDE: A = mantissa 2^exponent; start likewise */
    const double *start_exponent;
} row_chain;

/* b[s] (rows of P), top <- emissions of the TILE steps from `row` on, of which `steps` are there. */
static ALWAYS_INLINE void emit_rows(const emission *e, ptrdiff_t row, ptrdiff_t steps, int logs, ptrdiff_t P,
                                    double padding, double *b, double *top, double *work) {
    const ptrdiff_t K = e->m.K, d = e->columns;
    ptrdiff_t rows[TILE];
    double *x = work, *z = x + d * TILE, *y = z + d * TILE, *tile = y + d * TILE;
    for (ptrdiff_t s = 0; s < TILE; s++) rows[s] = row + VMIN(s, steps - 1);
    emit_any(e, rows, logs, x, z, y, tile, top);
    for (ptrdiff_t s = 0; s < steps; s++) {
        for (ptrdiff_t k = 0; k < K; k++) b[s * P + k] = tile[k * TILE + s];
        for (ptrdiff_t k = K; k < P; k++) b[s * P + k] = padding;
    }
}

/* out <- sum_i a[i] M[i] for rows M[i] of P; returns the sum of its elements after they were multiplied by b (NULL: 1)
 * and scale. */
static ALWAYS_INLINE double times_rows(ptrdiff_t K, ptrdiff_t P, const double *a, const double *M, const double *b,
                                       double scale, double *out) {
    vd sums[LANES / VL];
    for (int h = 0; h < LANES / VL; h++) sums[h] = vset(0.0);
    for (ptrdiff_t j = 0; j < P; j += LANES)
        EACH(h, LANES / VL) {
            const double *Mj = M + j + h * VL;
            vd acc[4];
            EACH(q, 4) acc[q] = vset(0.0);
            ptrdiff_t i = 0;
            for (; i + 4 <= K; i += 4)
                EACH(q, 4) acc[q] = vfma(vset(a[i + q]), vload(Mj + (i + q) * P), acc[q]);
            for (; i < K; i++) acc[0] = vfma(vset(a[i]), vload(Mj + i * P), acc[0]);
            vd y = (acc[0] + acc[1]) + (acc[2] + acc[3]);
            y *= b ? vload(b + j + h * VL) * vset(scale) : vset(scale);
            vstore(out + j + h * VL, y);
            sums[h] += y;
        }
    return hsum8(sums);
}

/* sum += log of each of the TILE values. */
static ALWAYS_INLINE void add_logs(const double *values, ptrdiff_t n, const double *top, double *high, double *low) {
    double logs[TILE];
    for (ptrdiff_t s = 0; s < TILE; s += VL) vstore(logs + s, vlog(vload(values + s)) + vload(top + s));
    for (ptrdiff_t s = 0; s < n; s++) add_one(high, low, logs[s]);
}

/* Where a block of a sequence joins its neighbours; NULL where it does not. Rows: P numbers and what they are still to
 * be multiplied with (a) or divided by (w); wide: P mantissas, P exponents, and in a the sum of the logarithms that
 * emissions were divided by (2). */
typedef struct {
    const double *a_in, *w_in; /* a of the step before, w of the step behind the block */
    double *a_out, *w_out;     /* a of its last, w of its first step */
} joints;

/* Doubles of work space of hmm_sequence; keep: not only its log-likelihood is wanted. */
static inline ptrdiff_t sequence_work_size(ptrdiff_t d, ptrdiff_t K, ptrdiff_t n, int keep, int wide) {
    const ptrdiff_t P = padded(K), rows = keep ? n + TILE : 2 * TILE;
    return (2 + 2 * wide) * rows * P + 3 * d * TILE + K * TILE + 3 * TILE + 6 * P + 64;
}

/* Forward and, if `posterior` or `transitions`, backward through the n steps from `row` on. filter: forward only, and
 * posterior <- logarithms of p(state | what came up to the step). logs (2): high and low part
 * of the log-likelihood, NaN if something is not finite or impossible, are added to, as are start (K,) and transitions
 * (K, P), without the factor A. posterior (n, K), times weight. */
static void hmm_sequence(const emission *e, const row_chain *c, ptrdiff_t row, ptrdiff_t n, double weight,
                         const joints *at_ends, double *logs, int filter, double *posterior, double *start,
                         double *transitions, double *memory) {
    const ptrdiff_t K = c->K, P = c->P;
    const int keep = !filter && (posterior || transitions);
    const ptrdiff_t rows = keep ? n + TILE : 2 * TILE;
    double *alpha = aligned(memory), *b = alpha + rows * P, *top = b + rows * P, *sums = top + TILE;
    double *w = sums + 2 * TILE, *beta = w + P, *gamma = beta + P, *work = gamma + P;
    double high = logs[0], low = logs[1], scale = at_ends->a_in ? at_ends->a_in[P] : 1.0;
    const double *previous = at_ends->a_in;
    for (ptrdiff_t s = 0; s < TILE; s++) sums[s] = 1.0;
    for (ptrdiff_t from = 0; from < n; from += TILE) {
        const ptrdiff_t here = VMIN(TILE, n - from);
        double *bt = keep ? b + from * P : b;
        emit_rows(e, row + from, here, 0, P, 0.0, bt, top, work);
        for (ptrdiff_t s = 0; s < here; s++) {
            double *at = alpha + (keep ? from + s : s) * P;
            if (!previous) {
                vd total[LANES / VL];
                for (int h = 0; h < LANES / VL; h++) total[h] = vset(0.0);
                for (ptrdiff_t j = 0; j < P; j += LANES)
                    for (int h = 0; h < LANES / VL; h++) {
                        const vd y = vload(c->start + j + h * VL) * vload(bt + j + h * VL);
                        vstore(at + j + h * VL, y);
                        total[h] += y;
                    }
                sums[s] = hsum8(total) >= WEAK ? hsum8(total) : NAN;
            } else
                sums[s] = times_rows(K, P, previous, c->A, bt + s * P, scale, at);
            scale = 1.0 / sums[s];
            previous = at;
            if (filter)
                for (ptrdiff_t k = 0; k < K; k++) posterior[(from + s) * K + k] = at[k] * scale;
        }
        add_logs(sums, here, top, &high, &low);
        if (!keep) { /* the next block overwrites it */
            memcpy(alpha + TILE * P, previous, (size_t)P * sizeof(double));
            previous = alpha + TILE * P;
        }
    }
    logs[0] = high;
    logs[1] = low;
    if (at_ends->a_out) {
        memcpy(at_ends->a_out, previous, (size_t)P * sizeof(double));
        at_ends->a_out[P] = scale;
    }
    if (filter)
        for (ptrdiff_t i = 0; i < n * K; i++) posterior[i] = vlog(vset(posterior[i]))[0];
    if (filter || !keep || high - high != 0.0) return;
    double total = 1.0;
    if (at_ends->w_in) {
        memcpy(w, at_ends->w_in, (size_t)P * sizeof(double));
        total = at_ends->w_in[P];
    }
    for (ptrdiff_t t = n - 1; t >= 0; t--) {
        double *at = alpha + t * P, *bt = b + t * P;
        const int last = t == n - 1 && !at_ends->w_in;
        if (last)
            for (ptrdiff_t j = 0; j < P; j++) beta[j] = j < K;
        else
            times_rows(K, P, w, c->AT, 0, 1.0 / total, beta);
        vd sum[LANES / VL], next[LANES / VL];
        for (int h = 0; h < LANES / VL; h++) sum[h] = next[h] = vset(0.0);
        for (ptrdiff_t j = 0; j < P; j += LANES)
            for (int h = 0; h < LANES / VL; h++) {
                const vd g = vload(at + j + h * VL) * vload(beta + j + h * VL);
                vstore(gamma + j + h * VL, g);
                sum[h] += g;
            }
        const double share = weight / hsum8(sum);
        if (posterior)
            for (ptrdiff_t k = 0; k < K; k++) posterior[t * K + k] = gamma[k] * share;
        if (start && t == 0 && !at_ends->a_in)
            for (ptrdiff_t k = 0; k < K; k++) start[k] += gamma[k] * share;
        const double ahead = last ? 0.0 : share / total;
        for (ptrdiff_t j = 0; j < P; j += LANES)
            for (int h = 0; h < LANES / VL; h++) {
                const vd bj = vload(bt + j + h * VL);
                if (transitions) vstore(bt + j + h * VL, last ? vset(0.0) : vload(w + j + h * VL) * vset(ahead));
                const vd u = bj * vload(beta + j + h * VL);
                vstore(w + j + h * VL, u);
                next[h] += u;
            }
        total = hsum8(next);
        if (transitions && t % TILE == 0) {
            const ptrdiff_t here = VMIN(TILE, n - t);
            for (ptrdiff_t i = 0; i < K; i += 4) {
                const ptrdiff_t H = VMIN(4, K - i);
                for (ptrdiff_t j = 0; j < P; j += VL) switch (H) {
                    case 4: outer(at, bt, here, P, i, j, 4, 0, 1, transitions); break;
                    case 3: outer(at, bt, here, P, i, j, 3, 0, 1, transitions); break;
                    case 2: outer(at, bt, here, P, i, j, 2, 0, 1, transitions); break;
                    case 1: outer(at, bt, here, P, i, j, 1, 0, 1, transitions); break;
                    }
            }
        }
    }
    if (at_ends->w_out) {
        memcpy(at_ends->w_out, w, (size_t)P * sizeof(double));
        at_ends->w_out[P] = total;
    }
}

/* The most probable path of one sequence; start (P,) and logA (K, P), padded with -inf. logs (2), path (n,). Returns
 * whether a log-likelihood was not finite. back: n rows of P integers. */
static int viterbi_sequence(const emission *e, const row_chain *c, ptrdiff_t row, ptrdiff_t n, double *logs,
                            ptrdiff_t *path, void *back, double *memory) {
    const ptrdiff_t K = c->K, P = c->P;
    const int wide = K > 256;
    double *l = aligned(memory), *top = l + TILE * P, *delta = top + TILE, *other = delta + P, *work = other + P;
    double high = 0.0, low = 0.0;
    vd bad = vset(0.0);
    for (ptrdiff_t from = 0; from < n; from += TILE) {
        const ptrdiff_t here = VMIN(TILE, n - from);
        emit_rows(e, row + from, here, 1, P, -INFINITY, l, top, work);
        for (ptrdiff_t s = 0; s < here; s++) {
            const double *ls = l + s * P;
            for (ptrdiff_t k = 0; k < K; k++) bad += vset(ls[k] * 0.0);
            for (ptrdiff_t j = 0; j < P; j += VL) {
                vd best, arg = vset(0.0);
                if (from + s == 0)
                    best = vload(c->start + j);
                else {
                    best = vset(delta[0]) + vload(c->A + j);
                    for (ptrdiff_t i = 1; i < K; i++) {
                        const vd candidate = vset(delta[i]) + vload(c->A + i * P + j);
                        arg = pick_greater(candidate, best, vset((double)i), arg);
                        best = vmax(candidate, best);
                    }
                }
                vstore(other + j, best + vload(ls + j));
                if (wide)
                    store_back(arg, (from + s) * P + j, 1, back);
                else
                    store_bytes(arg, (from + s) * P + j, back);
            }
            double *swap = delta;
            delta = other;
            other = swap;
        }
        double shift = delta[0];
        for (ptrdiff_t k = 1; k < K; k++) shift = delta[k] > shift ? delta[k] : shift;
        if (shift - shift == 0.0)
            for (ptrdiff_t k = 0; k < P; k++) delta[k] -= shift;
        add_one(&high, &low, shift);
    }
    logs[0] = high;
    logs[1] = low;
    ptrdiff_t state = 0;
    for (ptrdiff_t k = 1; k < K; k++)
        if (delta[k] > delta[state]) state = k;
    for (ptrdiff_t t = n - 1; t >= 0; t--) {
        path[t] = state;
        state = back_at(back, t * P + state, wide);
    }
    return any_lane(bad);
}

/* The same as hmm_sequence, in wide numbers. */

/* (m, e) of sum_i (a, ae)_i (M, Me)_ij for VL states from j on. */
static ALWAYS_INLINE void wide_times(ptrdiff_t K, ptrdiff_t P, const double *a, const double *ae, const double *M,
                                     const double *Me, ptrdiff_t j, vd *m, vd *e) {
    vd top = vset(NO_EXPONENT), sum = vset(0.0);
    for (ptrdiff_t i = 0; i < K; i++) top = vmax(top, vset(ae[i]) + vload(Me + i * P + j));
    for (ptrdiff_t i = 0; i < K; i++) {
        const vd share = power_of_two(vset(ae[i]) + vload(Me + i * P + j) - top);
        sum = vfma(vset(a[i]) * vload(M + i * P + j), share, sum);
    }
    vd exponent;
    split(sum, m, &exponent);
    *e = vmax(vset(NO_EXPONENT), top + exponent);
}

/* impossible: set to the number of the first step at which no state is possible, or -1; transitions (K, P) with the
 * factor A. */
static void hmm_sequence_wide(const emission *e, const row_chain *c, ptrdiff_t row, ptrdiff_t n, double weight,
                              const joints *at_ends, double *logs, int filter, double *posterior, double *start,
                              double *transitions, ptrdiff_t *impossible, double *memory) {
    const ptrdiff_t K = c->K, P = c->P;
    const int keep = !filter && (posterior || transitions);
    const ptrdiff_t rows = keep ? n + TILE : 2 * TILE;
    double *alpha = aligned(memory), *alpha_e = alpha + rows * P, *b = alpha_e + rows * P, *b_e = b + rows * P;
    double *top = b_e + rows * P, *w = top + 3 * TILE, *w_e = w + P, *beta = w_e + P, *beta_e = beta + P;
    double *gamma = beta_e + P, *work = gamma + 2 * P;
    const double *previous = at_ends->a_in, *previous_e = previous ? previous + P : 0;
    double tops[2] = {previous ? previous[2 * P] : 0.0, previous ? previous[2 * P + 1] : 0.0};
    *impossible = -1;
    int finite = 1;
    for (ptrdiff_t from = 0; from < n; from += TILE) {
        const ptrdiff_t here = VMIN(TILE, n - from);
        double *bt = keep ? b + from * P : b, *be = keep ? b_e + from * P : b_e;
        emit_rows(e, row + from, here, 1, P, -INFINITY, bt, top, work);
        for (ptrdiff_t s = 0; s < here; s++) {
            double most = -INFINITY;
            for (ptrdiff_t k = 0; k < K; k++) {
                finite &= bt[s * P + k] < INFINITY; /* NaN would be lost in an exponent */
                most = bt[s * P + k] > most ? bt[s * P + k] : most;
            }
            if (most == -INFINITY) continue;
            for (ptrdiff_t k = 0; k < K; k++) bt[s * P + k] -= most;
            add_one(tops, tops + 1, most);
        }
        for (ptrdiff_t s = 0; s < here; s++) {
            double *at = alpha + (keep ? from + s : s) * P, *ae = alpha_e + (keep ? from + s : s) * P;
            int any = 0;
            for (ptrdiff_t j = 0; j < P; j += VL) {
                vd m, x, bm, bx;
                wide_exp(vload(bt + s * P + j), &bm, &bx);
                vstore(bt + s * P + j, bm);
                vstore(be + s * P + j, bx);
                if (!previous) {
                    m = vload(c->start + j);
                    x = vload(c->start_exponent + j);
                } else
                    wide_times(K, P, previous, previous_e, c->A, c->exponent, j, &m, &x);
                m *= bm;
                vd carry;
                split(m, &m, &carry);
                x = vmax(vset(NO_EXPONENT), x + bx + carry);
                x = vselect((vi)(m == vset(0.0)), vset(NO_EXPONENT), x);
                vstore(at + j, m);
                vstore(ae + j, x);
                any |= any_lane(m);
            }
            if (!any && *impossible < 0) *impossible = from + s;
            previous = at;
            previous_e = ae;
            if (filter) {
                double level;
                const double norm = log(wide_sum(K, at, ae, 1, &level));
                for (ptrdiff_t k = 0; k < K; k++)
                    posterior[(from + s) * K + k] =
                        at[k] > 0.0 ? log(at[k]) - norm + (ae[k] - level) * 0x1.62e42fefa39efp-1 : -INFINITY;
            }
        }
        if (!keep) {
            memcpy(alpha + TILE * P, previous, (size_t)P * sizeof(double));
            memcpy(alpha_e + TILE * P, previous_e, (size_t)P * sizeof(double));
            previous = alpha + TILE * P;
            previous_e = alpha_e + TILE * P;
        }
    }
    if (at_ends->a_out) {
        memcpy(at_ends->a_out, previous, (size_t)P * sizeof(double));
        memcpy(at_ends->a_out + P, previous_e, (size_t)P * sizeof(double));
        memcpy(at_ends->a_out + 2 * P, tops, sizeof(tops));
    }
    double exponent;
    const double sum = wide_sum(K, previous, previous_e, 1, &exponent);
    logs[0] = tops[0];
    logs[1] = tops[1];
    wide_log(sum, exponent, logs);
    if (*impossible >= 0) logs[0] = -INFINITY;
    if (!finite) logs[0] = NAN;
    if (filter || !keep || *impossible >= 0 || !finite) return;
    if (at_ends->w_in) memcpy(w, at_ends->w_in, (size_t)(2 * P) * sizeof(double));
    for (ptrdiff_t t = n - 1; t >= 0; t--) {
        const int last = t == n - 1 && !at_ends->w_in;
        double *at = alpha + t * P, *ae = alpha_e + t * P, *bt = b + t * P, *be = b_e + t * P;
        for (ptrdiff_t j = 0; j < P; j += VL) {
            vd m = vset(1.0), x = vset(0.0);
            if (!last) wide_times(K, P, w, w_e, c->AT, c->exponent_T, j, &m, &x);
            vstore(beta + j, m);
            vstore(beta_e + j, x);
            vstore(gamma + j, m * vload(at + j));
            vstore(gamma + P + j, vmax(vset(NO_EXPONENT), x + vload(ae + j)));
        }
        double level;
        const double total = wide_sum(K, gamma, gamma + P, 1, &level), share = weight / total;
        for (ptrdiff_t k = 0; k < K; k++) {
            const double away = gamma[P + k] - level;
            const double g = away > -1100.0 ? ldexp(gamma[k] * share, (int)away) : 0.0;
            if (posterior) posterior[t * K + k] = g;
            if (start && t == 0 && !at_ends->a_in) start[k] += g;
        }
        if (transitions && !last)
            for (ptrdiff_t i = 0; i < K; i++) {
                const vd a = vset(at[i] * share), x = vset(ae[i] - level);
                if (at[i] == 0.0) continue;
                for (ptrdiff_t j = 0; j < P; j += VL) {
                    const vd away = x + vload(c->exponent + i * P + j) + vload(w_e + j);
                    const vd product = a * (vload(c->A + i * P + j) * vload(w + j));
                    /* away may be a little above 0 */
                    const vd value = zero_below(away, vset(-800.0), product * power_of_two(away - vset(64.0)));
                    vstore(transitions + i * P + j, vfma(value, vset(0x1p64), vload(transitions + i * P + j)));
                }
            }
        for (ptrdiff_t j = 0; j < P; j += VL) {
            vd m = vload(beta + j) * vload(bt + j), carry;
            split(m, &m, &carry);
            vd x = vmax(vset(NO_EXPONENT), vload(beta_e + j) + vload(be + j) + carry);
            vstore(w + j, m);
            vstore(w_e + j, vselect((vi)(m == vset(0.0)), vset(NO_EXPONENT), x));
        }
    }
    if (at_ends->w_out) memcpy(at_ends->w_out, w, (size_t)(2 * P) * sizeof(double));
}

/* Paths ------------------------------------------------------------------------------------------------------------ */

/* A path drawn from p(path | sequence), backwards: its last state from the filter, each earlier one from
 * a_t(i) A_ij. filtered (n, K), logA (K, K): logarithms; uniform (n,) random numbers in [0, 1); work: K. */
static void sample_path(const double *filtered, const double *logA, ptrdiff_t n, ptrdiff_t K, const double *uniform,
                        ptrdiff_t *path, double *work) {
    for (ptrdiff_t t = n - 1; t >= 0; t--) {
        const double *f = filtered + t * K;
        double top = -INFINITY, total = 0.0;
        for (ptrdiff_t k = 0; k < K; k++) {
            work[k] = t == n - 1 ? f[k] : f[k] + logA[k * K + path[t + 1]];
            top = work[k] > top ? work[k] : top;
        }
        for (ptrdiff_t k = 0; k < K; k++) total += work[k] = exp(work[k] - top);
        double rest = uniform[t] * total;
        ptrdiff_t state = -1;
        for (ptrdiff_t k = 0; k < K; k++) {
            if (!(work[k] > 0.0)) continue;
            state = k; /* the last possible one, if rounding leaves something */
            if ((rest -= work[k]) < 0.0) break;
        }
        path[t] = state;
    }
}

/* values (best,), from (best,) <- the largest of lists[i, r] + add[i * stride], i < K, and where they are in the lists,
 * which are sorted; -inf and -1 where there are fewer. next: K integers. */
static void merge_best(const double *lists, const double *add, ptrdiff_t stride, ptrdiff_t K, ptrdiff_t best,
                       double *values, int32_t *from, int32_t *next) {
    for (ptrdiff_t i = 0; i < K; i++) next[i] = 0;
    for (ptrdiff_t r = 0; r < best; r++) {
        ptrdiff_t chosen = -1;
        values[r] = -INFINITY;
        for (ptrdiff_t i = 0; i < K; i++) {
            if (next[i] == best) continue;
            const double value = lists[i * best + next[i]] + (add ? add[i * stride] : 0.0);
            if (value > values[r]) {
                values[r] = value;
                chosen = i;
            }
        }
        from[r] = chosen < 0 ? -1 : (int32_t)(chosen * best + next[chosen]++);
    }
}

/* The `best` most probable paths of one sequence (list Viterbi: Seshadri & Sundberg 1994). logs (best,), paths (best,
 * n); -inf and -1 where there are fewer. l (n, K), start (K,), logA (K, K): logarithms. back: n K best + K integers;
 * work: 2 K best doubles. */
static void best_paths(const double *l, const double *start, const double *logA, ptrdiff_t n, ptrdiff_t K,
                       ptrdiff_t best, double *logs, ptrdiff_t *paths, int32_t *back, double *work) {
    double *delta = work, *next = delta + K * best;
    int32_t *position = back + n * K * best, *last = back; /* of the first step nothing is needed */
    for (ptrdiff_t t = 0; t < n; t++) {
        for (ptrdiff_t j = 0; j < K; j++) {
            double *values = next + j * best;
            if (t == 0)
                for (ptrdiff_t r = 0; r < best; r++) values[r] = r ? -INFINITY : start[j];
            else
                merge_best(delta, logA + j, K, K, best, values, back + (t * K + j) * best, position);
            for (ptrdiff_t r = 0; r < best; r++) values[r] += l[t * K + j];
        }
        double *swap = delta;
        delta = next;
        next = swap;
    }
    merge_best(delta, 0, 0, K, best, logs, last, position);
    for (ptrdiff_t r = 0; r < best; r++) {
        ptrdiff_t at = last[r];
        for (ptrdiff_t t = n - 1; t >= 0; t--) {
            paths[r * n + t] = at < 0 ? -1 : at / best;
            if (at >= 0 && t > 0) at = back[(t * K + at / best) * best + at % best];
        }
    }
}

/* One sequence, for other libraries: log-likelihoods l (n, K), start (K,) and A (K, K)
 * ---------------------------------- */

static inline ptrdiff_t given_work_size(ptrdiff_t n, ptrdiff_t K) {
    const ptrdiff_t P = padded(K);
    return sequence_work_size(K, K, VMAX(n, TILE), 1, 1) + (5 * K + 2) * P + n * P / 4 + 8;
}

/* x (rows, P) <- a (rows, K) or its transpose, padded with 0. */
static void pad_rows(const double *a, ptrdiff_t rows, ptrdiff_t K, ptrdiff_t P, int transposed, double *x) {
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < P; j++) x[i * P + j] = j < K ? a[transposed ? j * K + i : i * K + j] : 0.0;
}

static void split_all(double *x, ptrdiff_t n, double *exponents) {
    for (ptrdiff_t i = 0; i < n; i++) {
        int exponent = 0;
        const double mantissa = frexp(x[i], &exponent);
        exponents[i] = x[i] == 0.0 ? NO_EXPONENT : exponent - 1;
        x[i] = 2.0 * mantissa;
    }
}

static ALWAYS_INLINE emission given(const double *l, ptrdiff_t K) {
    emission e = {0};
    e.kind = LOGS;
    e.m.d = e.m.K = e.columns = K;
    e.x = (const char *)l;
    e.row_bytes = K * (ptrdiff_t)sizeof(double);
    e.column_stride = 1;
    return e;
}

/* Log-likelihood: -inf if it is impossible, NaN if an l is NaN or infinite; in both cases there is nothing in the
 * results. Those that are not NULL: posterior (n, K), first (K,), transitions (K, K). */
static double given_forward_backward(const double *l, ptrdiff_t n, ptrdiff_t K, const double *start, const double *A,
                                     double *posterior, double *first, double *transitions, double *work) {
    const ptrdiff_t P = padded(K);
    const emission e = given(l, K);
    const joints none = {0};
    double *begin = work, *begin_e = begin + P, *M = begin_e + P, *M_e = M + K * P, *MT = M_e + K * P;
    double *MT_e = MT + K * P, *xi = MT_e + K * P, *rest = xi + K * P, logs[2] = {0};
    row_chain c = {K, P, begin, M, MT, M_e, MT_e, begin_e};
    const int keep = posterior || first || transitions;
    int safe = 1;
    ptrdiff_t impossible;
    if (n == 0) return 0.0;
    pad_rows(start, 1, K, P, 0, begin);
    pad_rows(A, K, K, P, 0, M);
    pad_rows(A, K, K, P, 1, MT);
    memset(xi, 0, (size_t)(K * P) * sizeof(double));
    for (ptrdiff_t k = 0; k < K && first; k++) first[k] = 0.0;
    for (ptrdiff_t i = 0; i < K * K; i++) safe &= A[i] >= SAFE;
    if (safe) hmm_sequence(&e, &c, 0, n, 1.0, &none, logs, 0, posterior, first, keep ? xi : 0, rest);
    if (!safe || logs[0] - logs[0] != 0.0) {
        split_all(begin, P, begin_e);
        split_all(M, K * P, M_e);
        split_all(MT, K * P, MT_e);
        hmm_sequence_wide(&e, &c, 0, n, 1.0, &none, logs, 0, posterior, first, keep ? xi : 0, &impossible, rest);
        safe = 0;
    }
    for (ptrdiff_t i = 0; i < K * K && transitions; i++) transitions[i] = xi[i / K * P + i % K] * (safe ? A[i] : 1.0);
    return logs[0] - logs[0] == 0.0 ? logs[0] + logs[1] : logs[0];
}

/* log p(path, sequence); -inf, and any path, if there is none. */
static double given_viterbi(const double *l, ptrdiff_t n, ptrdiff_t K, const double *start, const double *A,
                            ptrdiff_t *path, double *work) {
    const ptrdiff_t P = padded(K);
    const emission e = given(l, K);
    double *begin = work, *M = begin + P, *back = M + K * P, *rest = back + n * P / 4, logs[2];
    const row_chain c = {K, P, begin, M, 0, 0, 0, 0};
    if (n == 0) return 0.0;
    pad_rows(start, 1, K, P, 0, begin);
    pad_rows(A, K, K, P, 0, M);
    for (ptrdiff_t i = 0; i < (K + 1) * P; i += VL) vstore(work + i, vlog(vload(work + i)));
    viterbi_sequence(&e, &c, 0, n, logs, path, back, rest);
    return logs[0] - logs[0] == 0.0 ? logs[0] + logs[1] : logs[0];
}

#endif
