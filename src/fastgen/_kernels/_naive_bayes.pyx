"""naive_bayes.h made callable: joint log-probabilities of classes, and sums over the rows of classes.

Kernels only: no validation, no allocation, no Python objects in loops. Arrays are checked by the caller
(fastgen._naive_bayes); there is at least one row, column and class.
"""

from libc.stdint cimport uint32_t


cdef extern from "naive_bayes.h" nogil:
    int _GAUSSIAN "NB_GAUSSIAN"
    int _LINEAR "NB_LINEAR"
    int _BINARY "NB_BINARY"
    int _TABLE "NB_TABLE"
    int _SPARSE "NB_SPARSE"
    int _JOINT "NB_JOINT"
    int _PREDICT "NB_PREDICT"
    int _PROBA "NB_PROBA"
    int _LOG_PROBA "NB_LOG_PROBA"
    int _LOG_PROB "NB_LOG_PROB"
    ctypedef struct nb_term:
        int kind
        int type
        Py_ssize_t columns
        const char* x
        Py_ssize_t row_stride
        const Py_ssize_t* offsets
        int contiguous
        const double* a
        const double* b
        const double* norm
        const double* by_column
        int lanes
        double threshold
        int binary
        const Py_ssize_t* sizes
        const Py_ssize_t* first
        const void* indices
        const void* indptr
        int wide_indices
        int wide_indptr
    ctypedef struct nb_screen:
        const double* centre
        const float* q
        const float* p
        const float* k
        float slope
        float intercept
    ctypedef struct nb_model:
        Py_ssize_t C
        Py_ssize_t P
        const double* log_prior
        const nb_screen* screen
        Py_ssize_t terms
        const nb_term* term
        int infinite
    Py_ssize_t nb_work_size(Py_ssize_t C)
    int nb_score(const nb_model* model, int what, Py_ssize_t first, Py_ssize_t stop, int missing,
                 Py_ssize_t fallback, double* out, Py_ssize_t* labels, double* memory)
    int _NOT_FINITE "NB_NOT_FINITE"
    int _NEGATIVE "NB_NEGATIVE"
    int _UNSEEN "NB_UNSEEN"
    int _BROKEN "NB_BROKEN"
    int _GROUP "NB_GROUP"
    int _VALUES "NB_VALUES"
    int _ABOVE "NB_ABOVE"
    int _OBSERVED "NB_OBSERVED"
    int nb_sums(const nb_term* m, int which, const Py_ssize_t* codes, const double* weights, Py_ssize_t first,
                Py_ssize_t stop, Py_ssize_t C, Py_ssize_t* waiting, double* total, double* sums)
    int nb_sparse_sums(const nb_term* m, int binary, const Py_ssize_t* rows, const Py_ssize_t* codes,
                       const double* weights, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t lowest, double* total,
                       double* sums)
    int nb_counts(const nb_term* m, const Py_ssize_t* begin, const Py_ssize_t* codes, const double* weights,
                  Py_ssize_t first, Py_ssize_t stop, uint32_t* whole, double* counts)
    int nb_pairs(const nb_term* m, const Py_ssize_t* begin, const Py_ssize_t* codes, Py_ssize_t first,
                 Py_ssize_t stop, int bits, uint32_t* pairs, uint32_t* whole)
    void nb_moments(const nb_term* m, int missing, int given, const Py_ssize_t* codes, const double* weights,
                    Py_ssize_t first, Py_ssize_t stop, double* total, double* about, double* count, double* sums,
                    double* squares)

GAUSSIAN = _GAUSSIAN
LINEAR = _LINEAR
BINARY = _BINARY
TABLE = _TABLE
SPARSE = _SPARSE
JOINT = _JOINT
PREDICT = _PREDICT
PROBA = _PROBA
LOG_PROBA = _LOG_PROBA
LOG_PROB = _LOG_PROB
NOT_FINITE = _NOT_FINITE
NEGATIVE = _NEGATIVE
UNSEEN = _UNSEEN
BROKEN = _BROKEN
GROUP = _GROUP
VALUES = _VALUES
ABOVE = _ABOVE
OBSERVED = _OBSERVED


