/* Belief propagation on pairs of variables with K states each: all messages at once (flooding).
 *
 * LANES variables with the same number of neighbours stand side by side in the lanes of vectors: a block. What its
 * variables say, or are told, along one slot (to their first neighbour, to their second, ...) is a message block of
 * K x LANES numbers; that of slot s of block b is number first[b] + s step[b].
 *
 * Each edge has two places for messages, one with each of its ends. A variable needs what it is told once, and
 * nobody else needs it: what it says to the same neighbour can take that place. So in one sweep it reads and writes
 * its own places; in the next, what it is told stands with its neighbours, and it reads and writes there. One array
 * is enough, and a sweep reads and writes each message once. Only a sweep that compares new messages with old ones,
 * or mixes them, goes from one array to another.
 *
 * Messages of neighbours are whole blocks wherever 8 variables have their neighbours in the 8 lanes of one block
 * (partner >= 0: its number), and are fetched one by one elsewhere (~partner: where the 8 addresses begin in lists).
 *
 * Each number of a message costs K multiply-adds and, in a grid, three multiplications: from K = 4 on, these units are
 * what limits speed, not memory.
 */
#ifndef FASTGEN_MESSAGES_H
#define FASTGEN_MESSAGES_H

#include "tile.h"

#define LANES 8
#define PARTS (LANES / VL) /* vectors in a row of lanes */
#define STATES VL          /* of a tile: VL * PARTS = 8 sums at once, for a multiply-add takes 4 cycles on 2 units */
#define BLOCK_FIELDS 4
#define FEW_SLOTS 4

enum { RUNNING, STOPPED, CONVERGED, DEAD };

typedef struct {
    ptrdiff_t K, most_slots;
    int maximum;
    double damping;
    const ptrdiff_t *blocks;  /* (blocks, BLOCK_FIELDS): slots, first, step, how many variables */
    const double *unary;      /* (blocks, K, LANES) */
    const ptrdiff_t *partner; /* of each message block */
    const ptrdiff_t *lists;   /* (irregular message blocks, LANES) */
    const ptrdiff_t *table;   /* of each message block: where its table begins; ~ of it if each lane has its own */
    const double *tables;     /* K x K from a state to the neighbour's, or K x K x LANES */
} message_graph;

/* Doubles of work space for one thread. */
static ptrdiff_t messages_work_size(ptrdiff_t K, ptrdiff_t most_slots) {
    return (2 * most_slots + 3) * K * LANES + most_slots + 8;
}

/* out (K, LANES) <- messages[at[lane] + LANES x]. */
static inline void fetch_lanes(const double *messages, ptrdiff_t K, const ptrdiff_t *at, double *out) {
    const double *m[LANES];
    EACH(lane, LANES) m[lane] = messages + at[lane];
    for (ptrdiff_t i = 0; i < K * LANES; i += LANES)
        EACH(v, PARTS) {
            const double *const *l = m + v * VL;
#if VL == 8 /* vectors: what is stored number by number cannot be read as one at once */
            vstore(out + i, (vd){l[0][i], l[1][i], l[2][i], l[3][i], l[4][i], l[5][i], l[6][i], l[7][i]});
#elif VL == 4
            vstore(out + i + v * VL, (vd){l[0][i], l[1][i], l[2][i], l[3][i]});
#else
            vstore(out + i + v * VL, (vd){l[0][i], l[1][i]});
#endif
        }
}

static inline void send_lanes(const double *message, ptrdiff_t K, const ptrdiff_t *at, double *out) {
    double *m[LANES];
    EACH(lane, LANES) m[lane] = out + at[lane];
    for (ptrdiff_t i = 0; i < K * LANES; i += LANES)
        EACH(lane, LANES) m[lane][i] = message[i + lane];
}

/* out[lane][0 to 3] <- four states of four lanes. */
static ALWAYS_INLINE void four_by_four(const double *m, double *const out[4]) {
    v4d r[4], t[4];
    EACH(x, 4) r[x] = *(const v4d_any *)(m + x * LANES);
    for (int i = 0; i < 2; i++) {
        t[i] = __builtin_shufflevector(r[2 * i], r[2 * i + 1], 0, 4, 2, 6);
        t[i + 2] = __builtin_shufflevector(r[2 * i], r[2 * i + 1], 1, 5, 3, 7);
    }
    *(v4d_any *)out[0] = __builtin_shufflevector(t[0], t[1], 0, 1, 4, 5);
    *(v4d_any *)out[1] = __builtin_shufflevector(t[2], t[3], 0, 1, 4, 5);
    *(v4d_any *)out[2] = __builtin_shufflevector(t[0], t[1], 2, 3, 6, 7);
    *(v4d_any *)out[3] = __builtin_shufflevector(t[2], t[3], 2, 3, 6, 7);
}

