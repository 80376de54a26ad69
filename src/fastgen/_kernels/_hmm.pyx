"""hmm.h made callable: recursions of hidden Markov models.

Kernels only: no validation, no allocation, no Python objects in loops. Arrays are checked by the caller
(fastgen._hmm_recursions); sizes are at least 1.
"""

cdef extern from "hmm.h" nogil:
    double _SAFE "SAFE"
    int _LANES "LANES"
    int _STEPS "STEPS"
    int _BEGINS "BEGINS"
    int _ENDS "ENDS"
    int _LOGS "LOGS"
    int _LIKELIHOODS "LIKELIHOODS"
    int _TABLE "TABLE"
    ctypedef struct mixture:
        Py_ssize_t d
        Py_ssize_t K
        const double* means
        const double* factors
        Py_ssize_t factor_size
        const double* log_norm
        const double* centre
        const double* log_weights
    ctypedef struct emission:
        int kind
        int single
        mixture m
        const char* x
        Py_ssize_t row_bytes
        Py_ssize_t column_stride
        const Py_ssize_t* symbols
        const double* table_top
        Py_ssize_t columns
    ctypedef struct links:
        const Py_ssize_t* at
        const Py_ssize_t* state
        const double* p
    ctypedef struct chain:
        Py_ssize_t K
        Py_ssize_t step
        const double* start
        const double* A
        const double* AT
        int wide
        links into
        links out_of
    ctypedef struct schedule:
        const Py_ssize_t* lanes
        const Py_ssize_t* row
        const Py_ssize_t* length
        const Py_ssize_t* before
        const Py_ssize_t* after
        const int* kind
        const double* weight
    ctypedef struct log_chain:
        const double* start
        const double* logA
        Py_ssize_t K
    ctypedef struct row_chain:
        Py_ssize_t K
        Py_ssize_t P
        const double* start
        const double* A
        const double* AT
        const double* exponent
        const double* exponent_T
        const double* start_exponent
    ctypedef struct results:
        double* logs
        double* warm_a
        double* end_a
        double* warm_w
        double* end_w
        double* posterior
        double* start
        double* transitions
        const double* about
        double* weight
        double* first
        double* second
        double* count
    ctypedef struct workspace:
        pass
    ctypedef struct joints:
        const double* a_in
        const double* w_in
        double* a_out
        double* w_out
    Py_ssize_t state_step(Py_ssize_t K)
    Py_ssize_t hmm_layout(int kind, Py_ssize_t d, Py_ssize_t K, int wide, Py_ssize_t tiles, int posterior,
                          int transitions, int moments, double* memory, workspace* w)
    void hmm_score(const emission* e, const chain* c, const schedule* S, Py_ssize_t first, Py_ssize_t stop,
                   Py_ssize_t W, double* logs, double* warm, double* end, double* memory)
    void hmm_e_step(const emission* e, const chain* c, const schedule* S, Py_ssize_t first, Py_ssize_t stop,
                    Py_ssize_t W, Py_ssize_t tiles, const results* out, double* memory)
    Py_ssize_t viterbi_work_size(Py_ssize_t d, Py_ssize_t K, Py_ssize_t tiles, Py_ssize_t W)
    int hmm_viterbi(const emission* e, const log_chain* c, const schedule* S, Py_ssize_t first, Py_ssize_t stop,
                    Py_ssize_t W, Py_ssize_t tiles, double* logs, Py_ssize_t* path, double* warm, double* end,
                    Py_ssize_t* entry, Py_ssize_t* exits, double* memory)
    Py_ssize_t sequence_work_size(Py_ssize_t d, Py_ssize_t K, Py_ssize_t n, int keep, int wide)
    void hmm_sequence(const emission* e, const row_chain* c, Py_ssize_t row, Py_ssize_t n, double weight,
                      const joints* at_ends, double* logs, int filter, double* posterior, double* start,
                      double* transitions, double* memory)
    void sample_path(const double* filtered, const double* logA, Py_ssize_t n, Py_ssize_t K, const double* uniform,
                     Py_ssize_t* path, double* work)
    void best_paths(const double* l, const double* start, const double* logA, Py_ssize_t n, Py_ssize_t K,
                    Py_ssize_t best, double* logs, Py_ssize_t* paths, int* back, double* work)
    void hmm_sequence_wide(const emission* e, const row_chain* c, Py_ssize_t row, Py_ssize_t n, double weight,
                           const joints* at_ends, double* logs, int filter, double* posterior, double* start,
                           double* transitions, Py_ssize_t* impossible, double* memory)
    Py_ssize_t given_work_size(Py_ssize_t n, Py_ssize_t K)
    double given_forward_backward(const double* l, Py_ssize_t n, Py_ssize_t K, const double* start, const double* A,
                                  double* posterior, double* first, double* transitions, double* work)
    double given_viterbi(const double* l, Py_ssize_t n, Py_ssize_t K, const double* start, const double* A,
                         Py_ssize_t* path, double* work)
    int viterbi_sequence(const emission* e, const row_chain* c, Py_ssize_t row, Py_ssize_t n, double* logs,
                         Py_ssize_t* path, void* back, double* memory)

