# Gaussian log-density for cimport (`from fastgen cimport ...`). Allocates nothing, never raises, needs no GIL.
# The Python function fastgen.kernels.gaussian_log_density prepares `factors` and `log_norm`; gaussian.h has
# their layout. Strides count elements. `single`, `out_single`: float32,
# otherwise float64.

cdef enum GaussianKind:
    GAUSSIAN_FULL = 0
    GAUSSIAN_TIED = 1
    GAUSSIAN_DIAG = 2
    GAUSSIAN_DIAG_MISSING = 3
    GAUSSIAN_SPHERICAL = 4

# Doubles of work space for one thread.
cdef Py_ssize_t gaussian_work_size(Py_ssize_t d, Py_ssize_t K) noexcept nogil

# out[i, k] <- log N(X[i]; component k). Returns 1 if a result is not finite (X holds NaN or inf, or is beyond the
# range of doubles), -1 for an unknown kind, else 0.
cdef int gaussian_log_density(int kind, const void* X, bint single, Py_ssize_t n, Py_ssize_t d,
                              Py_ssize_t row_stride, Py_ssize_t column_stride, Py_ssize_t K,
                              const double* means, const double* factors, Py_ssize_t factor_size,
                              const double* log_norm, const double* centre, void* out,
                              bint out_single, Py_ssize_t out_row_stride, Py_ssize_t out_column_stride,
                              double* work) noexcept nogil
