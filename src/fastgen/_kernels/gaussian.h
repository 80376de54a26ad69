/* Log-densities and moments of Gaussians, for _gaussian.pyx.
 *
 * log N(x; mu, Sigma) = log_norm - 1/2 |U^T (x - mu)|^2,  Sigma^-1 = U U^T, U upper triangular.
 *
 * The log-density walks over X in tiles of samples (tile.h). x - mu is always formed first, never expanded,
 * so that an offset common to data and means costs no accuracy. Each sample has a lane of its own: its
 * result depends neither on its neighbours nor on how the rows are divided among threads.
 */
#ifndef FASTGEN_GAUSSIAN_H
#define FASTGEN_GAUSSIAN_H

#include "tile.h"

enum { FULL, TIED, DIAG, DIAG_MISSING, SPHERICAL };

/* Vectors of samples per register tile: 4 columns x NV accumulators; AVX2 and SSE2 have 16 registers. */
#define NV (VL == 8 ? 4 : 2)
#define SUB (NV * VL)

/* a[q] <- sum_{i <= j + q} U[i, j + q] z[i] for the W columns from j on, and SUB samples.
 * u: these columns, packed as (j + W) rows of W. Returns where the next columns begin. */
static ALWAYS_INLINE const double *project(const double *z, ptrdiff_t j, const int W, const double *u, vd a[4][NV]) {
    EACH(q, W)
        EACH(v, NV) a[q][v] = vset(0.0);
    for (ptrdiff_t i = 0; i < j; i++, u += W) {
        vd x[NV];
        EACH(v, NV) x[v] = in_register(vload(z + i * TILE + v * VL));
        EACH(q, W)
            EACH(v, NV) a[q][v] = vfma(vset(u[q]), x[v], a[q][v]);
    }
    EACH(i, W) {
        vd x[NV];
        EACH(v, NV) x[v] = in_register(vload(z + (j + i) * TILE + v * VL));
        EACH(q, W)
            if (q >= i)
                EACH(v, NV) a[q][v] = vfma(vset(u[q]), x[v], a[q][v]);
        u += W;
    }
    return u;
}

/* m += the squares of the W columns of U^T z from j on; or, if y is given, y <- these columns. */
static ALWAYS_INLINE const double *columns(const double *z, ptrdiff_t j, const int W, const double *u, vd m[NV],
                                           double *y) {
    vd a[4][NV];
    u = project(z, j, W, u, a);
    EACH(q, W)
        EACH(v, NV) {
            if (y)
                vstore(y + (j + q) * TILE + v * VL, a[q][v]);
            else
                m[v] = vfma(a[q][v], a[q][v], m[v]);
        }
    return u;
}

/* All columns of U^T z, for SUB samples; meanwhile the next tile is fetched, which otherwise waits for memory. */
static ALWAYS_INLINE void triangle(const double *z, ptrdiff_t d, const double *u, vd m[NV], double *y,
                                   const tile_source *next, ptrdiff_t s) {
    ptrdiff_t j = 0;
    for (; j + 4 <= d; j += 4) {
        if (next && j % 8 == 0) prefetch_columns(next, s, SUB, j, VMIN(8, d - j));
        u = columns(z, j, 4, u, m, y);
    }
    switch (d - j) {
    case 3: columns(z, j, 3, u, m, y); break;
    case 2: columns(z, j, 2, u, m, y); break;
    case 1: columns(z, j, 1, u, m, y); break;
    }
}

/* z <- x - mean, feature by feature. */
static ALWAYS_INLINE void centre_tile(const double *x, ptrdiff_t d, const double *mean, double *z) {
    for (ptrdiff_t j = 0; j < d; j++) {
        vd mu = vset(mean[j]);
        for (ptrdiff_t s = 0; s < TILE; s += VL) vstore(z + j * TILE + s, vload(x + j * TILE + s) - mu);
    }
}

/* d <= 4: everything stays in registers. */
static ALWAYS_INLINE void full_small(const double *x, const int d, const double *mean, const double *u, double norm,
                                     double *out) {
    for (ptrdiff_t s = 0; s < TILE; s += VL) {
        vd z[4], m = vset(0.0);
        for (int q = 0; q < d; q++) {
            z[q] = vload(x + q * TILE + s) - vset(mean[q]);
            vd y = vset(u[q]) * z[0];
            for (int i = 1; i <= q; i++) y = vfma(vset(u[i * d + q]), z[i], y);
            m = vfma(y, y, m);
        }
        vstore(out + s, vfma(vset(-0.5), m, vset(norm)));
    }
}