/* out[half ^ turned] <- what is said along the half-edge of each lane of the message blocks start to stop, K states. */
static void collect_messages(const double *messages, ptrdiff_t K, const ptrdiff_t *half, int turned, ptrdiff_t start,
                             ptrdiff_t stop, double *out) {
    for (ptrdiff_t lanes = start * LANES; lanes < stop * LANES; lanes += 4) {
        const double *m = messages + lanes / LANES * K * LANES + lanes % LANES;
        double *to[4];
        int all = 1;
        for (int i = 0; i < 4; i++) {
            all &= half[lanes + i] >= 0;
            to[i] = out + (half[lanes + i] < 0 ? 0 : half[lanes + i] ^ turned) * K;
        }
        ptrdiff_t x = 0;
        for (; VL >= 4 && all && x + 4 <= K; x += 4) { /* SSE has no such vectors */
            double *const here[4] = {to[0] + x, to[1] + x, to[2] + x, to[3] + x};
            four_by_four(m + x * LANES, here);
        }
        for (; x < K; x++)
            for (int i = 0; i < 4; i++)
                if (half[lanes + i] >= 0) to[i][x] = m[x * LANES + i];
    }
}

/* out (slots, K, LANES) <- unary times what comes in along all other slots. */
static ALWAYS_INLINE void few_products(const int slots, ptrdiff_t K, const double *unary, const double *const *in,
                                       double *out) {
    const double *source[FEW_SLOTS];
    EACH(s, slots) source[s] = in[s];
    for (ptrdiff_t i = 0; i < K * LANES; i += VL) {
        vd told[FEW_SLOTS], before[FEW_SLOTS], product = vload(unary + i);
        EACH(s, slots) {
            told[s] = vload(source[s] + i);
            before[s] = product;
            product *= told[s];
        }
        vstore(out + (slots - 1) * K * LANES + i, before[slots - 1]);
        product = told[slots - 1];
        EACH(s, slots - 1) {
            vstore(out + (slots - 2 - s) * K * LANES + i, before[slots - 2 - s] * product);
            product *= told[slots - 2 - s];
        }
    }
}

static ALWAYS_INLINE void products(ptrdiff_t slots, ptrdiff_t K, const double *unary, const double *const *in,
                                   double *out) {
    switch (slots) {
    case 1: few_products(1, K, unary, in, out); return;
    case 2: few_products(2, K, unary, in, out); return;
    case 3: few_products(3, K, unary, in, out); return;
    case 4: few_products(4, K, unary, in, out); return;
    }
    for (ptrdiff_t i = 0; i < K * LANES; i += VL) {
        vd product = vload(unary + i);
        for (ptrdiff_t s = 0; s < slots; s++) {
            vstore(out + s * K * LANES + i, product);
            product *= vload(in[s] + i);
        }
        product = vload(in[slots - 1] + i);
        for (ptrdiff_t s = slots - 2; s >= 0; s--) {
            double *mine = out + s * K * LANES + i;
            vstore(mine, vload(mine) * product);
            product *= vload(in[s] + i);
        }
    }
}

/* sum[y] <- sum or maximum over x of t[x, y] p[x], for `states` y, and their largest. */
static ALWAYS_INLINE void tile_of_states(const int states, const int own, const int maximum, ptrdiff_t K,
                                         const double *t, const double *p, vd sum[STATES][PARTS], vd peak[PARTS]) {
    EACH(y, states)
        EACH(v, PARTS) sum[y][v] = vset(0.0);
    for (ptrdiff_t x = 0; x < K; x++) {
        EACH(y, states)
            EACH(v, PARTS) {
                const vd value = vload(p + x * LANES + v * VL);
                const vd entry = own ? vload(t + (x * K + y) * LANES + v * VL) : vset(t[x * K + y]);
                sum[y][v] = maximum ? vmax(entry * value, sum[y][v]) : vfma(entry, value, sum[y][v]);
            }
    }
    EACH(v, PARTS) { /* not one after the other: that takes long */
        vd top[STATES];
        EACH(y, states) top[y] = sum[y][v];
        EACH(y, 4)
            if (y + 4 < states) top[y] = vmax(top[y + 4], top[y]);
        EACH(y, 2)
            if (y + 2 < states) top[y] = vmax(top[y + 2], top[y]);
        peak[v] = states > 1 ? vmax(top[1], top[0]) : top[0];
    }
}

