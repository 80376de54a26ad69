# Hidden Markov models for cimport (`from fastgen cimport ...`): one sequence of n steps and K states, with the
# logarithms of its likelihoods (n, K), startprob (K,) and transmat (K, K). Nothing is allocated, checked or raised;
# no GIL is needed. Many sequences, and long ones, are faster through fastgen.kernels: several at a time, on threads.

# Doubles of work space for one thread.
cdef Py_ssize_t markov_work_size(Py_ssize_t n, Py_ssize_t K) noexcept nogil

# Returns the log-likelihood: -inf for an impossible sequence, NaN if a logarithm is NaN or +inf; then there is nothing
# in the results. Any of them may be NULL: posteriors (n, K), start (K,), expected transitions (K, K).
cdef double markov_forward_backward(const double* log_likelihoods, Py_ssize_t n, Py_ssize_t K,
                                    const double* startprob, const double* transmat, double* posteriors,
                                    double* start, double* transitions, double* work) noexcept nogil

# path (n,) <- the most probable path; returns log p(path, sequence), -inf if there is none.
cdef double markov_viterbi(const double* log_likelihoods, Py_ssize_t n, Py_ssize_t K, const double* startprob,
                           const double* transmat, Py_ssize_t* path, double* work) noexcept nogil
