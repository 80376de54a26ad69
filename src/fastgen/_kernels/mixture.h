/* Mixtures of Gaussians, for _mixture.pyx: the fused E-step, and scores.
 *
 *   l_ik = log pi_k + log N(x_i; component k),   log p(x_i) = log sum_k exp(l_ik),   r_ik = w_i exp(l_ik - log p(x_i))
 *
 * One walk over X in batches of a few tiles. Each tile gets its log-densities and responsibilities; then the batch
 * adds, for each component, sum r, sum r (x - a) and sum r (x - a)(x - a)^T, where a is a point near the component's
 * mean (usually its current mean: nothing cancels). Nothing of size n x K exists unless the caller asks for it.
 *
 * Sums over samples run in 8 logical lanes (sample i in lane i mod 8), which are added up at the end of a call:
 * the same bits for every instruction set with FMA. For many features or components (by_rows) the second moments run
 * along the features of one sample instead, which needs 8 times less memory for the sums.
 */
#ifndef FASTGEN_MIXTURE_H
#define FASTGEN_MIXTURE_H

#include "gaussian.h"

#define LANES 8
#define PER_TILE (TILE / LANES)
/* Tiles in a batch: sums are loaded and stored once for each; the columns' responsibilities stay in registers. */
#define COLUMN_TILES 2
#define BATCH(kind) ((kind) == FULL ? 8 : COLUMN_TILES)
#define ROW_TILES 2 /* the same, by_rows */

/* What e_step found. */
enum { NOT_A_NUMBER = 1, IMPOSSIBLE = 2 };

typedef struct {
    ptrdiff_t d, K;
    const double *means, *factors; /* log_density has the layouts */
    ptrdiff_t factor_size;
    const double *log_norm, *centre;
    const double *log_weights; /* (K,) */
} mixture;

/* Whether second moments run along the features of one sample, because the sums in lanes would leave the caches. */
static ALWAYS_INLINE int by_rows(int kind, ptrdiff_t d, ptrdiff_t K) {
    return kind == FULL && (d > 112 || K * d * d > 1 << 18);
}

/* Doubles for the sums of one component. */
static ALWAYS_INLINE ptrdiff_t sums_size(int kind, ptrdiff_t d, ptrdiff_t K) {
    if (by_rows(kind, d, K)) return LANES + row_step(d) * (1 + row_step(d));
    if (kind == FULL) return LANES * (1 + d + d * (d + 1) / 2);
    return LANES * (1 + d * (kind == TIED ? 1 : kind == DIAG_MISSING ? 3 : 2));
}

/* Doubles of work space that e_step and score need. */
static inline ptrdiff_t mixture_work_size(int kind, ptrdiff_t d, ptrdiff_t K, int moments) {
    const ptrdiff_t batch = BATCH(kind) * TILE, p = row_step(d);
    ptrdiff_t size = batch * (d + K + 1) + 2 * d * TILE + TILE + 64;
    if (moments) size += batch * (3 * p + 4) + K * sums_size(kind, d, K);
    return size;
}

/* l <- log_weight + log-density of each component for one tile. z, y: work space of d x TILE. */
static ALWAYS_INLINE void joint_tile(const int kind, const mixture *m, const double *x, double *z, double *y, double *l,
                                     const tile_source *next) {
    if (kind == TIED) {
        whiten(x, m->d, m->centre, m->factors, z, y, next);
        x = y;
    }
    const int fetch = kind != TIED && (kind != FULL || m->d <= 4); /* the others do it themselves */
    for (ptrdiff_t k = 0; k < m->K; k++) {
        if (fetch && k * 8 < m->d) prefetch_columns(next, 0, TILE, k * 8, VMIN(8, m->d - k * 8));
        component(kind, x, m->d, k, m->means, m->factors, m->factor_size, m->log_norm, m->log_weights[k], z,
                  l + k * TILE, k == 0 ? next : 0);
    }
}