static ALWAYS_INLINE void full_component(const double *x, ptrdiff_t d, const double *mean, const double *u, double norm,
                                         double *z, double *out, const tile_source *next) {
    switch (d) {
    case 1: full_small(x, 1, mean, u, norm, out); return;
    case 2: full_small(x, 2, mean, u, norm, out); return;
    case 3: full_small(x, 3, mean, u, norm, out); return;
    case 4: full_small(x, 4, mean, u, norm, out); return;
    }
    centre_tile(x, d, mean, z);
    for (ptrdiff_t s = 0; s < TILE; s += SUB) {
        vd m[NV];
        for (int v = 0; v < NV; v++) m[v] = vset(0.0);
        triangle(z + s, d, u, m, 0, next, s);
        for (int v = 0; v < NV; v++) vstore(out + s + v * VL, vfma(vset(-0.5), m[v], vset(norm)));
    }
}

/* -1/2 sum_j ((x_j - mean_j) inv_sd_j)^2; inv_sd: one for each feature (step 1), one for all (step 0), or none.
 * With norm_j (missing): each observed feature also adds norm_j; a NaN adds nothing. */
static ALWAYS_INLINE void diag_component(const double *x, ptrdiff_t d, const double *mean, const double *inv_sd,
                                         const int step, const double *feature_norm, double norm, double *out) {
    for (ptrdiff_t s = 0; s < TILE; s += SUB) {
        vd m[NV];
        for (int v = 0; v < NV; v++) m[v] = vset(0.0);
        for (ptrdiff_t j = 0; j < d; j++) {
            vd mu = vset(mean[j]);
            for (int v = 0; v < NV; v++) {
                vd value = vload(x + j * TILE + s + v * VL);
                vd z = value - mu;
                if (inv_sd) z *= vset(inv_sd[j * step]);
                if (feature_norm)
                    m[v] += vselect((vi)(value == value), vfma(z, z, vset(feature_norm[j])), vset(0.0));
                else
                    m[v] = vfma(z, z, m[v]);
            }
        }
        for (int v = 0; v < NV; v++) vstore(out + s + v * VL, vfma(vset(-0.5), m[v], vset(norm)));
    }
}

/* out <- log_weight + log N(x; component k) of a tile; the table below has the layouts. x: the tile; TIED: whitened. */
static ALWAYS_INLINE void component(const int kind, const double *x, ptrdiff_t d, ptrdiff_t k, const double *means,
                                    const double *factors, ptrdiff_t factor_size, const double *log_norm,
                                    double log_weight, double *z, double *out, const tile_source *next) {
    const double *mean = means + k * d;
    if (kind == FULL)
        full_component(x, d, mean, factors + k * factor_size, log_norm[k] + log_weight, z, out, next);
    else if (kind == TIED)
        diag_component(x, d, mean, 0, 0, 0, log_norm[k] + log_weight, out);
    else if (kind == DIAG)
        diag_component(x, d, mean, factors + k * d, 1, 0, log_norm[k] + log_weight, out);
    else if (kind == DIAG_MISSING)
        diag_component(x, d, mean, factors + k * d, 1, log_norm + k * d, log_weight, out);
    else
        diag_component(x, d, mean, factors + k, 0, 0, log_norm[k] + log_weight, out);
}

/* y <- U^T (x - centre), for TIED; z: work space. */
static ALWAYS_INLINE void whiten(const double *x, ptrdiff_t d, const double *centre, const double *factors, double *z,
                                 double *y, const tile_source *next) {
    centre_tile(x, d, centre, z);
    vd unused[NV];
    for (ptrdiff_t s = 0; s < TILE; s += SUB) triangle(z + s, d, factors, unused, y + s, next, s);
}

/* Doubles of work space that log_density needs. */
static inline ptrdiff_t log_density_work_size(ptrdiff_t d, ptrdiff_t K) { return (2 * d + K) * TILE + 8; }