/* What is to be done with what is said along a slot: divided by its largest entry, mixed with `was` and compared, if
 * there is that, and sent to `out`. */
typedef struct {
    const double *was;
    double *out;
    double keep, damping;
} delivery;

static ALWAYS_INLINE void deliver(const delivery *d, ptrdiff_t i, vd value, vd scale, vd *most) {
    value *= scale;
    if (d->was) {
        const vd last = vload(d->was + i);
        value = vfma(vset(d->keep), value, vset(d->damping) * last);
        const vd moved = value - last;
        *most = vmax(vmax(moved, -moved), *most);
    }
    vstore(d->out + i, value);
}

static ALWAYS_INLINE void reciprocals(const vd peak[PARTS], const vi valid[PARTS], vi dead[PARTS], vd scale[PARTS]) {
    EACH(v, PARTS) {
        dead[v] |= (vi)(peak[v] <= vset(0.0)) & valid[v];
        scale[v] = vset(1.0) / vmax(peak[v], vset(0x1p-1022)); /* of subnormal numbers, it may not be finite */
    }
}

/* K <= STATES: all sums stay in registers. */
static ALWAYS_INLINE void say_few(const int K, const int own, const int maximum, const double *t, const double *p,
                                  const delivery *d, const vi valid[PARTS], vi dead[PARTS], vd most[PARTS]) {
    vd sum[STATES][PARTS], peak[PARTS], scale[PARTS];
    tile_of_states(K, own, maximum, K, t, p, sum, peak);
    reciprocals(peak, valid, dead, scale);
    EACH(y, K)
        EACH(v, PARTS) deliver(d, y * LANES + v * VL, sum[y][v], scale[v], &most[v]);
}

/* The same for `states` y from y on, into result (K, LANES). */
static ALWAYS_INLINE void some_states(const int states, const int own, const int maximum, ptrdiff_t K, ptrdiff_t y,
                                      const double *t, const double *p, double *result, vd peak[PARTS]) {
    vd sum[STATES][PARTS], top[PARTS];
    tile_of_states(states, own, maximum, K, t + y * (own ? LANES : 1), p, sum, top);
    EACH(i, states)
        EACH(v, PARTS) vstore(result + (y + i) * LANES + v * VL, sum[i][v]);
    EACH(v, PARTS) peak[v] = vmax(top[v], peak[v]);
}

/* K > STATES / 2. Few sums at once would wait for each other: the last tile may overlap the one before. */
static ALWAYS_INLINE void say_many(const int own, const int maximum, ptrdiff_t K, const double *t, const double *p,
                                   double *result, const delivery *d, const vi valid[PARTS], vi dead[PARTS],
                                   vd most[PARTS]) {
    vd peak[PARTS], scale[PARTS];
    EACH(v, PARTS) peak[v] = vset(0.0);
    ptrdiff_t y = 0;
    for (; y + STATES <= K; y += STATES) some_states(STATES, own, maximum, K, y, t, p, result, peak);
    if (!y) {
        some_states(STATES / 2, own, maximum, K, y, t, p, result, peak);
        y = STATES / 2;
    }
    if (K - y > STATES / 2)
        some_states(STATES, own, maximum, K, K - STATES, t, p, result, peak);
    else if (K - y > STATES / 4)
        some_states(STATES / 2, own, maximum, K, K - STATES / 2, t, p, result, peak);
    else if (K > y)
        some_states(VMAX(STATES / 4, 1), own, maximum, K, K - VMAX(STATES / 4, 1), t, p, result, peak);
    reciprocals(peak, valid, dead, scale);
    for (ptrdiff_t i = 0; i < K * LANES; i += LANES)
        EACH(v, PARTS) deliver(d, i + v * VL, vload(result + i + v * VL), scale[v], &most[v]);
}