cdef class Term:
    """Some columns of X, and what a class says about them: layouts in naive_bayes.h.

    X: (n, d) of the type with this number; offsets: of its columns in a row, in bytes. SPARSE: the data, indices and
    indptr of compressed rows, whose columns are as many as the rows of a.
    """

    cdef nb_term t
    cdef readonly object arrays

    def __init__(self, int kind, int type, X, const Py_ssize_t[::1] offsets=None, const double[:, ::1] a=None,
                 const double[:, ::1] b=None, const double[:, ::1] norm=None, double threshold=0.0, bint binary=False,
                 const Py_ssize_t[::1] sizes=None, const Py_ssize_t[::1] first=None, indices=None, indptr=None,
                 Py_ssize_t columns=0, const double[:, ::1] by_column=None) -> None:
        self.arrays = (X, offsets, a, b, norm, sizes, first, indices, indptr, by_column)
        self.t.kind, self.t.type, self.t.threshold, self.t.binary = kind, type, threshold, binary
        self.t.x = <const char*><Py_ssize_t>X.ctypes.data
        self.t.a = NULL if a is None else &a[0, 0]
        self.t.b = NULL if b is None else &b[0, 0]
        self.t.norm = NULL if norm is None else &norm[0, 0]
        if by_column is not None:
            self.t.by_column, self.t.lanes = &by_column[0, 0], by_column.shape[1]
        if offsets is not None:
            self.t.columns, self.t.row_stride, self.t.offsets = offsets.shape[0], X.strides[0], &offsets[0]
            self.t.contiguous = True
            for j in range(1, offsets.shape[0]):
                self.t.contiguous &= offsets[j] - offsets[j - 1] == X.itemsize
        if sizes is not None:
            self.t.sizes, self.t.first = &sizes[0], &first[0]
        if indptr is not None:
            self.t.columns = columns
            self.t.indices = <const void*><Py_ssize_t>indices.ctypes.data
            self.t.indptr = <const void*><Py_ssize_t>indptr.ctypes.data
            self.t.wide_indices, self.t.wide_indptr = indices.itemsize == 8, indptr.itemsize == 8


cdef class Screen:
    """A Gaussian term in single precision, and what its errors may be: nb_screen in naive_bayes.h."""

    cdef nb_screen s
    cdef readonly object arrays

    def __init__(self, const double[::1] centre, const float[:, ::1] q, const float[:, ::1] p, const float[::1] k,
                 float slope, float intercept) -> None:
        self.arrays = (centre, q, p, k)
        self.s.centre, self.s.q, self.s.p, self.s.k = &centre[0], &q[0, 0], &p[0, 0], &k[0]
        self.s.slope, self.s.intercept = slope, intercept


def work_size(Py_ssize_t C) -> int:
    """Doubles of work space that one call of score needs."""
    return nb_work_size(C)


def score(list terms, const double[::1] log_prior, bint infinite, int what, Py_ssize_t first,
          Py_ssize_t stop, bint missing, Py_ssize_t fallback, double[::1] out, Py_ssize_t[::1] labels,
          double[::1] work, Screen screen=None) -> int:
    """Rows first..stop-1 under at most 8 terms: into out or labels, which begin with row `first`. See nb_score.

    Returns which of NOT_FINITE, NEGATIVE, UNSEEN and BROKEN it has met.
    """
    cdef nb_term[8] array
    cdef nb_model m
    cdef double* o = NULL if out is None else &out[0]
    cdef Py_ssize_t* codes = NULL if labels is None else &labels[0]
    cdef Py_ssize_t i
    cdef int met
    for i in range(len(terms)):
        array[i] = (<Term>terms[i]).t
    m.C, m.P, m.log_prior = log_prior.shape[0], (log_prior.shape[0] + 7) // 8 * 8, &log_prior[0]
    m.terms, m.term, m.infinite = len(terms), array, infinite
    m.screen = NULL if screen is None else &screen.s
    with nogil:
        met = nb_score(&m, what, first, stop, missing, fallback, o, codes, &work[0])
    return met


