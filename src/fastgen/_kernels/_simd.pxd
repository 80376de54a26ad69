# Vector helpers for cimport (`from fastgen cimport ...`). None allocates, raises or needs the GIL.

# out[i] <- exp(x[i]), within 1.3 ulp; results under exp(-708) are flushed to 0. out may be x.
cdef void vector_exp(const double* x, double* out, Py_ssize_t n) noexcept nogil

# out[i] <- log(x[i]), within 1 ulp. out may be x.
cdef void vector_log(const double* x, double* out, Py_ssize_t n) noexcept nogil

# log sum_k exp(a[k]), k < K. All -inf (and K = 0) gives -inf.
cdef double logsumexp_row(const double* a, Py_ssize_t K) noexcept nogil

# p[k] <- exp(a[k] - logsumexp(a)); returns logsumexp(a). p may be a.
cdef double softmax_row(const double* a, double* p, Py_ssize_t K) noexcept nogil