/* Rows of a tile whose log p(x) is not finite: they are left out. x, r, w <- 0; returns why. */
static __attribute__((noinline)) int leave_out(double *x, double *r, double *w, const double *log_p, ptrdiff_t d,
                                               ptrdiff_t K) {
    int found = 0;
    for (ptrdiff_t s = 0; s < TILE; s++) {
        if (log_p[s] - log_p[s] == 0.0) continue;
        int number = 1;
        for (ptrdiff_t j = 0; j < d; j++) {
            number &= x[j * TILE + s] - x[j * TILE + s] == 0.0;
            x[j * TILE + s] = 0.0;
        }
        if (!number)
            found |= NOT_A_NUMBER;
        else if (w[s] > 0.0)
            found |= IMPOSSIBLE;
        w[s] = 0.0;
        for (ptrdiff_t k = 0; k < K; k++) r[k * TILE + s] = 0.0;
    }
    return found;
}

/* r[k] <- w exp(r[k] - log sum exp r) for the tile; log_likelihood += w log p(x), in LANES lanes. */
static ALWAYS_INLINE int responsibilities(double *x, double *r, double *w, double *log_p, ptrdiff_t d, ptrdiff_t K,
                                          double *log_likelihood) {
    vd bad = vset(0.0);
    for (ptrdiff_t s = 0; s < TILE; s += VL) {
        vd top = vload(r + s), sum = vset(0.0);
        for (ptrdiff_t k = 1; k < K; k++) top = vmax(top, vload(r + k * TILE + s));
        for (ptrdiff_t k = 0; k < K; k++) {
            const vd e = vexp_nonpositive(vload(r + k * TILE + s) - top);
            vstore(r + k * TILE + s, e);
            sum += e;
        }
        const vd log_sum = top + vlog(sum), scale = vload(w + s) / sum;
        for (ptrdiff_t k = 0; k < K; k++) vstore(r + k * TILE + s, vload(r + k * TILE + s) * scale);
        vstore(log_p + s, log_sum);
        bad = vfma(log_sum, vset(0.0), bad);
    }
    int found = 0;
    if (__builtin_expect(any_lane(bad), 0)) {
        found = leave_out(x, r, w, log_p, d, K);
        for (ptrdiff_t s = 0; s < TILE; s++)
            if (!(log_p[s] - log_p[s] == 0.0)) log_p[s] = 0.0;
    }
    for (ptrdiff_t s = 0; s < TILE; s += VL) {
        double *sum = log_likelihood + s % LANES;
        vstore(sum, vfma(vload(w + s), vload(log_p + s), vload(sum)));
    }
    return found;
}

/* The sums over a batch, feature-major: x and z as tiles of d features. ------------------------------------------- */

/* Sum r. */
static ALWAYS_INLINE void add_weight(const double *r, ptrdiff_t r_step, const int tiles, double *sum) {
    for (ptrdiff_t t = 0; t < tiles; t++)
        for (ptrdiff_t s = 0; s < TILE; s += VL) {
            double *lane = sum + s % LANES;
            vstore(lane, vload(lane) + vload(r + t * r_step + s));
        }
}

/* sum[i + q][j + v] += rz[q] (x - about)[j + v] for H x W features, those with j + v >= i + q (shift = j - i). x,
 * about: from feature j on. x - about is formed again for each block: additions cost nothing beside as many
 * multiplications. */
static ALWAYS_INLINE void second_block(const double *rz, const double *x, const double *about, const int H, const int W,
                                       const int shift, ptrdiff_t d, ptrdiff_t i, double *sum) {
    for (ptrdiff_t half = 0; half < LANES; half += VL) {
        vd a[4][4], b[4];
        double *row = sum + half; /* of sum[i][j], then [i + 1][j]: rows become shorter */
        EACH(v, W) b[v] = vset(about[v]);
        EACH(q, H) {
            EACH(v, W)
                if (v + shift >= q) a[q][v] = vload(row + v * LANES);
            row += (d - (i + q) - 1) * LANES;
        }
        for (ptrdiff_t t = 0; t < BATCH(FULL); t++)
            for (ptrdiff_t s = half; s < TILE; s += LANES) {
                vd z[4];
                EACH(v, W) z[v] = vload(x + (t * d + v) * TILE + s) - b[v];
                EACH(q, H) {
                    const vd u = in_register(vload(rz + (t * 4 + q) * TILE + s));
                    EACH(v, W)
                        if (v + shift >= q) a[q][v] = vfma(u, z[v], a[q][v]);
                }
            }
        row = sum + half;
        EACH(q, H) {
            EACH(v, W)
                if (v + shift >= q) vstore(row + v * LANES, a[q][v]);
            row += (d - (i + q) - 1) * LANES;
        }
    }
}