/* out[i, k] <- log N(X[i]; component k). Returns whether any result is not finite: X holds NaN or inf, or is beyond the
 * range of doubles (-inf, or NaN where inf - inf came up).
 *
 * kind          means                     factors                           log_norm
 * FULL          (K, d)                    (K, d (d + 1) / 2 and more) packed    (K,)
 * TIED          (K, d) = U^T (mean - centre)  one packed U                  (K,)
 * DIAG          (K, d)                    (K, d) 1 / standard deviation     (K,)
 * DIAG_MISSING  (K, d)                    (K, d) 1 / standard deviation     (K, d) log(2 pi variance)
 * SPHERICAL     (K, d)                    (K,) 1 / standard deviation       (K,)
 *
 * packed: for each four columns j..j+3 of U (fewer at the end), rows 0..j+3 of them, row by row. */
static ALWAYS_INLINE int log_density_tiles(const int kind, const void *x, const int single, ptrdiff_t n, ptrdiff_t d,
                                           ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t K,
                                           const double *means, const double *factors, ptrdiff_t factor_size,
                                           const double *log_norm, const double *centre, void *out, int out_single,
                                           ptrdiff_t out_row_stride, ptrdiff_t out_column_stride, double *work) {
    double *t = aligned(work), *z = t + d * TILE, *lp = z + d * TILE;
    vd bad = vset(0.0); /* x * 0 is NaN for NaN and inf, and NaN stays */
    const ptrdiff_t size = single ? sizeof(float) : sizeof(double);
    const ptrdiff_t out_size = out_single ? sizeof(float) : sizeof(double);
    for (ptrdiff_t i = 0; i < n; i += TILE) {
        ptrdiff_t rows = VMIN(TILE, n - i);
        const char *xi = (const char *)x + i * row_stride * size;
        const tile_source next = {xi + TILE * row_stride * size, row_stride * size, column_stride * size};
        char *oi = (char *)out + i * out_row_stride * out_size;
        load_tile(xi, single, rows, d, row_stride, column_stride, t);
        /* A full tile of one component goes straight to the output. */
        int direct = !out_single && K == 1 && out_row_stride == 1 && rows == TILE;
        double *to = direct ? (double *)oi : lp;
        if (kind == TIED) {
            /* In place of x, which is not needed any more. */
            whiten(t, d, centre, factors, z, t, &next);
        }
        for (ptrdiff_t k = 0; k < K; k++) {
            double *to_k = to + k * TILE;
            component(kind, t, d, k, means, factors, factor_size, log_norm, 0.0, z, to_k, k == 0 ? &next : 0);
            for (ptrdiff_t s = 0; s < TILE; s += VL) bad = vfma(vload(to_k + s), vset(0.0), bad);
        }
        if (!direct) store_tile(lp, rows, K, oi, out_single, out_row_stride, out_column_stride);
    }
    return any_lane(bad);
}

#define LOG_DENSITY(kind)                                                                                              \
    case kind:                                                                                                         \
        return single ? log_density_tiles(kind, x, 1, n, d, row_stride, column_stride, K, means, factors, factor_size, \
                                          log_norm, centre, out, out_single, out_row_stride, out_column_stride, work)  \
                      : log_density_tiles(kind, x, 0, n, d, row_stride, column_stride, K, means, factors, factor_size, \
                                          log_norm, centre, out, out_single, out_row_stride, out_column_stride, work)

static int log_density(int kind, const void *x, int single, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride,
                       ptrdiff_t column_stride, ptrdiff_t K, const double *means, const double *factors,
                       ptrdiff_t factor_size, const double *log_norm, const double *centre, void *out, int out_single,
                       ptrdiff_t out_row_stride, ptrdiff_t out_column_stride, double *work) {
    switch (kind) {
        LOG_DENSITY(FULL);
        LOG_DENSITY(TIED);
        LOG_DENSITY(DIAG);
        LOG_DENSITY(DIAG_MISSING);
        LOG_DENSITY(SPHERICAL);
    }
    return -1;
}

/* ---- Moments -----------------------------------------------------------------------------------------------
 *
 * Weighted mean and scatter, sum w (x - mean)(x - mean)^T, in one walk over X. Blocks of rows are centred about
 * their own mean and merged by the exact shift formula (Chan, Golub & LeVeque 1983, eq. 1.5 with weights), so
 * nothing cancels, whatever the offset of the data. Lanes run over the features, sums over the samples in an
 * order that does not depend on the number of lanes.
 */
