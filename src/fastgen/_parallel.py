"""Threads: one pool over kernels that release the GIL, and what ``n_threads`` means.

Work over rows is cut into chunks. The calling thread and, if the work is worth it, helpers from the pool take
chunk after chunk. A kernel gives every row the same bits wherever its chunk begins, and reductions merge fixed
segments in a fixed order (`segments`), so results never depend on the number of threads.

No more threads run at once than `get_num_threads()`, over all callers together: a call made while others are
at work (joblib's threads, a helper of our own) gets the threads that are left, and at least its own. An explicit
``n_threads`` is taken at its word.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from math import ceil
from pathlib import Path

SERIAL_BELOW_NS = 300_000.0
"""Work below this is not worth waking a thread for."""

_CHUNKS_PER_THREAD = 8
_SEGMENT_NS = 400_000.0
_MAX_HELPERS = 256

Body = Callable[[int, int], None]
"""Does the rows ``[start, stop)``."""


class _Pool:
    """The helpers, and how many threads are at work. Made anew in a forked child."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.at_work = 0
        self.executor: ThreadPoolExecutor | None = None

    def claim(self, wanted: int, limit: int | None) -> int:
        """Take up to ``wanted`` threads, of those that ``limit`` leaves free; at least one, the caller's."""
        with self.lock:
            granted = wanted if limit is None else max(1, min(wanted, limit - self.at_work))
            self.at_work += granted
            return granted

    def release(self, threads: int) -> None:
        with self.lock:
            self.at_work -= threads

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done by a helper, now, later, or never: no thread may be to be had."""
        with self.lock:
            if self.executor is None:
                # Threads are started one by one, as they are needed.
                self.executor = ThreadPoolExecutor(_MAX_HELPERS, thread_name_prefix="fastgen")
        with suppress(RuntimeError):  # the interpreter is shutting down, or no thread can be started
            self.executor.submit(work)


_pool = _Pool()
_set_globally: int | None = None
_set_here: ContextVar[int | None] = ContextVar("fastgen_num_threads", default=None)


def _reset_after_fork() -> None:
    global _pool
    _pool = _Pool()
    available_cpus.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def check_n_threads(n_threads: object) -> int:
    """Return ``n_threads`` if it is a positive integer; raise ``ValueError`` otherwise."""
    if isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
        raise ValueError(f"n_threads must be a positive integer or None, got {n_threads!r}")
    number = int(n_threads.__index__())
    if number < 1:
        raise ValueError(f"n_threads must be a positive integer or None, got {number}")
    return number


@cache
def available_cpus() -> int:
    """CPUs that this process may use: affinity, and the quota of its control group."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for limit in _cgroup_limits():
        with suppress(OSError, ValueError):
            quota, period = limit.read_text(encoding="ascii").split()
            if quota != "max":
                cpus = min(cpus, ceil(int(quota) / int(period)))
    return max(1, cpus)


def _cgroup_limits() -> list[Path]:
    """Files with the CPU quota of this process's control group (version 2) and of those that hold it."""
    root = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()[-1].partition("::/")[2]
    except (OSError, IndexError):  # not Linux
        own = ""
    group = root / own
    return [folder / "cpu.max" for folder in (group, *group.parents) if folder.is_relative_to(root)]