/* Rows i..i+H of the second moments, and of the first. */
static ALWAYS_INLINE void second_rows(const double *r, ptrdiff_t r_step, const double *x, const double *about,
                                      ptrdiff_t d, ptrdiff_t i, const int H, double *rz, double *first,
                                      double *second) {
    x += i * TILE;
    about += i;
    for (ptrdiff_t half = 0; half < LANES; half += VL) {
        vd a[4], b[4];
        EACH(q, H) {
            a[q] = vload(first + (i + q) * LANES + half);
            b[q] = vset(about[q]);
        }
        for (ptrdiff_t t = 0; t < BATCH(FULL); t++)
            for (ptrdiff_t s = half; s < TILE; s += LANES) {
                const vd rs = in_register(vload(r + t * r_step + s));
                EACH(q, H) {
                    const vd y = rs * (vload(x + (t * d + q) * TILE + s) - b[q]);
                    vstore(rz + (t * 4 + q) * TILE + s, y);
                    a[q] += y;
                }
            }
        EACH(q, H) vstore(first + (i + q) * LANES + half, a[q]);
    }
    second += (i * d - i * (i - 1) / 2) * LANES; /* of [i][i] */
#if VL == 8
    second_block(rz, x, about, H, H, 0, d, i, second);
    if (H == 4) {
        ptrdiff_t j = 4;
        for (; i + j + 4 <= d; j += 4) second_block(rz, x + j * TILE, about + j, 4, 4, 4, d, i, second + j * LANES);
        x += j * TILE, about += j, second += j * LANES;
        switch (d - i - j) {
        case 3: second_block(rz, x, about, 4, 3, 4, d, i, second); break;
        case 2: second_block(rz, x, about, 4, 2, 4, d, i, second); break;
        case 1: second_block(rz, x, about, 4, 1, 4, d, i, second); break;
        }
    }
#else
    second_block(rz, x, about, VMIN(H, 2), VMIN(H, 2), 0, d, i, second);
    if (H == 3) second_block(rz, x + 2 * TILE, about + 2, 3, 1, 2, d, i, second + 2 * LANES);
    if (H == 4) {
        second_block(rz, x + 2 * TILE, about + 2, 4, 2, 2, d, i, second + 2 * LANES);
        ptrdiff_t j = 4;
        for (; i + j + 2 <= d; j += 2) second_block(rz, x + j * TILE, about + j, 4, 2, 4, d, i, second + j * LANES);
        if (i + j < d) second_block(rz, x + j * TILE, about + j, 4, 1, 4, d, i, second + j * LANES);
    }
#endif
}

/* d <= 4: all sums stay in registers. */
static ALWAYS_INLINE void add_full_small(const double *x, const int d, const double *r, ptrdiff_t r_step,
                                         const double *about, double *sum) {
    for (ptrdiff_t half = 0; half < LANES; half += VL) {
        vd w = vload(sum + half), f[4], a[4][4], b[4];
        double *at = sum + LANES + half;
        EACH(q, d) {
            b[q] = vset(about[q]);
            f[q] = vload(at + q * LANES);
        }
        at += d * LANES;
        EACH(q, d)
            EACH(v, d)
                if (v >= q) a[q][v] = vload(at), at += LANES;
        for (ptrdiff_t t = 0; t < BATCH(FULL); t++)
            for (ptrdiff_t s = half; s < TILE; s += LANES) {
                const vd rs = in_register(vload(r + t * r_step + s));
                vd z[4];
                w += rs;
                EACH(q, d) z[q] = vload(x + (t * d + q) * TILE + s) - b[q];
                EACH(q, d) {
                    const vd y = rs * z[q];
                    f[q] += y;
                    EACH(v, d)
                        if (v >= q) a[q][v] = vfma(y, z[v], a[q][v]);
                }
            }
        vstore(sum + half, w);
        at = sum + LANES + half;
        EACH(q, d) vstore(at + q * LANES, f[q]);
        at += d * LANES;
        EACH(q, d)
            EACH(v, d)
                if (v >= q) vstore(at, a[q][v]), at += LANES;
    }
}