#define BLOCK 64

static ALWAYS_INLINE ptrdiff_t padded(ptrdiff_t d) { return (d + 7) & ~(ptrdiff_t)7; }
/* From row to row: an odd number of cache lines, so that a column of rows spreads over all sets of the L1 cache. */
static ALWAYS_INLINE ptrdiff_t row_step(ptrdiff_t d) { return padded(d) | 8; }

/* Doubles of work space that moments needs. */
static inline ptrdiff_t moments_work_size(ptrdiff_t d, int full) {
    ptrdiff_t p = row_step(d);
    return BLOCK * p + BLOCK + 5 * p + (full ? (p + BLOCK) * p : 0) + 16;
}

/* z[s * p + j] <- X[s, j], zero-padded to p columns; w[s] <- its weight, 1 if there are none. The next block is fetched
 * meanwhile, into the L2 cache. */
static ALWAYS_INLINE void load_rows(const void *x, const int single, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t p,
                                    ptrdiff_t row_stride, ptrdiff_t column_stride, const double *weights,
                                    ptrdiff_t weight_stride, double *z, double *w) {
    for (ptrdiff_t s = 0; s < rows; s++) {
        double *zs = z + s * p;
        ptrdiff_t j = 0;
        const double *next = (const double *)x + (s + BLOCK) * row_stride;
        if (!single && column_stride == 1)
            for (; j < d; j += 8) __builtin_prefetch(next + j, 0, 2);
        j = 0;
        if (!single && column_stride == 1)
            for (; j + VL <= d; j += VL) vstore(zs + j, vload((const double *)x + s * row_stride + j));
        for (; j < d; j++) zs[j] = element(x, s * row_stride + j * column_stride, single);
        for (; j < p; j++) zs[j] = 0.0;
        w[s] = weights ? weights[s * weight_stride] : 1.0;
    }
}

/* sum_s w[s] z[s * p] over the rows, for VL columns: every fourth row has an accumulator of its own. */
static ALWAYS_INLINE vd sum_rows(const double *z, const double *w, ptrdiff_t rows, ptrdiff_t p) {
    vd a[4];
    EACH(q, 4) a[q] = vset(0.0);
    ptrdiff_t s = 0;
    for (; s + 4 <= rows; s += 4)
        EACH(q, 4) a[q] = vfma(vset(w[s + q]), vload(z + (s + q) * p), a[q]);
    for (; s < rows; s++) a[0] = vfma(vset(w[s]), vload(z + s * p), a[0]);
    return (a[0] + a[1]) + (a[2] + a[3]);
}

/* S[i..i+H, j..] <- sum_s z[s, i..] y[s, j..]^T (or, with `add`, +=), rows of p: a tile of H rows and one vector, or
 * two (pair). */
static ALWAYS_INLINE void outer(const double *z, const double *y, ptrdiff_t rows, ptrdiff_t p, ptrdiff_t i, ptrdiff_t j,
                                const int H, const int pair, const int add, double *S) {
    vd a[8][2];
    EACH(q, H) {
        a[q][0] = add ? vload(S + (i + q) * p + j) : vset(0.0);
        if (pair) a[q][1] = add ? vload(S + (i + q) * p + j + VL) : vset(0.0);
    }
    for (ptrdiff_t s = 0; s < rows; s++) {
        const double *zs = z + s * p, *ys = y + s * p;
        vd y0 = in_register(vload(ys + j)), y1 = pair ? in_register(vload(ys + j + VL)) : y0;
        EACH(q, H) {
            vd u = vset(zs[i + q]);
            a[q][0] = vfma(u, y0, a[q][0]);
            if (pair) a[q][1] = vfma(u, y1, a[q][1]);
        }
    }
    EACH(q, H) {
        vstore(S + (i + q) * p + j, a[q][0]);
        if (pair) vstore(S + (i + q) * p + j + VL, a[q][1]);
    }
}

/* H rows of S from i on, from the diagonal to the end. */
static ALWAYS_INLINE void outer_rows(const double *z, const double *y, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t p,
                                     ptrdiff_t i, const int H, const int add, double *S) {
    ptrdiff_t j = i / VL * VL;
    for (; j + 2 * VL <= padded(d); j += 2 * VL) outer(z, y, rows, p, i, j, H, 1, add, S);
    for (; j < padded(d); j += VL) outer(z, y, rows, p, i, j, H, 0, add, S);
}

