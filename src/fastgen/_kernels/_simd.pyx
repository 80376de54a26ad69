"""simd.h made callable: exp, log, and log-sum-exp over the rows of a matrix.

Kernels only: no validation, no allocation, no Python objects in loops. Arrays are checked by the caller.
"""

cdef extern from "simd.h" nogil:
    """
    #include "tile.h"

    #define ELEMENTWISE(name, f)                                                                   \
        static void name(const double *x, double *out, ptrdiff_t n) {                              \
            ptrdiff_t i = 0;                                                                       \
            for (; i + VL <= n; i += VL) vstore(out + i, f(vload(x + i)));                         \
            for (; i < n; i++) out[i] = f(vset(x[i]))[0];                                          \
        }
    ELEMENTWISE(exp_array, vexp)
    ELEMENTWISE(log_array, vlog)

    /* One tile of rows at a time: lse[i] <- log sum_k exp(a[i, k]) and / or p[i, k] <- posterior. */
    static ALWAYS_INLINE void lse_tiles(const void *a, const int single, ptrdiff_t n, ptrdiff_t K,
                                        ptrdiff_t row_stride, ptrdiff_t column_stride, void *lse,
                                        void *p, ptrdiff_t p_row_stride, ptrdiff_t p_column_stride,
                                        double *work) {
        const ptrdiff_t size = single ? sizeof(float) : sizeof(double);
        double *t = aligned(work), total[TILE];
        for (ptrdiff_t i = 0; i < n; i += TILE) {
            const ptrdiff_t rows = VMIN(TILE, n - i);
            load_tile((const char *)a + i * row_stride * size, single, rows, K, row_stride, column_stride, t);
            for (ptrdiff_t s = 0; s < TILE; s += VL)
                vstore(total + s, p ? lse_lanes(t + s, K, TILE, 0, 1) : lse_lanes(t + s, K, TILE, 0, 0));
            if (lse) store_tile(total, rows, 1, (char *)lse + i * size, single, 1, 1);
            if (p)
                store_tile(t, rows, K, (char *)p + i * p_row_stride * size, single, p_row_stride,
                           p_column_stride);
        }
    }
    static void lse_rows(const void *a, int single, ptrdiff_t n, ptrdiff_t K, ptrdiff_t row_stride,
                         ptrdiff_t column_stride, void *lse, void *p, ptrdiff_t p_row_stride,
                         ptrdiff_t p_column_stride, double *work) {
        if (single)
            lse_tiles(a, 1, n, K, row_stride, column_stride, lse, p, p_row_stride, p_column_stride, work);
        else
            lse_tiles(a, 0, n, K, row_stride, column_stride, lse, p, p_row_stride, p_column_stride, work);
    }
    """
    int _TILE "TILE"
    void exp_array(const double* x, double* out, Py_ssize_t n)
    void log_array(const double* x, double* out, Py_ssize_t n)
    double lse_row(const double* a, Py_ssize_t K, double* p)
    void lse_rows(const void* a, int single, Py_ssize_t n, Py_ssize_t K, Py_ssize_t row_stride,
                  Py_ssize_t column_stride, void* lse, void* p, Py_ssize_t p_row_stride,
                  Py_ssize_t p_column_stride, double* work)

TILE = _TILE

ctypedef fused real:
    float
    double


cdef void vector_exp(const double* x, double* out, Py_ssize_t n) noexcept nogil:
    exp_array(x, out, n)


cdef void vector_log(const double* x, double* out, Py_ssize_t n) noexcept nogil:
    log_array(x, out, n)


cdef double logsumexp_row(const double* a, Py_ssize_t K) noexcept nogil:
    return lse_row(a, K, NULL)


cdef double softmax_row(const double* a, double* p, Py_ssize_t K) noexcept nogil:
    return lse_row(a, K, p)


def exp(const double[::1] x, double[::1] out) -> None:
    """out[i] <- exp(x[i])."""
    if x.shape[0]:
        with nogil:
            exp_array(&x[0], &out[0], x.shape[0])


def log(const double[::1] x, double[::1] out) -> None:
    """out[i] <- log(x[i])."""
    if x.shape[0]:
        with nogil:
            log_array(&x[0], &out[0], x.shape[0])


cdef void _lse(const real[:, :] a, real[::1] lse, real[:, :] p, double[::1] work) noexcept:
    cdef Py_ssize_t size = sizeof(real)
    cdef real* lse_data = NULL
    cdef real* p_data = NULL
    cdef Py_ssize_t p_row = 0, p_column = 0
    if lse is not None:
        lse_data = &lse[0]
    if p is not None:
        p_data = &p[0, 0]
        p_row = p.strides[0] // size
        p_column = p.strides[1] // size
    with nogil:
        lse_rows(&a[0, 0], real is float, a.shape[0], a.shape[1], a.strides[0] // size,
                 a.strides[1] // size, lse_data, p_data, p_row, p_column, &work[0])


def logsumexp_f64(const double[:, :] a, double[::1] lse, double[:, :] p, double[::1] work) -> None:
    """lse[i] <- log sum_k exp(a[i, k]); p[i, k] <- exp(a[i, k] - lse[i]). Either may be None; p may be a.

    work: K * TILE + 8 doubles. n and K are at least 1.
    """
    _lse[double](a, lse, p, work)


def logsumexp_f32(const float[:, :] a, float[::1] lse, float[:, :] p, double[::1] work) -> None:
    """The same for float32, computed in float64."""
    _lse[float](a, lse, p, work)