/* Weight, first and second moments of one component; rz: work space. */
static ALWAYS_INLINE void add_full(const double *x, ptrdiff_t d, const double *r, ptrdiff_t r_step, const double *about,
                                   double *rz, double *sum) {
    switch (d) {
    case 1: add_full_small(x, 1, r, r_step, about, sum); return;
    case 2: add_full_small(x, 2, r, r_step, about, sum); return;
    case 3: add_full_small(x, 3, r, r_step, about, sum); return;
    case 4: add_full_small(x, 4, r, r_step, about, sum); return;
    }
    double *first = sum + LANES, *second = first + d * LANES;
    add_weight(r, r_step, BATCH(FULL), sum);
    ptrdiff_t i = 0;
    for (; i + 4 <= d; i += 4) second_rows(r, r_step, x, about, d, i, 4, rz, first, second);
    switch (d - i) {
    case 3: second_rows(r, r_step, x, about, d, i, 3, rz, first, second); break;
    case 2: second_rows(r, r_step, x, about, d, i, 2, rz, first, second); break;
    case 1: second_rows(r, r_step, x, about, d, i, 1, rz, first, second); break;
    }
}

/* Column by column: first moments and, but for TIED, second; DIAG_MISSING: of what is observed, with its weight. */
static ALWAYS_INLINE void add_columns(const int kind, const double *x, ptrdiff_t d, const double *r, ptrdiff_t r_step,
                                      const double *about, double *sum) {
    double *first = sum + LANES, *second = first + d * LANES, *count = second + d * LANES;
    add_weight(r, r_step, COLUMN_TILES, sum);
    for (ptrdiff_t half = 0; half < LANES; half += VL) {
        vd rh[COLUMN_TILES * PER_TILE];
        EACH(i, COLUMN_TILES * PER_TILE) rh[i] = vload(r + i / PER_TILE * r_step + i % PER_TILE * LANES + half);
        for (ptrdiff_t j = 0; j < d; j++) {
            const ptrdiff_t at = j * LANES + half;
            const vd a = vset(about[j]);
            vd f = vload(first + at), q = kind == TIED ? f : vload(second + at);
            vd c = kind == DIAG_MISSING ? vload(count + at) : f;
            EACH(i, COLUMN_TILES * PER_TILE) {
                const vd value = vload(x + (i / PER_TILE * d + j) * TILE + i % PER_TILE * LANES + half);
                vd rs = rh[i], z = value - a;
                if (kind == DIAG_MISSING) {
                    const vi seen = (vi)(value == value);
                    rs = vselect(seen, rs, vset(0.0));
                    z = vselect(seen, z, vset(0.0));
                    c += rs;
                }
                if (kind == TIED)
                    f = vfma(rs, z, f);
                else {
                    const vd y = rs * z;
                    f += y;
                    q = vfma(y, z, q);
                }
            }
            vstore(first + at, f);
            if (kind != TIED) vstore(second + at, q);
            if (kind == DIAG_MISSING) vstore(count + at, c);
        }
    }
}

/* The sums over a batch, sample by sample: rows of p features. ----------------------------------------------------- */