/* S <- sum_s z[s] y[s]^T (or, with `add`, +=), its upper triangle: y is z, each row times its weight. */
static ALWAYS_INLINE void outer_products(const double *z, const double *y, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t p,
                                         const int add, double *S) {
    ptrdiff_t i = 0;
#if VL == 8
    for (; i + 8 <= d; i += 8) outer_rows(z, y, rows, d, p, i, 8, add, S);
#endif
    for (; i + 4 <= d; i += 4) outer_rows(z, y, rows, d, p, i, 4, add, S);
    for (; i + 2 <= d; i += 2) outer_rows(z, y, rows, d, p, i, 2, add, S);
    for (; i < d; i++) outer_rows(z, y, rows, d, p, i, 1, add, S);
}

/* mean += step, where mean is the unevaluated sum high + low: thousands of merges leave no rounding behind. */
static ALWAYS_INLINE void add_to_mean(double *high, double *low, double step) {
    const double sum = *high + step, part = sum - *high;
    *low += (*high - (sum - part)) + (step - part);
    *high = sum;
}

/* Whether the numbers (a multiple of 8) hold NaN or inf. */
static ALWAYS_INLINE int has_non_finite(const double *z, ptrdiff_t size) {
    vd bad[4];
    ptrdiff_t i = 0;
    EACH(q, 4) bad[q] = vset(0.0);
    for (; i + 4 * VL <= size; i += 4 * VL)
        EACH(q, 4) bad[q] = vfma(vload(z + i + q * VL), vset(0.0), bad[q]);
    for (; i < size; i += VL) bad[0] = vfma(vload(z + i), vset(0.0), bad[0]);
    return any_lane((bad[0] + bad[1]) + (bad[2] + bad[3]));
}

/* Merges the weight, mean and scatter of the complete rows of X into those given (of an earlier part, or zeros).
 * mean: (2, d), high and low parts. scatter: (d, d), upper triangle only. Rows with NaN or inf are left out;
 * returns how many. weights may be NULL: ones. */
static ALWAYS_INLINE ptrdiff_t moments_full_rows(const void *x, const int single, ptrdiff_t n, ptrdiff_t d,
                                                 ptrdiff_t row_stride, ptrdiff_t column_stride, const double *weights,
                                                 ptrdiff_t weight_stride, double *weight, double *mean, double *scatter,
                                                 double *work) {
    const ptrdiff_t p = row_step(d), size = single ? sizeof(float) : sizeof(double);
    double *z = aligned(work), *y = z + BLOCK * p, *S = y + BLOCK * p, *m = S + p * p, *r = m + p, *w = r + p;
    ptrdiff_t left_out = 0;
    for (ptrdiff_t b = 0; b < n; b += BLOCK) {
        const ptrdiff_t rows = VMIN(BLOCK, n - b);
        load_rows((const char *)x + b * row_stride * size, single, rows, d, p, row_stride, column_stride,
                  weights ? weights + b * weight_stride : 0, weight_stride, z, w);
        int weighted = weights != 0;
        if (has_non_finite(z, rows * p))
            for (ptrdiff_t s = 0; s < rows; s++)
                if (has_non_finite(z + s * p, p)) {
                    left_out++;
                    weighted = 1;
                    w[s] = 0.0;
                    for (ptrdiff_t j = 0; j < p; j++) z[s * p + j] = 0.0;
                }
        double W = 0.0;
        for (ptrdiff_t s = 0; s < rows; s++) W += w[s];
        if (!(W > 0.0)) continue;
        for (ptrdiff_t j = 0; j < p; j += VL) {
            const vd centre = sum_rows(z + j, w, rows, p) / vset(W);
            for (ptrdiff_t s = 0; s < rows; s++) {
                const vd centred = vload(z + s * p + j) - centre;
                vstore(z + s * p + j, centred);
                if (weighted) vstore(y + s * p + j, vset(w[s]) * centred);
            }
            vstore(m + j, centre);
            vstore(r + j, sum_rows(z + j, w, rows, p) / vset(W)); /* what rounding left in the mean */
        }
        outer_products(z, weighted ? y : z, rows, d, p, 0, S);
        const double total = *weight + W, share = *weight / total * W;
        double *delta = m; /* from the mean so far to the block's */
        for (ptrdiff_t j = 0; j < d; j++) {
            if (*weight == 0.0) { /* from 0 to a large mean, the rest would be lost */
                mean[j] = m[j];
                mean[d + j] = r[j];
            }
            delta[j] = (m[j] - mean[j]) + (r[j] - mean[d + j]);
            add_to_mean(mean + j, mean + d + j, delta[j] * (W / total));
        }
        for (ptrdiff_t i = 0; i < d; i++) {
            const double share_i = share * delta[i], r_i = W * r[i];
            for (ptrdiff_t j = i; j < d; j++) scatter[i * d + j] += (S[i * p + j] - r_i * r[j]) + share_i * delta[j];
        }
        *weight = total;
    }
    return left_out;
}