/* One sweep over the blocks start to stop: what they are told is in `old`, with the neighbours if `away`. In place
 * if new is old; else new messages go to the variables' own places in `new`, and *change <- the largest change.
 * Returns whether a message is 0. */
static int flood_blocks(const message_graph *g, const double *old, double *new, int away, ptrdiff_t start,
                        ptrdiff_t stop, double *change, double *work) {
    const ptrdiff_t K = g->K, size = K * LANES;
    const int copy = new != old, kind = K <= STATES ? (int)K : 0;
    double *product = aligned(work), *fetched = product + g->most_slots * size;
    double *result = fetched + g->most_slots * size, *sent = result + size, *before = sent + size;
    const double **in = (const double **)(before + size);
    delivery d = {NULL, NULL, 1.0 - g->damping, g->damping};
    vd largest[PARTS];
    vi dead[PARTS];
    EACH(v, PARTS) largest[v] = vset(0.0), dead[v] = (vi)vset(0.0);
    for (ptrdiff_t b = start; b < stop; b++) {
        const ptrdiff_t *block = g->blocks + b * BLOCK_FIELDS, slots = block[0], step = block[2];
        vi valid[PARTS];
        EACH(v, PARTS)
            for (int lane = 0; lane < VL; lane++) valid[v][lane] = -(v * VL + lane < block[3]);
        ptrdiff_t number = block[1];
        for (ptrdiff_t s = 0; s < slots; s++, number += step) {
            const ptrdiff_t partner = away ? g->partner[number] : number;
            in[s] = old + partner * size;
            if (partner < 0) {
                in[s] = fetched + s * size;
                fetch_lanes(old, K, g->lists + ~partner * LANES, fetched + s * size);
            }
        }
        products(slots, K, g->unary + b * size, in, product);
        number = block[1];
        for (ptrdiff_t s = 0; s < slots; s++, number += step) {
            const ptrdiff_t partner = away != copy ? g->partner[number] : number;
            const ptrdiff_t *list = partner < 0 ? g->lists + ~partner * LANES : NULL;
            if (copy) {
                d.was = list ? before : old + partner * size;
                d.out = new + number *size;
                if (list) fetch_lanes(old, K, list, before);
            } else
                d.out = list ? sent : new + partner *size;
            const int own = g->table[number] < 0;
            const double *t = g->tables + (own ? ~g->table[number] : g->table[number]), *p = product + s * size;
            vd most[PARTS];
            EACH(v, PARTS) most[v] = vset(0.0);
#define SAY_SHARED(K)                                                                                                  \
    case 4 * K: say_few(K, 0, 0, t, p, &d, valid, dead, most); break;                                                  \
    case 4 * K + 1: say_few(K, 0, 1, t, p, &d, valid, dead, most); break;
#define SAY_OWN(K)                                                                                                     \
    case 4 * K + 2: say_few(K, 1, 0, t, p, &d, valid, dead, most); break;                                              \
    case 4 * K + 3: say_few(K, 1, 1, t, p, &d, valid, dead, most); break;
            switch (4 * kind + 2 * own + g->maximum) {
                SAY_SHARED(1)
                SAY_OWN(1)
                SAY_SHARED(2)
                SAY_OWN(2)
#if STATES >= 4
                SAY_SHARED(3)
                SAY_OWN(3)
                SAY_SHARED(4)
                SAY_OWN(4)
#endif
#if STATES >= 8 /* with tables of their own, more states wait for memory */
                SAY_SHARED(5)
                SAY_SHARED(6)
                SAY_SHARED(7)
                SAY_SHARED(8)
#endif
            default:
                if (own)
                    if (g->maximum)
                        say_many(1, 1, K, t, p, result, &d, valid, dead, most);
                    else
                        say_many(1, 0, K, t, p, result, &d, valid, dead, most);
                else if (g->maximum)
                    say_many(0, 1, K, t, p, result, &d, valid, dead, most);
                else
                    say_many(0, 0, K, t, p, result, &d, valid, dead, most);
            }
            if (copy)
                EACH(v, PARTS) largest[v] = vmax(vselect(valid[v], most[v], vset(0.0)), largest[v]);
            else if (list)
                send_lanes(sent, K, list, new);
        }
    }
    EACH(v, PARTS)
        for (int lane = 0; lane < VL; lane++) *change = VMAX(*change, largest[v][lane]);
    int found = 0;
    EACH(v, PARTS) found |= any_lane((vd)dead[v]); /* all ones is NaN */
    return found;
}