def _from_environment() -> int | None:
    for name in ("FASTGEN_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()  # OpenMP allows one number per nesting level
        if text.isascii() and text.isdigit() and int(text) > 0:
            return int(text)
        if text and name.startswith("FASTGEN"):
            raise ValueError(f"{name} must be a positive integer, got {text!r}")
    return None


def _in_worker_process() -> bool:
    """Whether this is a worker of a multiprocessing pool, beside others that use the other CPUs."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(process.current_process().daemon)


def get_num_threads() -> int:
    """How many threads the kernels may use.

    The first of these that is set: `num_threads`, `set_num_threads`, the environment variables
    ``FASTGEN_NUM_THREADS`` and ``OMP_NUM_THREADS``; else 1 in a worker of a ``multiprocessing`` pool, and the
    CPUs that this process may use (affinity, control group) elsewhere.

    Returns
    -------
    int
    """
    number = _set_here.get() or _set_globally or _from_environment()
    return number or (1 if _in_worker_process() else available_cpus())


def set_num_threads(n_threads: int | None) -> None:
    """Set how many threads the kernels may use, for the whole process.

    Parameters
    ----------
    n_threads : int or None
        A positive number, or None for the default (see `get_num_threads`).
    """
    global _set_globally
    _set_globally = None if n_threads is None else check_n_threads(n_threads)


@contextmanager
def num_threads(n_threads: int) -> Iterator[None]:
    """Context manager: how many threads the kernels may use, in this thread and inside the ``with`` block.

    Parameters
    ----------
    n_threads : int
        A positive number.
    """
    token = _set_here.set(check_n_threads(n_threads))
    try:
        yield
    finally:
        _set_here.reset(token)


def run_chunks(make_body: Callable[[], Body], n: int, unit: int, cost_ns: float, n_threads: int | None = None) -> None:
    """Do the rows ``[0, n)`` in chunks of a multiple of ``unit`` rows, on as many threads as are worth it.

    ``make_body`` is called once on each thread and may hold its work space. ``cost_ns`` is a rough estimate for
    all of the work. The first exception of any thread is raised, after all have stopped.
    """
    if n == 0:
        return
    if n_threads is not None:
        limit, wanted = None, check_n_threads(n_threads)
    elif cost_ns < SERIAL_BELOW_NS:
        limit, wanted = None, 1
    else:
        limit = wanted = get_num_threads()
    wanted = min(wanted, ceil(n / unit))
    if wanted == 1:
        make_body()(0, n)
        return
    granted = 0
    try:
        granted = _pool.claim(wanted, limit)
        _run_on(granted, make_body, n, unit)
    finally:
        _pool.release(granted)


def _run_on(threads: int, make_body: Callable[[], Body], n: int, unit: int) -> None:
    chunk = unit * max(1, ceil(n / (threads * _CHUNKS_PER_THREAD * unit)))
    starts = iter(range(0, n, chunk))
    state = threading.Condition()
    helping = 0
    stop = False
    failures: list[BaseException] = []

    def take_chunks() -> None:
        body = make_body()
        while True:
            with state:
                start = None if stop else next(starts, None)
            if start is None:
                return
            body(start, min(n, start + chunk))

    def help_out() -> None:
        nonlocal helping, stop
        with state:
            if stop:  # came too late: nobody waits for this helper
                return
            helping += 1
        try:
            take_chunks()
        except BaseException as error:
            failures.append(error)
            stop = True
        finally:
            with state:
                helping -= 1
                state.notify_all()

    for _ in range(threads - 1):
        _pool.submit(help_out)
    try:
        take_chunks()
    except BaseException as error:
        failures.append(error)
    while True:  # however often it is interrupted: nobody may write into the caller's arrays after this
        try:
            with state:
                stop = True
                while helping:
                    state.wait()
            break
        except KeyboardInterrupt as interrupt:
            failures.append(interrupt)
    if failures:
        raise failures[0]


def segments(n: int, unit: int, record_bytes: int, row_ns: float) -> list[tuple[int, int]]:
    """Cut ``n`` rows into fixed segments for a reduction: they depend on the data's shape alone.

    At most 64, each worth its merge (by a guess of what a row costs), and so few that their records stay within
    16 MiB (but 4).
    """
    most = max(4, min(64, (16 << 20) // max(1, record_bytes)))
    size = unit * max(16, ceil(max(_SEGMENT_NS / row_ns, n / most) / unit))
    return [(start, min(n, start + size)) for start in range(0, n, size)]