/* The same as add_full. X: `rows` rows of p features. Samples that the component has no part in cost nothing. */
static ALWAYS_INLINE void add_full_rows(const double *X, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t p, const double *r,
                                        ptrdiff_t r_step, const double *about, double *z, double *y, double *sum) {
    double *first = sum + LANES, *second = first + p;
    add_weight(r, r_step, ROW_TILES, sum);
    ptrdiff_t used = 0;
    for (ptrdiff_t s = 0; s < rows; s++) {
        const double share = r[s / TILE * r_step + s % TILE];
        const double *xs = X + s * p;
        double *zs = z + used * p, *ys = y + used * p;
        used += share > 0.0;
        for (ptrdiff_t j = 0; j < p; j += VL) {
            const vd centred = vload(xs + j) - vload(about + j), weighted = vset(share) * centred;
            vstore(zs + j, centred);
            vstore(ys + j, weighted);
            vstore(first + j, vload(first + j) + weighted);
        }
    }
    outer_products(z, y, used, d, p, 1, second);
}

/* Results ------------------------------------------------------------------------------------------------------------
 */

static ALWAYS_INLINE double sum_lanes(const double *lanes) {
    vd a[LANES / VL];
    for (int i = 0; i < LANES / VL; i++) a[i] = vload(lanes + i * VL);
    return hsum8(a);
}

/* weight (K,), first (K, d), second (K, d, d) upper triangle or (K, d), count (K, d) <- the sums. */
static ALWAYS_INLINE void store_sums(const int kind, ptrdiff_t d, ptrdiff_t K, const double *sums, double *weight,
                                     double *first, double *second, double *count) {
    const ptrdiff_t p = row_step(d), size = sums_size(kind, d, K);
    for (ptrdiff_t k = 0; k < K; k++, sums += size) {
        const double *sum = sums + LANES;
        weight[k] = sum_lanes(sums);
        if (by_rows(kind, d, K)) {
            memcpy(first + k * d, sum, (size_t)d * sizeof(double));
            for (ptrdiff_t i = 0; i < d; i++)
                memcpy(second + (k * d + i) * d + i, sum + p + i * p + i, (size_t)(d - i) * sizeof(double));
            continue;
        }
        for (ptrdiff_t j = 0; j < d; j++, sum += LANES) first[k * d + j] = sum_lanes(sum);
        if (kind == FULL)
            for (ptrdiff_t i = 0; i < d; i++)
                for (ptrdiff_t j = i; j < d; j++, sum += LANES) second[(k * d + i) * d + j] = sum_lanes(sum);
        else if (kind != TIED)
            for (ptrdiff_t j = 0; j < d; j++, sum += LANES) second[k * d + j] = sum_lanes(sum);
        if (kind == DIAG_MISSING)
            for (ptrdiff_t j = 0; j < d; j++, sum += LANES) count[k * d + j] = sum_lanes(sum);
    }
}

/* The E-step over n rows of X: log_likelihood, weight (K,), first (K, d) moments about `about` (K, row_step(d)),
 * second: FULL (K, d, d); TIED none; else (K, d). DIAG_MISSING: count (K, d). Rows that hold NaN or inf (not
 * DIAG_MISSING) are left out, and complete rows that no component can have made: returns which were seen. */