SAFE = _SAFE
LANES = _LANES
STEPS = _STEPS
BEGINS = _BEGINS
ENDS = _ENDS
LOGS = _LOGS
LIKELIHOODS = _LIKELIHOODS
TABLE = _TABLE


cdef class Emissions:
    """Where the likelihoods of the states come from: rows of Gaussian data, of logarithms, or of a table."""

    cdef emission e
    cdef readonly object arrays

    def __init__(self, int kind, X, Py_ssize_t K, const double[:, ::1] means=None, const double[:, ::1] factors=None,
                 const double[:, ::1] log_norm=None, const double[::1] centre=None,
                 const Py_ssize_t[::1] symbols=None, const double[::1] top=None) -> None:
        cdef const double[:, :] x64
        cdef const float[:, :] x32
        self.arrays = (X, means, factors, log_norm, centre, symbols, top)
        self.e.kind = kind
        self.e.single = X.dtype == "float32"
        if self.e.single:
            x32 = X
            self.e.x = <const char*>&x32[0, 0]
        else:
            x64 = X
            self.e.x = <const char*>&x64[0, 0]
        self.e.row_bytes = X.strides[0]
        self.e.column_stride = X.strides[1] // X.itemsize
        self.e.columns = X.shape[1]
        self.e.m.d = X.shape[1]
        self.e.m.K = K
        if means is not None:
            self.e.m.means = &means[0, 0]
            self.e.m.factors = &factors[0, 0]
            self.e.m.factor_size = factors.shape[1]
            self.e.m.log_norm = &log_norm[0, 0]
            self.e.m.centre = &centre[0]
        if symbols is not None:
            self.e.symbols = &symbols[0]
            self.e.table_top = &top[0]


cdef class Schedule:
    """Which pieces of sequences each lane has: layouts in hmm.h."""

    cdef schedule s
    cdef readonly object arrays

    def __init__(self, const Py_ssize_t[::1] lanes, const Py_ssize_t[::1] row, const Py_ssize_t[::1] length,
                 const Py_ssize_t[::1] before, const Py_ssize_t[::1] after, const int[::1] kind,
                 const double[::1] weight=None) -> None:
        self.arrays = (lanes, row, length, before, after, kind, weight)
        self.s.lanes = &lanes[0]
        self.s.row = &row[0]
        self.s.length = &length[0]
        self.s.before = &before[0]
        self.s.after = &after[0]
        self.s.kind = &kind[0]
        self.s.weight = NULL if weight is None else &weight[0]


def states(Py_ssize_t K) -> int:
    """K with the padding that `score` and `e_step` want of start and A."""
    return state_step(K)


cdef class Links:
    """Possible transitions into and out of each state: at (K + 1,), and of each the state and its probability."""

    cdef links into
    cdef links out_of
    cdef readonly object arrays

    def __init__(self, const Py_ssize_t[::1] into_at, const Py_ssize_t[::1] sources, const double[::1] into_p,
                 const Py_ssize_t[::1] out_at, const Py_ssize_t[::1] targets, const double[::1] out_p) -> None:
        self.arrays = (into_at, sources, into_p, out_at, targets, out_p)
        self.into.at, self.into.state, self.into.p = &into_at[0], &sources[0], &into_p[0]
        self.out_of.at, self.out_of.state, self.out_of.p = &out_at[0], &targets[0], &out_p[0]


cdef chain _chain(Py_ssize_t K, const double[::1] start, const double[:, ::1] A, const double[:, ::1] AT,
                  Links possible) noexcept:
    cdef chain c
    c.K, c.step, c.start, c.A = K, start.shape[0], &start[0], &A[0, 0]
    c.AT = NULL if AT is None else &AT[0, 0]
    c.wide = possible is not None
    if possible is not None:
        c.into, c.out_of = possible.into, possible.out_of
    return c


def work_size(Emissions e, Py_ssize_t K, bint wide, Py_ssize_t tiles, bint posterior, bint transitions,
              bint moments) -> int:
    """Doubles of work space of e_step; of score with tiles = 1 and nothing else."""
    return hmm_layout(e.e.kind, e.e.columns, K, wide, tiles, posterior, transitions, moments, NULL, NULL)


