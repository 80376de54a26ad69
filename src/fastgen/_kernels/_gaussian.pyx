"""gaussian.h made callable: log-densities and moments of Gaussians.

Kernels only: no validation, no allocation, no Python objects in loops. Arrays are checked by the caller
(fastgen.kernels, fastgen.families.gaussian); sizes are at least 1.
"""

cdef extern from "gaussian.h" nogil:
    """
    static ptrdiff_t moments_full(const void *x, int single, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride,
                                  ptrdiff_t column_stride, const double *w, ptrdiff_t w_stride, double *weight,
                                  double *mean, double *scatter, double *work) {
        return single ? moments_full_rows(x, 1, n, d, row_stride, column_stride, w, w_stride, weight, mean,
                                          scatter, work)
                      : moments_full_rows(x, 0, n, d, row_stride, column_stride, w, w_stride, weight, mean,
                                          scatter, work);
    }
    static ptrdiff_t moments_diag(const void *x, int single, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride,
                                  ptrdiff_t column_stride, const double *w, ptrdiff_t w_stride, double *count,
                                  double *mean, double *scatter, double *work) {
        return single ? moments_diag_rows(x, 1, n, d, row_stride, column_stride, w, w_stride, count, mean,
                                          scatter, work)
                      : moments_diag_rows(x, 0, n, d, row_stride, column_stride, w, w_stride, count, mean,
                                          scatter, work);
    }
    """
    int _TILE "TILE"
    int _BLOCK "BLOCK"
    Py_ssize_t log_density_work_size(Py_ssize_t d, Py_ssize_t K)
    Py_ssize_t moments_work_size(Py_ssize_t d, int full)
    int log_density(int kind, const void* x, int single, Py_ssize_t n, Py_ssize_t d, Py_ssize_t row_stride,
                    Py_ssize_t column_stride, Py_ssize_t K, const double* means, const double* factors,
                    Py_ssize_t factor_size, const double* log_norm, const double* centre, void* out,
                    int out_single, Py_ssize_t out_row_stride, Py_ssize_t out_column_stride, double* work)
    Py_ssize_t moments_full(const void* x, int single, Py_ssize_t n, Py_ssize_t d, Py_ssize_t row_stride,
                            Py_ssize_t column_stride, const double* w, Py_ssize_t w_stride, double* weight,
                            double* mean, double* scatter, double* work)
    Py_ssize_t moments_diag(const void* x, int single, Py_ssize_t n, Py_ssize_t d, Py_ssize_t row_stride,
                            Py_ssize_t column_stride, const double* w, Py_ssize_t w_stride, double* count,
                            double* mean, double* scatter, double* work)
    Py_ssize_t cholesky_upper(double* A, Py_ssize_t d, double tolerance)
    void invert_upper(double* R, Py_ssize_t d, double* row)
    void pack_upper(const double* U, Py_ssize_t d, double* packed)
    Py_ssize_t precision_factors(const double* covariances, Py_ssize_t K, Py_ssize_t d, double tolerance,
                                 double* factors, double* row)
    Py_ssize_t expect_work_size(Py_ssize_t d)
    Py_ssize_t expect_pattern(const double* mu, const double* Sigma, Py_ssize_t d, const Py_ssize_t* columns,
                              Py_ssize_t o, double weight, const double* x_mean, const double* x_rest,
                              const double* S, double tolerance, double* first, double* second,
                              double* log_likelihood, double* work)

TILE = _TILE
BLOCK = _BLOCK
FULL = GAUSSIAN_FULL
TIED = GAUSSIAN_TIED
DIAG = GAUSSIAN_DIAG
DIAG_MISSING = GAUSSIAN_DIAG_MISSING
SPHERICAL = GAUSSIAN_SPHERICAL

ctypedef fused real:
    float
    double

ctypedef fused result:
    float
    double


cdef Py_ssize_t gaussian_work_size(Py_ssize_t d, Py_ssize_t K) noexcept nogil:
    return log_density_work_size(d, K)


cdef int gaussian_log_density(int kind, const void* X, bint single, Py_ssize_t n, Py_ssize_t d,
                              Py_ssize_t row_stride, Py_ssize_t column_stride, Py_ssize_t K,
                              const double* means, const double* factors, Py_ssize_t factor_size,
                              const double* log_norm, const double* centre, void* out,
                              bint out_single, Py_ssize_t out_row_stride, Py_ssize_t out_column_stride,
                              double* work) noexcept nogil:
    return log_density(kind, X, single, n, d, row_stride, column_stride, K, means, factors, factor_size,
                       log_norm, centre, out, out_single, out_row_stride, out_column_stride, work)


def density_work_size(Py_ssize_t d, Py_ssize_t K) -> int:
    """Doubles of work space that one call of log_density needs."""
    return log_density_work_size(d, K)


def moment_work_size(Py_ssize_t d, bint full) -> int:
    """Doubles of work space that one call of moments_full or moments_diag needs."""
    return moments_work_size(d, full)


