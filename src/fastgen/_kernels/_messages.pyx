"""messages.h made callable: belief propagation between pairs of variables.

Kernels only: no validation, no allocation, no Python objects in loops. Arrays are laid out by the caller
(fastgen.graphical._message_passing); sizes are at least 1.
"""

from libc.stdint cimport int64_t

cdef extern from "messages.h" nogil:
    int _LANES "LANES"
    int _RUNNING "RUNNING"
    int _STOPPED "STOPPED"
    int _CONVERGED "CONVERGED"
    int _DEAD "DEAD"
    ctypedef struct message_graph:
        Py_ssize_t K
        Py_ssize_t most_slots
        int maximum
        double damping
        const Py_ssize_t* blocks
        const double* unary
        const Py_ssize_t* partner
        const Py_ssize_t* lists
        const Py_ssize_t* table
        const double* tables
    ctypedef struct flood_progress:
        int64_t state, sweeps, kind, holds, away, taken, finished, stage
    int64_t first_stage(const flood_progress* f, int64_t every, int64_t last, int damped)
    Py_ssize_t messages_work_size(Py_ssize_t K, Py_ssize_t most_slots)
    int64_t flood_sweeps(const message_graph* g, double* one, double* other, Py_ssize_t blocks, Py_ssize_t part,
                         int64_t every, int64_t stop, int64_t last, double tol, flood_progress* f,
                         double* changes, int64_t pending, double* work)
    void collect_messages(const double* messages, Py_ssize_t K, const Py_ssize_t* half, int turned,
                          Py_ssize_t start, Py_ssize_t stop, double* out)

LANES = _LANES
RUNNING = _RUNNING
STOPPED = _STOPPED
CONVERGED = _CONVERGED
DEAD = _DEAD


def work_size(Py_ssize_t K, Py_ssize_t most_slots) -> int:
    """Doubles of work space that each thread needs."""
    return messages_work_size(K, most_slots)


def begin(int64_t[::1] progress, int64_t every, int64_t last, bint damped) -> None:
    """Ready for `sweep`, of which no call may be left. progress (8,): zeros at first; see flood_progress."""
    cdef flood_progress* f = <flood_progress*>&progress[0]
    f.state = _RUNNING
    f.taken = f.finished = f.stage = 0
    f.kind = first_stage(f, every, last, damped)


def sweep(const Py_ssize_t[:, ::1] blocks, const double[:, :, ::1] unary, const Py_ssize_t[::1] partner,
          const Py_ssize_t[:, ::1] lists, const Py_ssize_t[::1] table, const double[::1] tables,
          Py_ssize_t most_slots, bint maximum, double damping, double tol, double[:, :, :, ::1] messages,
          Py_ssize_t part, int64_t every, int64_t stop, int64_t last, int64_t[::1] progress,
          double[::1] changes, int64_t pending, double[::1] work) -> int:
    """One thread's share of the sweeps up to number `stop`, of `last`, in parts of `part` blocks; -1 at the end.

    messages: two arrays. changes (parts,) <- the largest of the last sweep. Anything but -1 that is returned is to
    be passed as `pending`, after other threads have had time. Layouts: messages.h.
    """
    cdef message_graph g
    g.K = unary.shape[1]
    g.most_slots = most_slots
    g.maximum = maximum
    g.damping = damping
    g.blocks = &blocks[0, 0]
    g.unary = &unary[0, 0, 0]
    g.partner = &partner[0]
    g.lists = &lists[0, 0]
    g.table = &table[0]
    g.tables = &tables[0]
    with nogil:
        pending = flood_sweeps(&g, &messages[0, 0, 0, 0], &messages[1, 0, 0, 0], blocks.shape[0], part, every,
                               stop, last, tol, <flood_progress*>&progress[0], &changes[0], pending, &work[0])
    return pending


def collect(const double[:, :, ::1] messages, const Py_ssize_t[:, ::1] half, bint turned, Py_ssize_t start,
            Py_ssize_t stop, double[:, ::1] out) -> None:
    """out (half-edges, K): rows half (-1: none), with `turned` half ^ 1, of the message blocks start to stop."""
    with nogil:
        collect_messages(&messages[0, 0, 0], messages.shape[1], &half[0, 0], turned, start, stop, &out[0, 0])