static ALWAYS_INLINE int e_step_tiles(const int kind, const int single, const mixture *m, const void *x, ptrdiff_t n,
                                      ptrdiff_t row_stride, ptrdiff_t column_stride, const double *weights,
                                      ptrdiff_t weight_stride, const double *about, double *log_likelihood,
                                      double *weight, double *first, double *second, double *count, double *work) {
    const ptrdiff_t d = m->d, K = m->K, p = row_step(d), size = sums_size(kind, d, K);
    const ptrdiff_t bytes = single ? sizeof(float) : sizeof(double);
    const int rowwise = by_rows(kind, d, K);
    const ptrdiff_t tiles = rowwise ? ROW_TILES : BATCH(kind), batch = tiles * TILE;
    double *xt = aligned(work), *r = xt + batch * d, *w = r + batch * K, *log_p = w + batch, *z = log_p + TILE;
    double *y = z + d * TILE, *rows = y + d * TILE, *centred = rows + batch * p, *weighted = centred + batch * p;
    double *rz = weighted + batch * p, *sums = rz + batch * 4;
    double lanes[LANES] = {0};
    int found = 0;
    memset(sums, 0, (size_t)(K * size) * sizeof(double));
    for (ptrdiff_t i = 0; i < n; i += batch) {
        const ptrdiff_t here = VMIN(batch, n - i);
        const char *xi = (const char *)x + i * row_stride * bytes;
        for (ptrdiff_t s = 0; s < batch; s++) w[s] = s >= here ? 0.0 : weights ? weights[(i + s) * weight_stride] : 1.0;
        for (ptrdiff_t t = 0; t < tiles; t++) {
            double *tile = xt + t * d * TILE, *rt = r + t * K * TILE;
            if (t * TILE >= here) { /* what is not there has no part in anything */
                memset(tile, 0, (size_t)(d * TILE) * sizeof(double));
                memset(rt, 0, (size_t)(K * TILE) * sizeof(double));
                continue;
            }
            const char *source = xi + t * TILE * row_stride * bytes;
            const tile_source next = {source + TILE * row_stride * bytes, row_stride * bytes, column_stride * bytes};
            load_tile(source, single, VMIN(TILE, here - t * TILE), d, row_stride, column_stride, tile);
            joint_tile(kind, m, tile, z, y, rt, &next);
            found |= responsibilities(tile, rt, w + t * TILE, log_p, d, K, lanes);
        }
        if (rowwise) load_rows(xi, single, here, d, p, row_stride, column_stride, 0, 0, rows, rz);
        for (ptrdiff_t k = 0; k < K; k++) {
            const double *rk = r + k * TILE;
            if (kind != FULL)
                add_columns(kind, xt, d, rk, K * TILE, about + k * p, sums + k * size);
            else if (!rowwise)
                add_full(xt, d, rk, K * TILE, about + k * p, rz, sums + k * size);
            else
                add_full_rows(rows, here, d, p, rk, K * TILE, about + k * p, centred, weighted, sums + k * size);
        }
    }
    store_sums(kind, d, K, sums, weight, first, second, count);
    *log_likelihood = sum_lanes(lanes);
    return found;
}

/* Missing values ------------------------------------------------------------------------------------------------------
 *
 * Rows that miss the same columns come in pieces of at most PIECE rows. Each piece gets its responsibilities from the
 * marginal densities, then, for each component, the moments of its observed part; expect_pattern does the rest.
 */
#define PIECE 64

/* Doubles of work space that missing_e_step needs. */
static inline ptrdiff_t missing_work_size(ptrdiff_t d, ptrdiff_t K) {
    return 2 * d * d + 4 * d + PIECE * (K + d) + expect_work_size(d);
}

/* l[s] <- log N(x_o; mu_o, Sigma_oo) of the rows of a piece. Returns 0, or -1 if Sigma_oo is singular. */
static int marginal_density(const double *x, ptrdiff_t rows, const double *mu, const double *Sigma, ptrdiff_t d,
                            const ptrdiff_t *columns, ptrdiff_t o, double *U, double *z, double *l) {
    double norm = -0.91893853320467274178 * (double)o;
    for (ptrdiff_t a = 0; a < o; a++)
        for (ptrdiff_t b = 0; b < o; b++) U[a * o + b] = b < a ? 0.0 : Sigma[columns[a] * d + columns[b]];
    if (cholesky_upper(U, o, 0.0) >= 0) return -1;
    invert_upper(U, o, z);
    for (ptrdiff_t a = 0; a < o; a++) norm += log(U[a * o + a]);
    for (ptrdiff_t s = 0; s < rows; s++) {
        double *y = z + o, square = 0.0;
        for (ptrdiff_t a = 0; a < o; a++) y[a] = 0.0;
        for (ptrdiff_t a = 0; a < o; a++) {
            const double za = x[s * o + a] - mu[columns[a]];
            for (ptrdiff_t b = a; b < o; b++) y[b] += U[a * o + b] * za;
        }
        for (ptrdiff_t a = 0; a < o; a++) square += y[a] * y[a];
        l[s] = norm - 0.5 * square;
    }
    return 0;
}

/* Weighted mean of the rows of a piece, as centre (the component's mean) + rest, and scatter (o, o) about it; returns
 * their weight. */