/* The same, column by column, over what is observed (NaN = missing): count (d,), mean (2, d), scatter (d,).
 * Returns the number of blocks of columns that hold an infinity. */
static ALWAYS_INLINE ptrdiff_t moments_diag_rows(const void *x, const int single, ptrdiff_t n, ptrdiff_t d,
                                                 ptrdiff_t row_stride, ptrdiff_t column_stride, const double *weights,
                                                 ptrdiff_t weight_stride, double *count, double *mean, double *scatter,
                                                 double *work) {
    const ptrdiff_t p = padded(d), size = single ? sizeof(float) : sizeof(double);
    double *z = aligned(work), *c = z + BLOCK * p, *m = c + p, *r = m + p, *v = r + p, *w = v + p;
    const vd zero = vset(0.0);
    ptrdiff_t infinite = 0;
    for (ptrdiff_t b = 0; b < n; b += BLOCK) {
        const ptrdiff_t rows = VMIN(BLOCK, n - b);
        load_rows((const char *)x + b * row_stride * size, single, rows, d, p, row_stride, column_stride,
                  weights ? weights + b * weight_stride : 0, weight_stride, z, w);
        for (ptrdiff_t j = 0; j < p; j += VL) {
            /* Two rows at a time: an accumulator for the even ones and one for the odd. */
            vd cj[2] = {zero, zero}, mj[2] = {zero, zero}, rj[2] = {zero, zero}, vj[2] = {zero, zero}, bad = zero;
            for (ptrdiff_t s = 0; s < rows; s += 2)
                EACH(q, 2)
                    if (s + q < rows) {
                        vd value = vload(z + (s + q) * p + j);
                        vi seen = (vi)(value == value);
                        vd ws = vselect(seen, vset(w[s + q]), zero), known = vselect(seen, value, zero);
                        bad = vfma(known, zero, bad);
                        cj[q] += ws;
                        mj[q] = vfma(ws, known, mj[q]);
                    }
            infinite += any_lane(bad);
            const vd cs = cj[0] + cj[1];
            const vd centre = vselect((vi)(cs > zero), (mj[0] + mj[1]) / cs, zero);
            for (ptrdiff_t s = 0; s < rows; s += 2)
                EACH(q, 2)
                    if (s + q < rows) {
                        vd value = vload(z + (s + q) * p + j);
                        vd centred = vselect((vi)(value == value), value - centre, zero);
                        vd weighted = vset(w[s + q]) * centred;
                        rj[q] += weighted;
                        vj[q] = vfma(weighted, centred, vj[q]);
                    }
            vstore(c + j, cs);
            vstore(m + j, centre);
            vstore(r + j, rj[0] + rj[1]);
            vstore(v + j, vj[0] + vj[1]);
        }
        for (ptrdiff_t j = 0; j < d; j++) {
            if (!(c[j] > 0.0)) continue;
            const double rest = r[j] / c[j], total = count[j] + c[j];
            if (count[j] == 0.0) {
                mean[j] = m[j];
                mean[d + j] = rest;
            }
            const double delta = (m[j] - mean[j]) + (rest - mean[d + j]);
            scatter[j] += (v[j] - r[j] * rest) + count[j] / total * c[j] * delta * delta;
            add_to_mean(mean + j, mean + d + j, delta * (c[j] / total));
            count[j] = total;
        }
    }
    return infinite;
}

