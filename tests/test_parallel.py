"""Threads: how many, that every row is done once, forks, joblib, errors. Nothing here is timed."""

import multiprocessing
import os
import sys
import threading
import time
import warnings
from itertools import pairwise

import joblib
import numpy as np
import pytest

import fastgen
from fastgen import _parallel
from fastgen._parallel import run_chunks, segments
from fastgen.kernels import gaussian_log_density

WORTH_THREADS = 1e12
"""A cost in ns that calls for all threads."""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(autouse=True)
def _default_threads():
    fastgen.set_num_threads(None)
    yield
    fastgen.set_num_threads(None)
    assert _parallel._pool.at_work == 0  # every test gives back what it took


def density(X, n_threads=None):
    return gaussian_log_density(X, np.zeros((2, X.shape[1])), np.ones((2, X.shape[1])), "diag", n_threads=n_threads)


def big(rng):
    """Enough work for threads."""
    return rng.standard_normal((200_000, 4))


# ---- how many ----------------------------------------------------------------------------------------------------


def test_set_and_get():
    default = fastgen.get_num_threads()
    assert default >= 1
    fastgen.set_num_threads(3)
    assert fastgen.get_num_threads() == 3
    with fastgen.num_threads(5):
        assert fastgen.get_num_threads() == 5
        with fastgen.num_threads(np.int64(2)):
            assert fastgen.get_num_threads() == 2
        assert fastgen.get_num_threads() == 5
    assert fastgen.get_num_threads() == 3
    fastgen.set_num_threads(None)
    assert fastgen.get_num_threads() == default


def test_the_context_manager_holds_in_its_own_thread_alone_and_ends_with_an_error():
    seen = []
    default = fastgen.get_num_threads()

    def fail():
        with fastgen.num_threads(9):
            thread = threading.Thread(target=lambda: seen.append(fastgen.get_num_threads()))
            thread.start()
            thread.join()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [default]
    assert fastgen.get_num_threads() == default


@pytest.mark.parametrize("bad", [0, -1, 1.0, 2.5, "2", True, [1], np.nan])
def test_bad_numbers(bad):
    with pytest.raises(ValueError, match="n_threads must be a positive integer"):
        fastgen.set_num_threads(bad)
    with pytest.raises(ValueError, match="n_threads must be a positive integer"), fastgen.num_threads(bad):
        pass
    with pytest.raises(ValueError, match="n_threads must be a positive integer"):
        density(np.zeros((1, 1)), n_threads=bad)


NUMBER = "import fastgen; print(fastgen.get_num_threads())"


@pytest.mark.parametrize(
    ("ours", "openmp", "expected"),
    [("3", None, 3), (None, "5", 5), ("3", "5", 3), (" 4 ", None, 4), (None, "6,2", 6), ("", "5", 5)],
)
def test_environment(python, ours, openmp, expected):
    done = python(NUMBER, FASTGEN_NUM_THREADS=ours, OMP_NUM_THREADS=openmp)
    assert int(done.stdout) == expected


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_bad_environment(python, text):
    """Ours is an error, when it is asked for; that of OpenMP is not ours to judge."""
    done = python(NUMBER, check=False, FASTGEN_NUM_THREADS=text, OMP_NUM_THREADS=None)
    assert "ValueError: FASTGEN_NUM_THREADS must be a positive integer" in done.stderr
    assert python("import fastgen", FASTGEN_NUM_THREADS=text).returncode == 0
    default = python(NUMBER, FASTGEN_NUM_THREADS=None, OMP_NUM_THREADS=None).stdout
    assert python(NUMBER, FASTGEN_NUM_THREADS=None, OMP_NUM_THREADS=text).stdout == default