static double piece_moments(const double *x, const double *r, ptrdiff_t rows, const double *mu,
                            const ptrdiff_t *columns, ptrdiff_t o, double *centre, double *rest, double *z, double *S) {
    double weight = 0.0;
    for (ptrdiff_t s = 0; s < rows; s++) weight += r[s];
    if (!(weight > 0.0)) return 0.0;
    for (ptrdiff_t a = 0; a < o; a++) {
        centre[a] = mu[columns[a]];
        rest[a] = 0.0;
    }
    for (ptrdiff_t s = 0; s < rows; s++)
        for (ptrdiff_t a = 0; a < o; a++) rest[a] += r[s] / weight * (x[s * o + a] - centre[a]);
    memset(S, 0, (size_t)(o * o) * sizeof(double));
    for (ptrdiff_t s = 0; s < rows; s++) {
        for (ptrdiff_t a = 0; a < o; a++) z[a] = (x[s * o + a] - centre[a]) - rest[a];
        for (ptrdiff_t a = 0; a < o; a++)
            for (ptrdiff_t b = 0; b < o; b++) S[a * o + b] += r[s] * z[a] * z[b];
    }
    return weight;
}

/* The E-step over pieces of incomplete rows. columns: (pieces, d), the observed ones first; observed: (pieces,) how
 * many; rows: (pieces + 1,) where the rows of each begin; values: (pieces + 1,) where their observed values begin in x.
 * Adds to log_likelihood, weight (K,), first (K, d) and second (K, d, d) moments about the means.
 * Returns what e_step does, or -1 - k: the covariance of component k is singular. */
static ptrdiff_t missing_e_step(ptrdiff_t pieces, ptrdiff_t d, ptrdiff_t K, const ptrdiff_t *columns,
                                const ptrdiff_t *observed, const ptrdiff_t *rows, const ptrdiff_t *values,
                                const double *x, const double *weights, const double *means, const double *covariances,
                                const double *log_weights, double *log_likelihood, double *weight, double *first,
                                double *second, double *work) {
    double *U = work, *S = U + d * d, *z = S + d * d, *mean = z + 2 * d, *rest = mean + d, *l = rest + d;
    double *expect_work = l + PIECE * K + PIECE * d, unused = 0.0;
    ptrdiff_t found = 0;
    for (ptrdiff_t i = 0; i < pieces; i++) {
        const ptrdiff_t o = observed[i], n = rows[i + 1] - rows[i], *at = columns + i * d;
        const double *xi = x + values[i], *wi = weights + rows[i];
        for (ptrdiff_t k = 0; k < K; k++) {
            if (marginal_density(xi, n, means + k * d, covariances + k * d * d, d, at, o, U, z, l + k * PIECE))
                return -1 - k;
            for (ptrdiff_t s = 0; s < n; s++) l[k * PIECE + s] += log_weights[k];
        }
        for (ptrdiff_t s = 0; s < n; s++) {
            double top = -INFINITY, sum = 0.0;
            for (ptrdiff_t k = 0; k < K; k++) top = l[k * PIECE + s] > top ? l[k * PIECE + s] : top;
            const int possible = top - top == 0.0;
            if (!possible && wi[s] > 0.0) found |= IMPOSSIBLE;
            for (ptrdiff_t k = 0; k < K; k++) {
                l[k * PIECE + s] = possible ? vexp(vset(l[k * PIECE + s] - top))[0] : 0.0;
                sum += l[k * PIECE + s];
            }
            if (possible) *log_likelihood += wi[s] * (top + vlog(vset(sum))[0]);
            for (ptrdiff_t k = 0; k < K; k++) l[k * PIECE + s] *= possible ? wi[s] / sum : 0.0;
        }
        for (ptrdiff_t k = 0; k < K; k++) {
            const double W = piece_moments(xi, l + k * PIECE, n, means + k * d, at, o, mean, rest, z, S);
            if (!(W > 0.0)) continue;
            weight[k] += W;
            if (expect_pattern(means + k * d, covariances + k * d * d, d, at, o, W, mean, rest, S, 0.0, first + k * d,
                               second + k * d * d, &unused, expect_work) >= 0)
                return -1 - k;
        }
    }
    return found;
}