/* ---- Factors -------------------------------------------------------------------------------------------------
 *
 * A few small triangular matrices per fit: not worth a BLAS, whose threads go on spinning beside our kernels for
 * some 25 ms after each call. Every inner loop runs along a row, and no sum runs across lanes.
 */

/* The upper triangle of A <- R with A = R^T R. Returns the first column that is, up to tolerance * A_jj, a linear
 * combination of those before it (also NaN), or -1. */
static ptrdiff_t cholesky_upper(double *restrict A, ptrdiff_t d, double tolerance) {
    for (ptrdiff_t j = 0; j < d; j++) {
        /* R so far took sum_i<j R_ij^2 off A_jj: both together are its original value. */
        double *Rj = A + j * d, taken = 0.0;
        for (ptrdiff_t i = 0; i < j; i++) taken += A[i * d + j] * A[i * d + j];
        if (!(Rj[j] > tolerance * (Rj[j] + taken))) return j;
        const double root = sqrt(Rj[j]);
        for (ptrdiff_t k = j; k < d; k++) Rj[k] /= root;
        for (ptrdiff_t i = j + 1; i < d; i++) {
            double *restrict Ri = A + i * d;
            const double r = Rj[i];
            for (ptrdiff_t k = i; k < d; k++) Ri[k] -= r * Rj[k];
        }
    }
    return -1;
}

/* The upper triangle of R <- that of its inverse. row: d doubles of work space. */
static void invert_upper(double *restrict R, ptrdiff_t d, double *restrict row) {
    for (ptrdiff_t i = d - 1; i >= 0; i--) {
        double *restrict Ri = R + i * d;
        const double diagonal = 1.0 / Ri[i];
        for (ptrdiff_t k = i + 1; k < d; k++) {
            row[k] = Ri[k];
            Ri[k] = 0.0;
        }
        for (ptrdiff_t k = i + 1; k < d; k++) {
            const double *restrict Rk = R + k * d;
            for (ptrdiff_t c = k; c < d; c++) Ri[c] += row[k] * Rk[c];
        }
        for (ptrdiff_t k = i + 1; k < d; k++) Ri[k] *= -diagonal;
        Ri[i] = diagonal;
    }
}

/* packed <- U, upper triangular (d, d), as log_density walks it. */
static void pack_upper(const double *U, ptrdiff_t d, double *packed) {
    for (ptrdiff_t j = 0; j < d; j += 4) {
        const ptrdiff_t W = VMIN(4, d - j);
        for (ptrdiff_t i = 0; i < j + W; i++)
            for (ptrdiff_t q = 0; q < W; q++) *packed++ = U[i * d + j + q];
    }
}

/* factors[k] <- U, upper triangular, with inverse(covariances[k]) = U U^T, for matrices (d, d). Returns how many were
 * done: fewer than K if the next one is not symmetric or not positive definite (see cholesky_upper). */
static ptrdiff_t precision_factors(const double *covariances, ptrdiff_t K, ptrdiff_t d, double tolerance,
                                   double *factors, double *row) {
    for (ptrdiff_t k = 0; k < K; k++) {
        const double *A = covariances + k * d * d;
        double *U = factors + k * d * d;
        for (ptrdiff_t i = 0; i < d; i++) {
            if (!(A[i * d + i] > 0.0)) return k;
            for (ptrdiff_t j = 0; j < i; j++) {
                const double gap = A[i * d + j] - A[j * d + i];
                if (!(fabs(gap) <= 1e-6 * sqrt(A[i * d + i]) * sqrt(A[j * d + j]))) return k;
                U[i * d + j] = 0.0;
            }
            for (ptrdiff_t j = i; j < d; j++) U[i * d + j] = A[i * d + j];
        }
        if (cholesky_upper(U, d, tolerance) >= 0) return k;
        invert_upper(U, d, row);
    }
    return K;
}

/* ---- Missing values ------------------------------------------------------------------------------------------
 *
 * The E-step for one Gaussian and all rows that miss the same columns (Little & Rubin, Statistical Analysis with
 * Missing Data, sec. 11.2). It needs no rows, only the moments of their observed part: with Sigma_oo^-1 = U U^T,
 * B^T = U U^T Sigma_om, the expected moments of the missing part follow from x_m = mu_m + B (x_o - mu_o) and its
 * residual covariance Sigma_mm - B Sigma_om.
 */