def test_digits_that_int_does_not_take(python):
    """str.isdigit() says yes to a superscript two."""
    assert python(NUMBER, FASTGEN_NUM_THREADS=None, OMP_NUM_THREADS="\N{SUPERSCRIPT TWO}").returncode == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_affinity(python):
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); " + NUMBER
    assert python(code, FASTGEN_NUM_THREADS=None, OMP_NUM_THREADS=None).stdout.strip() == "1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("150000 100000", 2), ("100000 100000", 1), ("50000 100000", 1), ("max 100000", 64), ("", 64), ("x y", 64)],
)
def test_quota_of_the_control_group(monkeypatch, text, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(_parallel.Path, "read_text", lambda self, encoding: text)
    assert _parallel.available_cpus.__wrapped__() == expected


def test_no_control_group(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)

    def no_such_file(self, encoding):
        raise FileNotFoundError

    monkeypatch.setattr(_parallel.Path, "read_text", no_such_file)
    assert _parallel.available_cpus.__wrapped__() == 3


# ---- chunks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("unit", [1, 32, 100])
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 1000, 10_007])
def test_each_row_is_done_once(n, unit, threads):
    for explicit in (True, False):
        done = np.zeros(n, int)
        starts = []
        bodies = []

        def make_body(done=done, starts=starts, bodies=bodies):
            bodies.append(threading.get_ident())

            def body(first, last):
                assert 0 <= first < last <= len(done)
                starts.append(first)
                done[first:last] += 1

            return body

        if explicit:
            run_chunks(make_body, n, unit, 0.0, threads)
        else:
            with fastgen.num_threads(threads):
                run_chunks(make_body, n, unit, WORTH_THREADS)
        assert (done == 1).all()
        assert all(start % unit == 0 for start in starts)
        assert len(bodies) <= min(threads, -(-n // unit))  # a work space for each thread, and no more


def test_little_work_stays_in_the_calling_thread():
    threads = set()
    with fastgen.num_threads(8):
        run_chunks(lambda: lambda start, stop: threads.add(threading.get_ident()), 10_000, 1, 1000.0)
    assert threads == {threading.get_ident()}


def test_threads_really_share_the_work():
    """Two bodies that wait for each other: neither could end alone."""
    barrier = threading.Barrier(2, timeout=30)
    threads = set()

    def body(start, stop):
        barrier.wait()
        threads.add(threading.get_ident())

    run_chunks(lambda: body, 2, 1, 0.0, 2)
    assert len(threads) == 2


@pytest.mark.parametrize("n", [1, 63, 64, 1024, 1025, 10**5, 10**7, 10**9])
@pytest.mark.parametrize("record_bytes", [1, 1 << 20, 1 << 30])
def test_segments_cover_the_rows_and_know_no_threads(n, record_bytes):
    cuts = segments(n, 64, record_bytes, 20.0)
    for n_threads in (1, 7):
        with fastgen.num_threads(n_threads):
            assert segments(n, 64, record_bytes, 20.0) == cuts
    assert cuts[0][0] == 0
    assert cuts[-1][1] == n
    assert all(before[1] == after[0] for before, after in pairwise(cuts))
    assert all(start < stop for start, stop in cuts)
    assert all((stop - start) % 64 == 0 for start, stop in cuts[:-1])
    assert len(cuts) <= 64
    assert len(cuts) <= 4 or len(cuts) * record_bytes <= 16 << 20


# ---- errors ------------------------------------------------------------------------------------------------------


class Boom(Exception):
    pass


@pytest.mark.parametrize("where", ["first", "last", "everywhere", "make_body"])
def test_an_error_in_a_body_comes_out_and_the_pool_lives_on(rng, where):
    def make_body():
        if where == "make_body":
            raise Boom

        def body(start, stop):
            if where == "everywhere" or (start == 0 and where == "first") or (stop == 1000 and where == "last"):
                raise Boom

        return body

    for n_threads in (1, 2, 5):
        with pytest.raises(Boom):
            run_chunks(make_body, 1000, 1, 0.0, n_threads)
        assert _parallel._pool.at_work == 0
        X = big(rng)
        assert np.array_equal(density(X, n_threads=2), density(X, n_threads=1))


def test_an_error_stops_the_others():
    """Once one has failed no new chunk is begun, beyond what was under way."""
    done = []

    def body(start, stop):
        done.append(start)
        raise Boom

    with pytest.raises(Boom):
        run_chunks(lambda: body, 10_000, 1, 0.0, 3)
    assert len(done) <= 3


# ---- several callers ---------------------------------------------------------------------------------------------


class Peak:
    """A pool that remembers how many threads were at work at most."""

    def __init__(self, monkeypatch):
        self.most = 0
        pool = _parallel._Pool()
        claim = pool.claim

        def watched(wanted, limit):
            granted = claim(wanted, limit)
            with pool.lock:
                self.most = max(self.most, pool.at_work)
            return granted

        pool.claim = watched
        monkeypatch.setattr(_parallel, "_pool", pool)


@pytest.mark.parametrize("callers", [2, 4])
def test_callers_share_the_threads(monkeypatch, callers):
    """At most the limit, and for a caller that finds none left, its own thread."""
    peak = Peak(monkeypatch)
    fastgen.set_num_threads(4)
    together = threading.Barrier(callers, timeout=30)
    entered = [threading.Event() for _ in range(callers)]

    def call(i):
        def body(start, stop):
            if not entered[i].is_set():
                entered[i].set()
                together.wait()  # all callers hold their threads now

        run_chunks(lambda: body, 1000, 1, WORTH_THREADS)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert callers <= peak.most <= 4 + callers - 1
    assert _parallel._pool.at_work == 0


def test_nested_calls_do_not_multiply(monkeypatch):
    peak = Peak(monkeypatch)
    fastgen.set_num_threads(3)
    inner = np.zeros((6, 50), int)

    def body(start, stop):
        for row in range(start, stop):

            def nested(first, last, row=row):
                inner[row, first:last] += 1

            run_chunks(lambda nested=nested: nested, 50, 1, WORTH_THREADS)

    run_chunks(lambda: body, 6, 1, WORTH_THREADS)
    assert (inner == 1).all()
    # 3 at work outside; each of them inside again gets its own thread alone.
    assert peak.most <= 6


def fit_and_score(seed):
    X = np.random.default_rng(seed).standard_normal((200_000, 5))
    g = fastgen.Gaussian().fit(X)
    return g.covariance_, g.log_prob(X)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib(monkeypatch, backend):
    expected = [fit_and_score(seed) for seed in range(4)]
    peak = Peak(monkeypatch)
    fastgen.set_num_threads(2)
    got = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(fit_and_score)(seed) for seed in range(4))
    for one, other in zip(got, expected, strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])
    if backend == "threading":
        assert 2 <= peak.most <= 3  # two callers on two threads: the one that comes second has its own alone
    assert _parallel._pool.at_work == 0


