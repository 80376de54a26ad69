"""mixture.h made callable: E-step and scores of Gaussian mixtures.

Kernels only: no validation, no allocation, no Python objects in loops. Arrays are checked by the caller
(fastgen.kernels, fastgen.families.gaussian); sizes are at least 1.
"""

cdef extern from "mixture.h" nogil:
    int _BATCH "4 * TILE"
    int _NOT_A_NUMBER "NOT_A_NUMBER"
    int _IMPOSSIBLE "IMPOSSIBLE"
    ctypedef struct mixture:
        Py_ssize_t d
        Py_ssize_t K
        const double* means
        const double* factors
        Py_ssize_t factor_size
        const double* log_norm
        const double* centre
        const double* log_weights
    Py_ssize_t mixture_work_size(int kind, Py_ssize_t d, Py_ssize_t K, int moments)
    int mixture_e_step(int kind, int single, const mixture* m, const void* x, Py_ssize_t n, Py_ssize_t row_stride,
                       Py_ssize_t column_stride, const double* weights, Py_ssize_t weight_stride,
                       const double* about, double* log_likelihood, double* weight, double* first,
                       double* second, double* count, double* work)
    int PIECE
    Py_ssize_t missing_work_size(Py_ssize_t d, Py_ssize_t K)
    Py_ssize_t missing_e_step(Py_ssize_t pieces, Py_ssize_t d, Py_ssize_t K, const Py_ssize_t* columns,
                              const Py_ssize_t* observed, const Py_ssize_t* rows, const Py_ssize_t* values,
                              const double* x, const double* weights, const double* means,
                              const double* covariances, const double* log_weights, double* log_likelihood,
                              double* weight, double* first, double* second, double* work)
    int mixture_score(int kind, int single, const mixture* m, const void* x, Py_ssize_t n, Py_ssize_t row_stride,
                      Py_ssize_t column_stride, void* log_prob, void* posterior, int out_single,
                      Py_ssize_t* labels, double* work)

BATCH = _BATCH
MISSING_PIECE = PIECE
NOT_A_NUMBER = _NOT_A_NUMBER
IMPOSSIBLE = _IMPOSSIBLE

ctypedef fused real:
    float
    double


cdef mixture _mixture(const double[:, ::1] means, const double[:, ::1] factors, const double[:, ::1] log_norm,
                      const double[::1] centre, const double[::1] log_weights) noexcept:
    cdef mixture m
    m.d = means.shape[1]
    m.K = means.shape[0]
    m.means = &means[0, 0]
    m.factors = &factors[0, 0]
    m.factor_size = factors.shape[1]
    m.log_norm = &log_norm[0, 0]
    m.centre = &centre[0]
    m.log_weights = &log_weights[0]
    return m


def work_size(int kind, Py_ssize_t d, Py_ssize_t K, bint moments) -> int:
    """Doubles of work space that one call of e_step (with moments) or score needs."""
    return mixture_work_size(kind, d, K, moments)


def e_step(int kind, const real[:, :] X, const double[:] weights, const double[:, ::1] means,
           const double[:, ::1] factors, const double[:, ::1] log_norm, const double[::1] centre,
           const double[::1] log_weights, const double[:, ::1] about, double[::1] log_likelihood,
           double[::1] weight, double[:, ::1] first, double[:, ::1] second, double[:, ::1] count,
           double[::1] work) -> int:
    """Log-likelihood (1,), weight (K,), first (K, d) and second (K, d d or d) moments about `about` of the rows of X.

    weights: (n,) or None. Layouts and the result (NOT_A_NUMBER | IMPOSSIBLE): mixture.h.
    """
    cdef mixture m = _mixture(means, factors, log_norm, centre, log_weights)
    cdef Py_ssize_t size = sizeof(real), w_stride = 0
    cdef const double* w = NULL
    cdef int found
    if weights is not None:
        w = &weights[0]
        w_stride = weights.strides[0] // <Py_ssize_t>sizeof(double)
    with nogil:
        found = mixture_e_step(kind, real is float, &m, &X[0, 0], X.shape[0], X.strides[0] // size,
                               X.strides[1] // size, w, w_stride, &about[0, 0], &log_likelihood[0],
                               &weight[0], &first[0, 0], &second[0, 0], &count[0, 0], &work[0])
    return found