/* log p(x), the posterior p(k | x), or the most probable component: whichever is not NULL. Returns whether a row's
 * log p(x) or best l_ik is not finite. */
static ALWAYS_INLINE int score_tiles(const int kind, const int single, const mixture *m, const void *x, ptrdiff_t n,
                                     ptrdiff_t row_stride, ptrdiff_t column_stride, void *log_prob, void *posterior,
                                     int out_single, ptrdiff_t *labels, double *work) {
    const ptrdiff_t d = m->d, K = m->K, bytes = single ? sizeof(float) : sizeof(double);
    double *xt = aligned(work), *l = xt + d * TILE, *z = l + K * TILE, *y = z + d * TILE, *best = y + d * TILE;
    vd bad = vset(0.0);
    for (ptrdiff_t i = 0; i < n; i += TILE) {
        const ptrdiff_t rows = VMIN(TILE, n - i);
        const char *source = (const char *)x + i * row_stride * bytes;
        const tile_source next = {source + TILE * row_stride * bytes, row_stride * bytes, column_stride * bytes};
        load_tile(source, single, rows, d, row_stride, column_stride, xt);
        joint_tile(kind, m, xt, z, y, l, &next);
        for (ptrdiff_t s = 0; s < TILE; s += VL) {
            vd value;
            if (labels) {
                vi arg = (vi)vset(0.0);
                value = vload(l + s);
                for (ptrdiff_t k = 1; k < K; k++) {
                    const vd lk = vload(l + k * TILE + s);
                    const vi better = (vi)(lk > value);
                    value = vselect(better, lk, value);
                    arg = (better & k) | (~better & arg);
                }
                for (ptrdiff_t q = 0; q < VMIN(VL, rows - s); q++) labels[i + s + q] = arg[q];
            } else
                value = posterior ? lse_lanes(l + s, K, TILE, 1, 1) : lse_lanes(l + s, K, TILE, 1, 0);
            vstore(best + s, value);
            bad = vfma(value, vset(0.0), bad);
        }
        if (log_prob) store_tile(best, rows, 1, (char *)log_prob + i * (out_single ? 4 : 8), out_single, 1, 1);
        if (posterior) store_tile(l, rows, K, (char *)posterior + i * K * (out_single ? 4 : 8), out_single, K, 1);
    }
    return any_lane(bad);
}

#define BY_KIND(call)                                                                                                  \
    switch (kind) {                                                                                                    \
    case FULL: return single ? call(FULL, 1) : call(FULL, 0);                                                          \
    case TIED: return single ? call(TIED, 1) : call(TIED, 0);                                                          \
    case DIAG: return single ? call(DIAG, 1) : call(DIAG, 0);                                                          \
    case DIAG_MISSING: return single ? call(DIAG_MISSING, 1) : call(DIAG_MISSING, 0);                                  \
    case SPHERICAL: return single ? call(SPHERICAL, 1) : call(SPHERICAL, 0);                                           \
    }                                                                                                                  \
    return -1

static int mixture_e_step(int kind, int single, const mixture *m, const void *x, ptrdiff_t n, ptrdiff_t row_stride,
                          ptrdiff_t column_stride, const double *weights, ptrdiff_t weight_stride, const double *about,
                          double *log_likelihood, double *weight, double *first, double *second, double *count,
                          double *work) {
#define CALL(kind, single)                                                                                             \
    e_step_tiles(kind, single, m, x, n, row_stride, column_stride, weights, weight_stride, about, log_likelihood,      \
                 weight, first, second, count, work)
    BY_KIND(CALL);
#undef CALL
}

static int mixture_score(int kind, int single, const mixture *m, const void *x, ptrdiff_t n, ptrdiff_t row_stride,
                         ptrdiff_t column_stride, void *log_prob, void *posterior, int out_single, ptrdiff_t *labels,
                         double *work) {
#define CALL(kind, single)                                                                                             \
    score_tiles(kind, single, m, x, n, row_stride, column_stride, log_prob, posterior, out_single, labels, work)
    BY_KIND(CALL);
#undef CALL
}

#endif