def score(Emissions e, Py_ssize_t K, const double[::1] start, const double[:, ::1] A, Links possible, Schedule s,
          Py_ssize_t first, Py_ssize_t stop, Py_ssize_t W, double[:, ::1] logs, double[:, ::1] warm,
          double[:, ::1] end, double[::1] work) -> None:
    """logs (pieces, 2) of groups first..stop-1; warm, end (lanes, K): hmm.h. possible: in wide numbers."""
    cdef chain c = _chain(K, start, A, None, possible)
    with nogil:
        hmm_score(&e.e, &c, &s.s, first, stop, W, &logs[0, 0], &warm[0, 0], &end[0, 0], &work[0])


def e_step(Emissions e, Py_ssize_t K, const double[::1] start, const double[:, ::1] A, const double[:, ::1] AT,
           Links possible, Schedule s, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t W, Py_ssize_t tiles,
           double[:, ::1] logs, double[:, ::1] warm_a, double[:, ::1] end_a, double[:, ::1] warm_w,
           double[:, ::1] end_w, double[::1] work, double[:, ::1] posterior=None, double[::1] first_states=None,
           double[:, ::1] transitions=None, const double[:, ::1] about=None, double[::1] weight=None,
           double[:, ::1] moment1=None, double[:, ::1] moment2=None, double[:, ::1] count=None) -> None:
    """Forward and backward through groups first..stop-1; whichever results are given are filled: hmm.h."""
    cdef chain c = _chain(K, start, A, AT, possible)
    cdef results out
    out.logs, out.warm_a, out.end_a = &logs[0, 0], &warm_a[0, 0], &end_a[0, 0]
    out.warm_w, out.end_w = &warm_w[0, 0], &end_w[0, 0]
    out.posterior = NULL if posterior is None else &posterior[0, 0]
    out.start = NULL if first_states is None else &first_states[0]
    out.transitions = NULL if transitions is None else &transitions[0, 0]
    out.about = NULL
    if about is not None:
        out.about, out.weight, out.first = &about[0, 0], &weight[0], &moment1[0, 0]
        out.second, out.count = &moment2[0, 0], &count[0, 0]
    with nogil:
        hmm_e_step(&e.e, &c, &s.s, first, stop, W, tiles, &out, &work[0])


def viterbi_size(Emissions e, Py_ssize_t K, Py_ssize_t tiles, Py_ssize_t W) -> int:
    """Doubles of work space of viterbi."""
    return viterbi_work_size(e.e.columns, K, tiles, W)


def viterbi(Emissions e, const double[::1] start, const double[:, ::1] log_A, Schedule s, Py_ssize_t first,
            Py_ssize_t stop, Py_ssize_t W, Py_ssize_t tiles, double[:, ::1] logs, Py_ssize_t[::1] path,
            double[:, ::1] warm, double[:, ::1] end, Py_ssize_t[::1] entry, Py_ssize_t[::1] exits,
            double[::1] work) -> int:
    """path (n,) and logs (pieces, 2) of groups first..stop-1; start, log_A: logarithms. Results: hmm.h."""
    cdef log_chain c
    cdef int bad
    c.K, c.start, c.logA = start.shape[0], &start[0], &log_A[0, 0]
    with nogil:
        bad = hmm_viterbi(&e.e, &c, &s.s, first, stop, W, tiles, &logs[0, 0], &path[0], &warm[0, 0], &end[0, 0],
                          &entry[0], &exits[0], &work[0])
    return bad


cdef row_chain _row_chain(const double[::1] start, const double[:, ::1] A, const double[:, ::1] AT) noexcept:
    cdef row_chain c
    c.K, c.P = A.shape[0], A.shape[1]
    c.start, c.A = &start[0], &A[0, 0]
    c.AT = NULL if AT is None else &AT[0, 0]
    return c


cdef joints _joints(const double[::1] a_in, double[::1] a_out, const double[::1] w_in,
                    double[::1] w_out) noexcept:
    cdef joints j
    j.a_in = NULL if a_in is None else &a_in[0]
    j.a_out = NULL if a_out is None else &a_out[0]
    j.w_in = NULL if w_in is None else &w_in[0]
    j.w_out = NULL if w_out is None else &w_out[0]
    return j


def sequence_size(Emissions e, Py_ssize_t K, Py_ssize_t n, bint keep, bint wide) -> int:
    """Doubles of work space of sequence (keep: not only its log-likelihood is wanted) and viterbi_rows."""
    return sequence_work_size(e.e.columns, K, n, keep, wide)


