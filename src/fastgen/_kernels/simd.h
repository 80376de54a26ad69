/* Vectors of doubles, exp, log and log-sum-exp: the base of every kernel.
 *
 * One source serves all instruction sets: `vd` holds VL doubles (8 with AVX-512, 4 with AVX2, 2 with
 * SSE2 or NEON). Only GCC/Clang vector extensions and one intrinsic per instruction set (the fused
 * multiply-add) are used. Kernels that work lane by lane in the same order give the same bits in every
 * variant that has FMA; kernels that add across lanes use 8 logical lanes (`hsum8`).
 *
 * Never compile this with -ffast-math or -fassociative-math: exp and log rely on the order of operations.
 */
#ifndef FASTGEN_SIMD_H
#define FASTGEN_SIMD_H

#if !defined(__GNUC__) && !defined(__clang__)
#error "fastgen needs GCC or Clang (on Windows: clang-cl): its kernels use vector extensions"
#endif

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#error "fastgen needs GCC 12 or newer, or Clang: its kernels use __builtin_shufflevector"
#endif

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define VL 8
#define VSET(x) ((vd){(x), (x), (x), (x), (x), (x), (x), (x)})
#elif defined(__AVX2__) && defined(__FMA__)
#define VL 4
#define VSET(x) ((vd){(x), (x), (x), (x)})
#else
#define VL 2
#define VSET(x) ((vd){(x), (x)})
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* for v in 0..n-1, unrolled: arrays of vectors stay in registers only if the loops over them vanish early. */
#define EACH(v, n) _Pragma("GCC unroll 8") for (int v = 0; v < (n); v++)

typedef double vd __attribute__((vector_size(VL * 8)));
typedef int64_t vi __attribute__((vector_size(VL * 8)));
typedef uint64_t vu __attribute__((vector_size(VL * 8))); /* arithmetic on bits: it may wrap */
/* For loads and stores at any address. */
typedef double vd_any __attribute__((vector_size(VL * 8), aligned(8), may_alias));

static ALWAYS_INLINE vd vset(double x) { return VSET(x); }
static ALWAYS_INLINE vd vload(const double *p) { return *(const vd_any *)p; }
static ALWAYS_INLINE void vstore(double *p, vd x) { *(vd_any *)p = x; }

/* x, which the compiler must now hold in a register: it would load it again for every use. */
static ALWAYS_INLINE vd in_register(vd x) {
#if VL == 8
    __asm__("" : "+v"(x));
#elif defined(__x86_64__)
    __asm__("" : "+x"(x));
#elif defined(__aarch64__)
    __asm__("" : "+w"(x));
#endif
    return x;
}