def sums(Term term, int which, const Py_ssize_t[::1] codes, const double[::1] weights, Py_ssize_t first,
         Py_ssize_t stop, Py_ssize_t[:, ::1] waiting, double[::1] total, double[:, ::1] out) -> int:
    """total (C,) and out (C, d) += weights and weighted rows of each class. waiting: (C, GROUP + 1) zeros, or none.

    Of each cell VALUES, 1 if it is ABOVE the term's threshold, or 1 if it is OBSERVED.

    Returns which of NOT_FINITE and NEGATIVE it has met.
    """
    cdef const double* w = NULL if weights is None else &weights[0]
    cdef Py_ssize_t* queues = NULL if waiting is None else &waiting[0, 0]
    cdef int met
    with nogil:
        met = nb_sums(&term.t, which, &codes[0], w, first, stop, out.shape[0], queues, &total[0], &out[0, 0])
    return met


def sparse_sums(Term term, bint binary, const Py_ssize_t[::1] rows, const Py_ssize_t[::1] codes,
                const double[::1] weights, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t lowest, double[::1] total,
                double[:, ::1] out) -> int:
    """The same of the sparse rows with the numbers rows[first:stop]; total and out begin with the class `lowest`."""
    cdef const double* w = NULL if weights is None else &weights[0]
    cdef int met
    with nogil:
        met = nb_sparse_sums(&term.t, binary, &rows[0], &codes[0], w, first, stop, lowest, &total[0], &out[0, 0])
    return met


def counts(Term term, const Py_ssize_t[:, ::1] begin, const Py_ssize_t[::1] codes, const double[::1] weights,
           Py_ssize_t first, Py_ssize_t stop, uint32_t[::1] whole, double[::1] out) -> int:
    """out += weights, or whole += 1, for the categories: of column j and class c from begin[c, j] on.

    Returns which of NEGATIVE and UNSEEN it has met.
    """
    cdef const double* w = NULL if weights is None else &weights[0]
    cdef uint32_t* n = NULL if whole is None else &whole[0]
    cdef double* sums = NULL if out is None else &out[0]
    cdef int met
    with nogil:
        met = nb_counts(&term.t, &begin[0, 0], &codes[0], w, first, stop, n, sums)
    return met


def pairs(Term term, const Py_ssize_t[:, ::1] begin, const Py_ssize_t[::1] codes, Py_ssize_t first, Py_ssize_t stop,
          int bits, uint32_t[::1] joint, uint32_t[::1] whole) -> int:
    """The same in whole numbers by pairs of columns: nb_pairs. X: int64, int32, int8 or uint8, columns side by side."""
    cdef int met
    with nogil:
        met = nb_pairs(&term.t, &begin[0, 0], &codes[0], first, stop, bits, &joint[0], &whole[0])
    return met


def moments(Term term, bint missing, bint given, const Py_ssize_t[::1] codes, const double[::1] weights,
            Py_ssize_t first, Py_ssize_t stop, double[::1] total, double[:, ::1] about, double[:, ::1] count,
            double[:, ::1] first_moment, double[:, ::1] second_moment) -> None:
    """Moments of each class about `about`, which is given, or set to its first row; all else is added to.

    count: if missing.
    """
    cdef const double* w = NULL if weights is None else &weights[0]
    with nogil:
        nb_moments(&term.t, missing, given, &codes[0], w, first, stop, &total[0], &about[0, 0], &count[0, 0],
                   &first_moment[0, 0], &second_moment[0, 0])