cdef int _density(int kind, const real[:, :] X, const double[:, ::1] means, const double[:, ::1] factors,
                  const double[:, ::1] log_norm, const double[::1] centre, result[:, :] out,
                  double[::1] work) noexcept:
    cdef Py_ssize_t size = sizeof(real), out_size = sizeof(result)
    cdef int bad
    with nogil:
        bad = log_density(kind, &X[0, 0], real is float, X.shape[0], X.shape[1], X.strides[0] // size,
                          X.strides[1] // size, means.shape[0], &means[0, 0], &factors[0, 0],
                          factors.shape[1], &log_norm[0, 0], &centre[0], &out[0, 0], result is float,
                          out.strides[0] // out_size, out.strides[1] // out_size, &work[0])
    return bad


def log_density_f64(int kind, const double[:, :] X, const double[:, ::1] means, const double[:, ::1] factors,
                    const double[:, ::1] log_norm, const double[::1] centre, double[:, :] out,
                    double[::1] work) -> int:
    """out[i, k] <- log N(X[i]; component k); 1 if X may hold NaN or inf, else 0. Layouts: gaussian.h."""
    return _density[double, double](kind, X, means, factors, log_norm, centre, out, work)


def log_density_f32(int kind, const float[:, :] X, const double[:, ::1] means, const double[:, ::1] factors,
                    const double[:, ::1] log_norm, const double[::1] centre, float[:, :] out,
                    double[::1] work) -> int:
    """The same for float32, computed in float64."""
    return _density[float, float](kind, X, means, factors, log_norm, centre, out, work)


def log_density_f32_f64(int kind, const float[:, :] X, const double[:, ::1] means,
                        const double[:, ::1] factors, const double[:, ::1] log_norm,
                        const double[::1] centre, double[:, :] out, double[::1] work) -> int:
    """The same for float32 data and a float64 result."""
    return _density[float, double](kind, X, means, factors, log_norm, centre, out, work)


cdef Py_ssize_t _moments(bint full, const real[:, :] X, const double[:] w, double[::1] weight,
                         double[:, ::1] mean, double[:, ::1] scatter, double[::1] work) noexcept:
    cdef Py_ssize_t size = sizeof(real)
    cdef Py_ssize_t found, w_stride = 0
    cdef const double* w_data = NULL
    if w is not None:
        w_data = &w[0]
        w_stride = w.strides[0] // <Py_ssize_t>sizeof(double)
    with nogil:
        if full:
            found = moments_full(&X[0, 0], real is float, X.shape[0], X.shape[1], X.strides[0] // size,
                                 X.strides[1] // size, w_data, w_stride, &weight[0], &mean[0, 0],
                                 &scatter[0, 0], &work[0])
        else:
            found = moments_diag(&X[0, 0], real is float, X.shape[0], X.shape[1], X.strides[0] // size,
                                 X.strides[1] // size, w_data, w_stride, &weight[0], &mean[0, 0],
                                 &scatter[0, 0], &work[0])
    return found


def moments_f64(bint full, const double[:, :] X, const double[:] w, double[::1] weight, double[:, ::1] mean,
                double[:, ::1] scatter, double[::1] work) -> int:
    """Merge the moments of X into weight, mean (2, d: high and low parts), scatter. w: weights or None.

    full: weight (1,), scatter (d, d), upper triangle; rows with NaN or inf are left out; returns how many.
    otherwise: weight (d,), scatter (1, d), over what is not NaN; returns how many columns hold inf.
    """
    return _moments[double](full, X, w, weight, mean, scatter, work)


def moments_f32(bint full, const float[:, :] X, const double[:] w, double[::1] weight, double[:, ::1] mean,
                double[:, ::1] scatter, double[::1] work) -> int:
    """The same for float32, computed in float64."""
    return _moments[float](full, X, w, weight, mean, scatter, work)


def cholesky(double[:, ::1] A, double tolerance) -> int:
    """Upper triangle of A <- R with A = R^T R.

    Returns the first column that is a linear combination of those before it, up to tolerance times its
    variance, or -1.
    """
    cdef Py_ssize_t column
    with nogil:
        column = cholesky_upper(&A[0, 0], A.shape[0], tolerance)
    return column


def inverse(double[:, ::1] R, double[::1] work) -> None:
    """Upper triangle of R <- that of its inverse. work: d doubles."""
    with nogil:
        invert_upper(&R[0, 0], R.shape[0], &work[0])


def factor(const double[:, :, ::1] covariances, double tolerance, double[:, :, ::1] factors,
           double[::1] work) -> int:
    """factors (K, d, d) <- U with inverse(covariance) = U U^T. Returns how many are positive definite. work: d."""
    cdef Py_ssize_t done
    with nogil:
        done = precision_factors(&covariances[0, 0, 0], covariances.shape[0], covariances.shape[1], tolerance,
                                 &factors[0, 0, 0], &work[0])
    return done


def pack(const double[:, :, ::1] factors, double[:, ::1] packed) -> None:
    """packed (K, size) <- upper triangular factors, as log_density walks them."""
    cdef Py_ssize_t k
    with nogil:
        for k in range(factors.shape[0]):
            pack_upper(&factors[k, 0, 0], factors.shape[1], &packed[k, 0])


def missing_work_size(Py_ssize_t d) -> int:
    """Doubles of work space that expect_missing needs."""
    return expect_work_size(d)


def expect_missing(const double[::1] mu, const double[:, ::1] Sigma, const Py_ssize_t[::1] columns, double weight,
                   const double[::1] x_mean, const double[::1] x_rest, const double[:, ::1] S, double tolerance,
                   double[::1] first, double[:, ::1] second, double[::1] log_likelihood, double[::1] work) -> int:
    """E-step of all rows that miss the same columns, from the moments of their observed part.

    Adds to first (d,), second (d, d), log_likelihood (1,). Returns a column that makes the covariance of the
    observed part singular, or -1.
    """
    cdef Py_ssize_t singular
    with nogil:
        singular = expect_pattern(&mu[0], &Sigma[0, 0], mu.shape[0], &columns[0], S.shape[0], weight, &x_mean[0],
                                  &x_rest[0], &S[0, 0], tolerance, &first[0], &second[0, 0], &log_likelihood[0],
                                  &work[0])
    return singular