/* a * b + c: one rounding where the hardware has FMA, two in the x86-64 baseline. */
static ALWAYS_INLINE vd vfma(vd a, vd b, vd c) {
#if VL == 8
    return (vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif VL == 4
    return (vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (vd)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

/* Single precision, twice the lanes: for what is then known to be right, or done again in doubles. */
typedef float vs __attribute__((vector_size(VL * 8), may_alias));
typedef int32_t vsi __attribute__((vector_size(VL * 8)));
typedef float vs_half __attribute__((vector_size(VL * 4), may_alias));

#if VL == 8
#define SSET(x) ((vs){(x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x), (x)})
#elif VL == 4
#define SSET(x) ((vs){(x), (x), (x), (x), (x), (x), (x), (x)})
#else
#define SSET(x) ((vs){(x), (x), (x), (x)})
#endif

static ALWAYS_INLINE vs sset(float x) { return SSET(x); }
static ALWAYS_INLINE vs sfma(vs a, vs b, vs c) {
#if VL == 8
    return (vs)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VL == 4
    return (vs)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}
static ALWAYS_INLINE vs smax(vs a, vs b) {
#if VL == 8
    return (vs)_mm512_max_ps((__m512)a, (__m512)b);
#elif VL == 4
    return (vs)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (vs)(((vsi)(a > b) & (vsi)a) | (~(vsi)(a > b) & (vsi)b));
#endif
}
static ALWAYS_INLINE vs smin(vs a, vs b) {
#if VL == 8
    return (vs)_mm512_min_ps((__m512)a, (__m512)b);
#elif VL == 4
    return (vs)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return (vs)(((vsi)(a < b) & (vsi)a) | (~(vsi)(a < b) & (vsi)b));
#endif
}

/* Whether any lane is not zero (NaN counts). */
static ALWAYS_INLINE int any_lane(vd a) {
    int any = 0;
    for (int i = 0; i < VL; i++) any |= !(a[i] == 0.0);
    return any;
}

/* mask ? a : b, for masks of all-ones or all-zeros lanes (the results of comparisons). */
static ALWAYS_INLINE vd vselect(vi mask, vd a, vd b) { return (vd)(((vi)a & mask) | ((vi)b & ~mask)); }

/* a > b ? a : b and a < b ? a : b: of a NaN, b. One instruction where GCC makes three of a selection. */
static ALWAYS_INLINE vd vmax(vd a, vd b) {
#if VL == 8
    return (vd)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif VL == 4
    return (vd)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return vselect((vi)(a > b), a, b);
#endif
}
static ALWAYS_INLINE vd vmin(vd a, vd b) {
#if VL == 8
    return (vd)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif VL == 4
    return (vd)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    return vselect((vi)(a < b), a, b);
#endif
}
/* x < limit ? 0 : y. */
static ALWAYS_INLINE vd zero_below(vd x, vd limit, vd y) {
#if VL == 8
    return (vd)_mm512_maskz_mov_pd(_mm512_cmp_pd_mask((__m512d)x, (__m512d)limit, _CMP_NLT_UQ), (__m512d)y);
#else
    return vselect((vi)(x < limit), vset(0.0), y);
#endif
}

/* exp, within 1.3 ulp. exp(NaN) = NaN, exp(inf) = inf; results under exp(-708) = 3.3e-308 are flushed to 0.
 *
 * x = k ln 2 + r with |r| <= ln(2) / 2; exp(r) = 1 + r + r^2 q(r); coefficients from tools/minimax.py. */
static ALWAYS_INLINE vd vexp_of(vd x, const int nonpositive) {
    const vd round = vset(0x1.8p52); /* adding it leaves k in the low bits */
    vd c = vmax(vset(-708.0), x);
    if (!nonpositive) c = vmin(vset(710.0), c);
    vd t = vfma(c, vset(0x1.71547652b82fep+0), round);
    vd k = t - round;
    vd r = vfma(k, vset(-0x1.62e42fefa0000p-1), c);
    r = vfma(k, vset(-0x1.cf79abc9e3b39p-40), r);
    vd r2 = r * r, r4 = r2 * r2;
    vd q01 = vfma(r, vset(0x1.55555555554fap-3), vset(0x1.000000000000ap-1));
    vd q23 = vfma(r, vset(0x1.1111111127b9bp-7), vset(0x1.555555555088cp-5));
    vd q45 = vfma(r, vset(0x1.a01a012a69cf4p-13), vset(0x1.6c16c184266b4p-10));
    vd q67 = vfma(r, vset(0x1.71df253a08086p-19), vset(0x1.a0199a16e68edp-16));
    vd q89 = vfma(r, vset(0x1.ad7f7b1096349p-26), vset(0x1.28ad689e8aee0p-22));
    vd q = vfma(r4, vfma(r4, q89, vfma(r2, q67, q45)), vfma(r2, q23, q01));
    vd p = vfma(r2, q, r);                                        /* exp(r) - 1 */
    vd scale = (vd)(((vu)t + (nonpositive ? 1023 : 1022)) << 52); /* 2^(k - 1): 2^k may not be finite */
    vd y = vfma(scale, p, scale);
    return zero_below(x, vset(-708.0), nonpositive ? y : y + y);
}
static ALWAYS_INLINE vd vexp(vd x) { return vexp_of(x, 0); }
/* The same for x <= 0, a little faster. */
static ALWAYS_INLINE vd vexp_nonpositive(vd x) { return vexp_of(x, 1); }

/* log, within 1 ulp, subnormals included. log(0) = -inf, log(x < 0) = NaN, log(inf) = inf, log(NaN) = NaN.
 *
 * x = 2^k m, m in [sqrt(1/2), sqrt(2)), f = m - 1; with s = f / (2 + f), log(1 + f) = 2 atanh(s), in the
 * form f - (f^2/2 - s (f^2/2 + z p(z))), z = s^2, which loses nothing for f near 0. */
static ALWAYS_INLINE vd vlog(vd x) {
    const uint64_t half_root = 0x3fe6a09e667f3bcd; /* the bits of sqrt(1/2) */
    vi subnormal = (vi)(x < vset(0x1p-1022));
    vu bits = (vu)vselect(subnormal, x * vset(0x1p54), x) + (0x3ff0000000000000 - half_root);
    /* The exponent as a double: unsigned shift, then the low bits of 2^52. */
    vd k = (vd)(bits >> 52 | 0x4330000000000000) - vset(0x1p52 + 1023.0);
    k = vselect(subnormal, k - vset(54.0), k);
    vd m = (vd)((bits & 0x000fffffffffffff) + half_root);
    vd f = m - vset(1.0);
    vd s = f / (vset(2.0) + f);
    vd z = s * s, z2 = z * z;
    vd p01 = vfma(z, vset(0x1.999999997fdb7p-2), vset(0x1.5555555555592p-1));
    vd p23 = vfma(z, vset(0x1.c71c52095d16fp-3), vset(0x1.24924941f124fp-2));
    vd p45 = vfma(z, vset(0x1.39a1bab73fcacp-3), vset(0x1.74663ee86e841p-3));
    vd p = vfma(z2, vfma(z2, vfma(z2, vset(0x1.2f0563862e5fdp-3), p45), p23), p01);
    vd h = vset(0.5) * f * f;
    vd low = vfma(k, vset(0x1.a39ef35793c76p-33), s * vfma(z, p, h));
    vd y = vfma(k, vset(0x1.62e42feep-1), f - (h - low));
    y = vselect((vi)(x == vset(0.0)), vset(-INFINITY), y);
    y = vselect((vi)(x < vset(0.0)), vset(NAN), y);
    return vselect((vi)(x < vset(INFINITY)), y, x); /* inf and NaN map to themselves */
}

/* Sum of 8 logical lanes in one fixed order: the same bits for every VL. */
static ALWAYS_INLINE double hsum8(const vd a[8 / VL]) {
    double t[8];
    for (int i = 0; i < 8 / VL; i++) vstore(t + i * VL, a[i]);
    return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}

/* What to subtract before exponentiating: the maximum, or 0 where it is infinite (inf - inf is NaN). */
static ALWAYS_INLINE vd lse_shift(vd maximum) {
    return vselect((vi)((maximum - maximum) == vset(0.0)), maximum, vset(0.0));
}

/* log sum_k exp(a[k * stride + lane]) for VL samples at once. All -inf gives -inf; NaN gives NaN.
 * bounded: no a is +inf. With `posterior` also a <- exp(a - log-sum-exp), NaN where every a is -inf. */
static ALWAYS_INLINE vd lse_lanes(double *a, ptrdiff_t K, ptrdiff_t stride, const int bounded, const int posterior) {
    vd m = vload(a), s = vset(0.0);
    for (ptrdiff_t k = 1; k < K; k++) m = vmax(m, vload(a + k * stride));
    m = lse_shift(m);
    for (ptrdiff_t k = 0; k < K; k++) {
        const vd e = vexp_of(vload(a + k * stride) - m, bounded);
        if (posterior) vstore(a + k * stride, e);
        s += e;
    }
    if (posterior) {
        const vd scale = vset(1.0) / s; /* divisions are slow */
        for (ptrdiff_t k = 0; k < K; k++) vstore(a + k * stride, vload(a + k * stride) * scale);
    }
    return m + vlog(s);
}

/* log sum_k exp(a[k]) of one row; with p, also p[k] <- exp(a[k] - that). Lanes run over k. */
static inline double lse_row(const double *a, ptrdiff_t K, double *p) {
    double block[8], m = -INFINITY;
    vd s[8 / VL];
    for (ptrdiff_t k = 0; k < K; k++) m = a[k] > m ? a[k] : m;
    m = m - m == 0.0 ? m : 0.0;
    for (int i = 0; i < 8 / VL; i++) s[i] = vset(0.0);
    for (ptrdiff_t k = 0; k < K; k += 8) {
        const ptrdiff_t rest = K - k < 8 ? K - k : 8;
        for (int i = 0; i < 8; i++) block[i] = i < rest ? a[k + i] : -INFINITY;
        for (int i = 0; i < 8 / VL; i++) {
            vd e = vexp(vload(block + i * VL) - vset(m));
            s[i] += e;
            vstore(block + i * VL, e);
        }
        if (p)
            for (int i = 0; i < rest; i++) p[k + i] = block[i];
    }
    const double sum = hsum8(s);
    if (p)
        for (ptrdiff_t k = 0; k < K; k++) p[k] /= sum;
    return m + vlog(vset(sum))[0];
}

#endif