def sequence(Emissions e, const double[::1] start, const double[:, ::1] A, const double[:, ::1] AT, Py_ssize_t row,
             Py_ssize_t n, double weight, double[::1] logs, double[::1] work, double[:, ::1] posterior=None,
             double[::1] first_states=None, double[:, ::1] transitions=None, bint filtered=False,
             const double[::1] a_in=None, double[::1] a_out=None, const double[::1] w_in=None,
             double[::1] w_out=None) -> None:
    """One sequence of n steps from `row` on; start (P,), A, AT (K, P). posterior: its own rows.

    filtered: forward only; posterior <- logarithms of p(state | what came up to the step).
    a_in, ..., w_out (2 P,): of a part of a sequence, see joints in hmm.h. logs and sums are added to.
    """
    cdef row_chain c = _row_chain(start, A, AT)
    cdef double* p = NULL if posterior is None else &posterior[0, 0]
    cdef double* f = NULL if first_states is None else &first_states[0]
    cdef double* t = NULL if transitions is None else &transitions[0, 0]
    cdef joints at_ends = _joints(a_in, a_out, w_in, w_out)
    with nogil:
        hmm_sequence(&e.e, &c, row, n, weight, &at_ends, &logs[0], filtered, p, f, t, &work[0])


def wide_sequence(Emissions e, const double[::1] start, const double[::1] start_exponent, const double[:, ::1] A,
                  const double[:, ::1] exponent, const double[:, ::1] AT, const double[:, ::1] exponent_T,
                  Py_ssize_t row, Py_ssize_t n, double weight, double[::1] logs, double[::1] work,
                  double[:, ::1] posterior=None, double[::1] first_states=None,
                  double[:, ::1] transitions=None, bint filtered=False,
                  const double[::1] a_in=None, double[::1] a_out=None, const double[::1] w_in=None,
                  double[::1] w_out=None) -> int:
    """The same in numbers of any range, but logs are set; returns the first step without a possible state, or -1."""
    cdef row_chain c = _row_chain(start, A, AT)
    cdef double* p = NULL if posterior is None else &posterior[0, 0]
    cdef double* f = NULL if first_states is None else &first_states[0]
    cdef double* t = NULL if transitions is None else &transitions[0, 0]
    cdef Py_ssize_t impossible
    cdef joints at_ends = _joints(a_in, a_out, w_in, w_out)
    c.start_exponent, c.exponent, c.exponent_T = &start_exponent[0], &exponent[0, 0], &exponent_T[0, 0]
    with nogil:
        hmm_sequence_wide(&e.e, &c, row, n, weight, &at_ends, &logs[0], filtered, p, f, t, &impossible, &work[0])
    return impossible


def viterbi_rows(Emissions e, const double[::1] start, const double[:, ::1] log_A, Py_ssize_t row, Py_ssize_t n,
                 double[::1] logs, Py_ssize_t[::1] path, unsigned char[::1] back, double[::1] work) -> int:
    """The most probable path of one sequence; start (P,), log_A (K, P), padded with -inf; back: n P bytes, twice as
    many if K > 256. Returns whether a log-likelihood was not finite."""
    cdef row_chain c = _row_chain(start, log_A, None)
    cdef int bad
    with nogil:
        bad = viterbi_sequence(&e.e, &c, row, n, &logs[0], &path[0], &back[0], &work[0])
    return bad


def sampled_path(const double[:, ::1] filtered, const double[:, ::1] log_A, const double[::1] uniform,
                 Py_ssize_t[::1] path, double[::1] work) -> None:
    """path (n,) <- a draw from p(path | sequence), from the logarithms of the filter (n, K)."""
    with nogil:
        sample_path(&filtered[0, 0], &log_A[0, 0], filtered.shape[0], filtered.shape[1], &uniform[0], &path[0],
                    &work[0])


def k_best(const double[:, ::1] log_likelihoods, const double[::1] start, const double[:, ::1] log_A,
           double[::1] logs, Py_ssize_t[:, ::1] paths, int[::1] back, double[::1] work) -> None:
    """logs (k,) and paths (k, n) <- the k most probable; back: n K k + K, work: 2 K k."""
    with nogil:
        best_paths(&log_likelihoods[0, 0], &start[0], &log_A[0, 0], log_likelihoods.shape[0], start.shape[0],
                   logs.shape[0], &logs[0], &paths[0, 0], &back[0], &work[0])


cdef Py_ssize_t markov_work_size(Py_ssize_t n, Py_ssize_t K) noexcept nogil:
    return given_work_size(n, K)


cdef double markov_forward_backward(const double* log_likelihoods, Py_ssize_t n, Py_ssize_t K,
                                    const double* startprob, const double* transmat, double* posteriors,
                                    double* start, double* transitions, double* work) noexcept nogil:
    return given_forward_backward(log_likelihoods, n, K, startprob, transmat, posteriors, start, transitions, work)


cdef double markov_viterbi(const double* log_likelihoods, Py_ssize_t n, Py_ssize_t K, const double* startprob,
                           const double* transmat, Py_ssize_t* path, double* work) noexcept nogil:
    return given_viterbi(log_likelihoods, n, K, startprob, transmat, path, work)