def mirror(double[:, :, ::1] A) -> None:
    """Lower triangles of A (K, d, d) <- the upper ones."""
    cdef Py_ssize_t i, j, k
    with nogil:
        for k in range(A.shape[0]):
            for i in range(A.shape[1]):
                for j in range(i):
                    A[k, i, j] = A[k, j, i]


def incomplete_work_size(Py_ssize_t d, Py_ssize_t K) -> int:
    """Doubles of work space that one call of incomplete_e_step needs."""
    return missing_work_size(d, K)


def incomplete_e_step(const Py_ssize_t[:, ::1] columns, const Py_ssize_t[::1] observed,
                      const Py_ssize_t[::1] rows, const Py_ssize_t[::1] values, const double[::1] x,
                      const double[::1] weights, const double[:, ::1] means, const double[:, :, ::1] covariances,
                      const double[::1] log_weights, double[::1] log_likelihood, double[::1] weight,
                      double[:, ::1] first, double[:, :, ::1] second, double[::1] work) -> int:
    """Adds the E-step of rows with missing values, in pieces of at most MISSING_PIECE rows, to the sums.

    rows, values: where those of each piece begin, of all pieces (absolute numbers into weights and x). Returns
    what e_step does, or -1 - k for a component k that is singular. Layouts: mixture.h.
    """
    cdef Py_ssize_t found
    with nogil:
        found = missing_e_step(columns.shape[0], means.shape[1], means.shape[0], &columns[0, 0], &observed[0],
                               &rows[0], &values[0], &x[0], &weights[0], &means[0, 0], &covariances[0, 0, 0],
                               &log_weights[0], &log_likelihood[0], &weight[0], &first[0, 0],
                               &second[0, 0, 0], &work[0])
    return found


cdef int _score(int kind, const real[:, :] X, const double[:, ::1] means, const double[:, ::1] factors,
                const double[:, ::1] log_norm, const double[::1] centre, const double[::1] log_weights,
                void* log_prob, void* posterior, bint out_single, Py_ssize_t* labels,
                double[::1] work) noexcept:
    cdef mixture m = _mixture(means, factors, log_norm, centre, log_weights)
    cdef Py_ssize_t size = sizeof(real)
    cdef int bad
    with nogil:
        bad = mixture_score(kind, real is float, &m, &X[0, 0], X.shape[0], X.strides[0] // size,
                            X.strides[1] // size, log_prob, posterior, out_single, labels, &work[0])
    return bad


def log_prob(int kind, const real[:, :] X, const double[:, ::1] means, const double[:, ::1] factors,
             const double[:, ::1] log_norm, const double[::1] centre, const double[::1] log_weights,
             real[::1] out, double[::1] work) -> int:
    """out (n,) <- log p(x). Returns whether one is not finite."""
    return _score(kind, X, means, factors, log_norm, centre, log_weights, &out[0], NULL, real is float, NULL,
                  work)


def posterior(int kind, const real[:, :] X, const double[:, ::1] means, const double[:, ::1] factors,
              const double[:, ::1] log_norm, const double[::1] centre, const double[::1] log_weights,
              real[:, ::1] out, double[::1] work) -> int:
    """out (n, K) <- p(k | x). Returns whether a log p(x) is not finite."""
    return _score(kind, X, means, factors, log_norm, centre, log_weights, NULL, &out[0, 0], real is float, NULL,
                  work)


def predict(int kind, const real[:, :] X, const double[:, ::1] means, const double[:, ::1] factors,
            const double[:, ::1] log_norm, const double[::1] centre, const double[::1] log_weights,
            Py_ssize_t[::1] out, double[::1] work) -> int:
    """out (n,) <- the most probable component. Returns whether a best log-density is not finite."""
    return _score(kind, X, means, factors, log_norm, centre, log_weights, NULL, NULL, False, &out[0], work)