/* Doubles of work space that expect_pattern needs. */
static inline ptrdiff_t expect_work_size(ptrdiff_t d) { return 6 * d * d + 2 * d; }

/* first += sum w (x - mu), second += sum w (x - mu)(x - mu)^T, log_likelihood += sum w log p(x_o).
 *
 * columns: all d, the `o` observed ones first (at least one). weight, x_mean (high and low part) and S are those of
 * the observed columns, S (o, o). Returns -1, or the number of a column that makes Sigma_oo singular. */
static ptrdiff_t expect_pattern(const double *mu, const double *Sigma, ptrdiff_t d, const ptrdiff_t *columns,
                                ptrdiff_t o, double weight, const double *x_mean, const double *x_rest, const double *S,
                                double tolerance, double *first, double *second, double *log_likelihood, double *work) {
    const ptrdiff_t m = d - o, *missing = columns + o;
    double *U = work, *M = U + o * o, *P = M + o * o, *G = P + o * o, *H = G + o * m, *B = H + o * m, *MB = B + o * m;
    double *delta = MB + o * m, *row = delta + d;
    for (ptrdiff_t a = 0; a < o; a++) {
        for (ptrdiff_t b = 0; b < o; b++) U[a * o + b] = b < a ? 0.0 : Sigma[columns[a] * d + columns[b]];
        for (ptrdiff_t b = 0; b < m; b++) G[a * m + b] = Sigma[columns[a] * d + missing[b]];
        delta[a] = (x_mean[a] - mu[columns[a]]) + x_rest[a];
    }
    const ptrdiff_t singular = cholesky_upper(U, o, tolerance);
    if (singular >= 0) return columns[singular];
    invert_upper(U, o, row);

    /* H = U^T G, B = U H; P = U U^T, its upper triangle; M = S + w delta delta^T. */
    memset(P, 0, (size_t)(o * o) * sizeof(double));
    memset(H, 0, (size_t)(3 * o * m) * sizeof(double)); /* and B, MB */
    double log_det = 0.0, quadratic = 0.0;
    for (ptrdiff_t i = 0; i < o; i++) {
        log_det += log(U[i * o + i]);
        for (ptrdiff_t a = i; a < o; a++)
            for (ptrdiff_t b = 0; b < m; b++) H[a * m + b] += U[i * o + a] * G[i * m + b];
        for (ptrdiff_t j = 0; j < o; j++) M[i * o + j] = S[i * o + j] + weight * delta[i] * delta[j];
    }
    for (ptrdiff_t i = 0; i < o; i++) {
        for (ptrdiff_t a = i; a < o; a++)
            for (ptrdiff_t b = 0; b < m; b++) B[i * m + b] += U[i * o + a] * H[a * m + b];
        for (ptrdiff_t j = i; j < o; j++) {
            for (ptrdiff_t a = j; a < o; a++) P[i * o + j] += U[i * o + a] * U[j * o + a];
            quadratic += (j == i ? 1.0 : 2.0) * P[i * o + j] * M[i * o + j];
        }
    }
    *log_likelihood += weight * (log_det - 0.91893853320467274178 * (double)o) - 0.5 * quadratic;

    for (ptrdiff_t i = 0; i < o; i++) {
        const ptrdiff_t ci = columns[i];
        for (ptrdiff_t j = 0; j < o; j++) {
            second[ci * d + columns[j]] += M[i * o + j];
            for (ptrdiff_t b = 0; b < m; b++) MB[i * m + b] += M[i * o + j] * B[j * m + b];
        }
        first[ci] += weight * delta[i];
        for (ptrdiff_t b = 0; b < m; b++) {
            first[missing[b]] += weight * delta[i] * B[i * m + b];
            second[ci * d + missing[b]] += MB[i * m + b];
            second[missing[b] * d + ci] += MB[i * m + b];
        }
    }
    for (ptrdiff_t a = 0; a < m; a++)
        for (ptrdiff_t b = 0; b < m; b++) {
            double sum = weight * Sigma[missing[a] * d + missing[b]];
            for (ptrdiff_t i = 0; i < o; i++)
                sum += B[i * m + a] * MB[i * m + b] - weight * H[i * m + a] * H[i * m + b];
            second[missing[a] * d + missing[b]] += sum;
        }
    return -1;
}

#endif