def count_threads(_):
    return fastgen.get_num_threads()


@pytest.mark.skipif(os.environ.get("FASTGEN_NUM_THREADS") is not None, reason="the environment sets the number")
def test_workers_of_joblib_do_not_oversubscribe():
    """loky tells its workers their share by OMP_NUM_THREADS."""
    cpus = _parallel.available_cpus()
    numbers = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(count_threads)(i) for i in range(4))
    assert max(numbers) <= max(1, cpus // 2)


# ---- fork --------------------------------------------------------------------------------------------------------


def _quiet_fork():
    """Fork beside threads: Python 3.12 and later warn of it, and this is what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@needs_fork
def test_after_fork(rng):
    X = big(rng)
    expected = density(X, n_threads=2)  # the parent has helpers now
    assert _parallel._pool.executor is not None
    child = _quiet_fork()
    if child == 0:  # no assertion may escape into a second pytest
        code = 1
        try:
            code = 0 if np.array_equal(density(X, n_threads=2), expected) and _parallel._pool.at_work == 0 else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert np.array_equal(density(X, n_threads=2), expected)


@needs_fork
def test_fork_while_threads_are_at_work(rng):
    """The child inherits neither the claim nor a lock that is held."""
    X = big(rng)
    statuses = []

    def body(start, stop):
        if start == 0:
            with _parallel._pool.lock:
                child = _quiet_fork()
                if child == 0:
                    code = 1
                    try:
                        free = _parallel._pool.at_work == 0 and _parallel._pool.executor is None
                        code = 0 if free and len(density(X, n_threads=2)) == len(X) else 2
                    finally:
                        os._exit(code)
            statuses.append(os.waitpid(child, 0)[1])

    run_chunks(lambda: body, 10, 1, 0.0, 2)
    assert [os.waitstatus_to_exitcode(status) for status in statuses] == [0]


def _in_pool(seed):
    X = np.random.default_rng(seed).standard_normal((60_000, 4))
    return fastgen.get_num_threads(), density(X), density(X, n_threads=2)


@needs_fork
@pytest.mark.skipif(os.environ.get("FASTGEN_NUM_THREADS") is not None, reason="the environment sets the number")
def test_multiprocessing_pool(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    expected = [_in_pool(seed) for seed in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            got = pool.map(_in_pool, range(3))
    for (threads, default, two), (_, expected_default, expected_two) in zip(got, expected, strict=True):
        assert threads == 1  # the other workers use the other CPUs
        assert np.array_equal(default, expected_default)
        assert np.array_equal(two, expected_two)


def test_the_interpreter_ends_with_helpers_alive(python):
    """Helpers do not keep a process from ending, also if a kernel runs while it shuts down."""
    code = """
import atexit, numpy as np
from fastgen.kernels import gaussian_log_density
X = np.zeros((100_000, 3))
atexit.register(lambda: print(len(gaussian_log_density(X, np.zeros(3), np.ones(3), "diag", n_threads=2))))
gaussian_log_density(X, np.zeros(3), np.ones(3), "diag", n_threads=4)
print("end")
"""
    done = python(code)
    assert done.stdout.split() == ["end", "100000"]
    assert done.stderr == ""


def test_many_explicit_threads(rng):
    X = rng.standard_normal((40_000, 3))
    assert np.array_equal(density(X, n_threads=1000), density(X, n_threads=1))


def test_module_is_reset_in_the_child_by_registration():
    assert hasattr(os, "register_at_fork") == (sys.platform != "win32")
    before = _parallel._pool
    try:
        _parallel._reset_after_fork()
        assert _parallel._pool is not before
        assert _parallel._pool.executor is None
    finally:
        _parallel._pool = before


# ---- when threads do not come, or the user does not wait -----------------------------------------------------------


def test_a_helper_that_cannot_start_leaves_no_row_undone(monkeypatch):
    """An executor queues the work before it starts a thread: nobody may take up what failed to start later."""
    pool = _parallel._Pool()
    monkeypatch.setattr(_parallel, "_pool", pool)
    busy, release = threading.Event(), threading.Event()

    def hold():
        busy.set()
        release.wait(10)

    pool.submit(hold)
    busy.wait(10)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = np.zeros(64, bool)
    returned = False

    def make_body():
        def body(start, stop):
            assert not returned
            time.sleep(0.002)
            done[start:stop] = True

        return body

    release.set()
    run_chunks(make_body, 64, 1, WORTH_THREADS, n_threads=2)
    assert done.all()
    returned = True
    time.sleep(0.05)
    assert pool.at_work == 0


def test_an_interrupt_waits_for_the_helpers(monkeypatch):
    pool = _parallel._Pool()
    monkeypatch.setattr(_parallel, "_pool", pool)
    main = threading.current_thread()
    working = []

    def make_body():
        def body(start, stop):
            if threading.current_thread() is main:
                while not working:
                    time.sleep(0.001)
                raise KeyboardInterrupt
            working.append(start)
            time.sleep(0.05)
            working.pop()

        return body

    with pytest.raises(KeyboardInterrupt):
        run_chunks(make_body, 64, 1, WORTH_THREADS, n_threads=2)
    assert working == []
    assert pool.at_work == 0