/* Sweeps that several threads share. A stage is a sweep, or a trial of one part of it; its parts are handed out one by
 * one, and who finishes the last opens the next stage. */
typedef struct {
    int64_t state;           /* see above */
    int64_t sweeps;          /* that are finished */
    int64_t kind;            /* of the stage */
    int64_t holds, away;     /* which array holds what is told, and whether it stands with the neighbours */
    int64_t taken, finished; /* parts of all stages */
    int64_t stage;           /* that is open */
} flood_progress;

/* How a stage goes about its sweep. Only the last sweep has to tell the largest change. Of others, a single part that
 * still changes by more than tol is enough to know that messages have not converged. */
enum { IN_PLACE, COPY, TRIAL };

/* The kind of the stage that begins the next sweep. */
static int64_t first_stage(const flood_progress *f, int64_t every, int64_t last, int damped) {
    if (damped || f->sweeps + 1 == last) return COPY;
    return (f->sweeps + 1) % every ? IN_PLACE : TRIAL;
}

/* All parts of a stage are finished: what comes next. */
static void next_stage(flood_progress *f, int64_t every, int64_t last, int64_t stop, int damped, double tol,
                       const double *changes, int64_t parts) {
    if (f->kind == TRIAL) {
        f->kind = changes[parts / 2] > tol ? IN_PLACE : COPY;
        return;
    }
    double change = 0.0;
    for (int64_t i = 0; i < parts; i++) change = VMAX(change, changes[i]);
    f->sweeps++;
    f->away = f->kind == COPY || !f->away;
    if (f->kind == COPY) f->holds = !f->holds;
    if (f->kind == COPY && change <= tol)
        __atomic_store_n(&f->state, CONVERGED, __ATOMIC_RELAXED);
    else if (f->sweeps == stop)
        __atomic_store_n(&f->state, STOPPED, __ATOMIC_RELAXED);
    f->kind = first_stage(f, every, last, damped);
}

static ALWAYS_INLINE void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* One thread's share of the sweeps up to number `stop`, of `last`. Messages are compared after `every` sweeps, after
 * the last, and after each if they are damped. It ends earlier when the largest change is at most tol, or when a
 * message is 0. changes (parts,). pending: -1, or what the last call returned: the number of a part whose turn had not
 * come after some time, for other threads have not finished theirs. Returns -1 when nothing is left to do. */
static int64_t flood_sweeps(const message_graph *g, double *one, double *other, ptrdiff_t blocks, ptrdiff_t part,
                            int64_t every, int64_t stop, int64_t last, double tol, flood_progress *f, double *changes,
                            int64_t pending, double *work) {
    const int64_t parts = (blocks + part - 1) / part;
    for (;;) {
        const int64_t mine = pending >= 0 ? pending : __atomic_fetch_add(&f->taken, 1, __ATOMIC_RELAXED);
        const int64_t stage = mine / parts, p = mine % parts;
        pending = -1;
        for (int tries = 0; __atomic_load_n(&f->stage, __ATOMIC_ACQUIRE) < stage; tries++) {
            if (__atomic_load_n(&f->state, __ATOMIC_RELAXED) != RUNNING) return -1;
            if (tries == 4000) return mine;
            relax();
        }
        if (__atomic_load_n(&f->state, __ATOMIC_RELAXED) != RUNNING) return -1;
        double *old = f->holds ? other : one, *new = f->kind == IN_PLACE ? old : f->holds ? one : other;
        if (f->kind != TRIAL || p == parts / 2) {
            double change = 0.0;
            if (flood_blocks(g, old, new, (int)f->away, p * part, VMIN(blocks, (p + 1) * part), &change, work)) {
                __atomic_store_n(&f->state, DEAD, __ATOMIC_RELAXED);
                return -1;
            }
            changes[p] = change;
        }
        if (__atomic_add_fetch(&f->finished, 1, __ATOMIC_ACQ_REL) == (stage + 1) * parts) {
            next_stage(f, every, last, stop, g->damping > 0.0, tol, changes, parts);
            __atomic_store_n(&f->stage, stage + 1, __ATOMIC_RELEASE);
        }
    }
}

#endif
