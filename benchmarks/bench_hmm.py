"""Hidden Markov models: scores, posteriors, Viterbi paths, Baum-Welch, memory, and the recursions alone.

States stay with probability 0.95, and else go anywhere. Means are N(0, 2^2) in 4 dimensions, variances about 1. All
sides have the parameters that the data come from. Mixing: the second eigenvalue of the transition matrix is 0.90
(K = 2) to 0.95 (K = 64), so that without data a start would be forgotten to 16 digits in 350 to 730 steps; with these
data a filter forgets it in 5 to 30, at most 80 (K = 64).

Where hmmlearn takes too long, it gets the first part of the data; what it finds there is compared with what fastgen
finds in that part. Times are those of all steps, in proportion.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hmm_reference as reference
import numpy as np
import pytest
from bench_gaussian import shape
from bench_mixture import MEASURE, linux
from versus import Side, numpy_sides

import fastgen
from fastgen import hmm, kernels

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # after one iteration


def estimator(module, model, **options):
    """fastgen's or hmmlearn's, with the parameters of the model; ``fit`` makes one iteration."""
    kind = module.GaussianHMM if model.gaussian else module.CategoricalHMM
    made = kind(len(model.startprob), n_iter=1, tol=0.0, init_params="", **options)
    for name, value in {"startprob": model.startprob, "transmat": model.transmat, **model.emissions}.items():
        setattr(made, f"{name}_", value)
    return made


def fitted(made):
    """Variances (K, d) instead of hmmlearn's diagonal matrices."""
    return made.startprob_, made.transmat_, made.means_, np.diagonal(made.covars_, axis1=1, axis2=2)


class Job(NamedTuple):
    """A method, what of its result is compared and how closely, and the references."""

    method: str
    numba: Callable[..., Any]
    rtol: float
    atol: float
    numpy: Callable[..., Any] | None = None
    answer: Callable[[Any], Any] = lambda result: result


JOBS = {
    "score": Job("score", reference.score, 1e-9, 0.0),
    "posteriors": Job("score_samples", reference.posteriors, 1e-9, 1e-8, reference.numpy_posteriors),
    "Viterbi": Job("decode", reference.viterbi, 1e-10, 0.0),
    "Baum-Welch iteration": Job("fit", reference.baum_welch, 1e-6, 1e-9, reference.numpy_baum_welch, fitted),
}
RIVALS = ("hmmlearn", "hmmlearn (scaling)", "dynamax, scaled", "Numba")
MILLION = 1_000_000
FEWER = {16: 200_000, 64: 20_000}
"""Steps that hmmlearn gets, by K."""


def row(name, K, elsewhere, targets, n=MILLION, sequences=1, symbols=None):
    """On another machine dynamax (JAX) took `elsewhere` times the time of hmmlearn; `targets` are for RIVALS."""
    return pytest.param(name, K, n, sequences, symbols, elsewhere, targets, id=f"{name}-{K}-{sequences}-{symbols}")


@pytest.mark.parametrize(
    ("name", "K", "n", "sequences", "symbols", "elsewhere", "targets"),
    [
        row("score", 2, 76 / 112, (15, 10, 10, 4)),
        row("score", 4, 146 / 258, (25, 15, 12, 5)),
        row("score", 16, 609 / 1914, (50, None, 12, 4)),
        row("score", 64, 2769 / 23020, (100, None, 8, 3)),
        row("posteriors", 2, 131 / 493, (25, 8, 6, 4)),
        row("posteriors", 4, 239 / 689, (25, 8, 9, 4)),
        row("posteriors", 16, 1236 / 4604, (40, 18, 10, 4)),
        row("posteriors", 64, 5323 / 42400, (60, 20, 8, 4), n=200_000),
        row("posteriors", 8, 380 / 1902, (30, 12, 6, 4), sequences=10_000),
        row("posteriors", 16, 4807 / 4965, (40, 6, 20, 3), symbols=64),
        row("Baum-Welch iteration", 2, 169 / 404, (20, 8, 8, 4)),
        row("Baum-Welch iteration", 4, 324 / 1088, (25, 8, 8, 4)),
        row("Baum-Welch iteration", 16, 2988 / 7784, (50, 15, 8, 4)),
        row("Baum-Welch iteration", 8, 490 / 2925, (30, 12, 5, None), sequences=10_000),
        row("Viterbi", 4, 147 / 150, (12, None, 12, 2.5)),
        row("Viterbi", 16, 1104 / 1078, (15, None, 12, 2.5)),
        row("Viterbi", 64, 11770 / 9742, (12, None, 12, 2.5)),
    ],
)
def test_hmm(versus, table, size, quick, name, K, n, sequences, symbols, elsewhere, targets):
    theirs = pytest.importorskip("hmmlearn.hmm", reason="hmmlearn is what this is compared with")
    job, threads = JOBS[name], fastgen.get_num_threads()
    n, sequences = size(n), sequences if sequences == 1 else size(sequences)
    first = n if sequences > 1 else min(n, size(FEWER.get(K, MILLION)))
    model, X = reference.problem(n, K, symbols=symbols)
    lengths = None if sequences == 1 else np.full(sequences, n // sequences)

    def with_hmm(module, X, **options):
        return lambda: getattr(estimator(module, model, **options), job.method)(X, lengths)

    counterpart = None if first == n else with_hmm(hmm, X[:first])
    rivals = {
        title: Side(
            with_hmm(theirs, X[:first], implementation=way), job.answer, part=first / n, counterpart=counterpart
        )
        for title, way in (("hmmlearn", "log"), ("hmmlearn (scaling)", "scaling"))
        if way == "log" or name != "Viterbi"  # one implementation of this
    }
    rivals["Numba"] = Side(lambda: job.numba(X, lengths, model, threads))
    if sequences > 1:
        rivals |= numpy_sides(
            lambda **options: job.numpy(X, sequences, model, **options), threads=threads, answer=tuple
        )
    data = f"{symbols} symbols" if symbols else f"d = {X.shape[1]}"
    steps = shape(n) if sequences == 1 else f"{shape(sequences)} sequences of {n // sequences}"
    title = f"{name}, {steps}, K = {K}, {data}"
    found = versus(
        f"HMM: {title}",
        Side(with_hmm(hmm, X), job.answer),
        rivals,
        rtol=job.rtol,
        atol=job.atol,
        targets=None if quick else {(rival,): least for rival, least in zip(RIVALS, targets, strict=True) if least},
        scaled=None if quick else {"dynamax": ("hmmlearn", elsewhere)},
        n=n,
        sequences=sequences,
        K=K,
        symbols=symbols,
    )
    if found:
        names = ("fastgen", *RIVALS, "NumPy", "NumPy + pool")
        cells = [f"{1e6 * found['ms'][side] / n:.4g}" if side in found["ms"] else "" for side in names]
        table("Hidden Markov models: nanoseconds per step", ["", "threads", *names], [title, found["threads"], *cells])


# ---- Recursions, with emissions given, one thread


def expected_transitions(likelihoods, model):
    return kernels.expected_transitions(likelihoods, model.startprob, model.transmat, log=False, n_threads=1)


def their_transitions(likelihoods, model):
    from hmmlearn import _hmmc

    log_prob, forward, scales = _hmmc.forward_scaling(model.startprob, model.transmat, likelihoods)
    backward = _hmmc.backward_scaling(model.startprob, model.transmat, likelihoods, scales)
    return log_prob, forward, backward, _hmmc.compute_scaling_xi_sum(forward, model.transmat, backward, likelihoods)


def their_posteriors(found):
    """Without counting the time."""
    log_prob, forward, backward, transitions = found
    joint = forward * backward
    return log_prob, transitions, joint / joint.sum(axis=1, keepdims=True)


def viterbi(log_likelihoods, model):
    return kernels.viterbi(log_likelihoods, model.startprob, model.transmat, n_threads=1)


def their_viterbi(log_likelihoods, model):
    from hmmlearn import _hmmc

    return _hmmc.viterbi(model.startprob, model.transmat, log_likelihoods)


RECURSIONS = {
    "forward, backward, xi": (
        (expected_transitions, lambda r: (r.log_likelihoods[0], r.transitions, r.posteriors)),
        (their_transitions, their_posteriors),
    ),
    "Viterbi": ((viterbi, lambda r: (r.log_probs[0], r.paths)), (their_viterbi, tuple)),
}


@pytest.mark.parametrize(
    ("K", "n", "targets"), [(2, MILLION, (3, 2)), (4, MILLION, (3, 2)), (16, 200_000, (8, 3)), (64, 40_000, (12, 3))]
)
@pytest.mark.parametrize("name", RECURSIONS)
def test_recursion(versus, table, size, quick, name, K, n, targets):
    """What there is to do at least: 3 K^2 multiply-adds in a step, forwards, backwards and for the transitions."""
    pytest.importorskip("hmmlearn", reason="hmmlearn is what this is compared with")
    n, is_viterbi = size(n), name == "Viterbi"
    model, X = reference.problem(n, K)
    emissions = kernels.gaussian_log_density(X, model.emissions["means"], model.emissions["covars"], "diag")
    if not is_viterbi:
        emissions = np.exp(emissions)
    ours, theirs = (Side(lambda call=call: call(emissions, model), answer) for call, answer in RECURSIONS[name])
    target = targets[is_viterbi]
    title = f"{name}, {shape(n)}, K = {K}"
    found = versus(
        f"HMM, recursion alone: {title}",
        ours,
        {"hmmlearn" if is_viterbi else "hmmlearn (scaling)": theirs},
        rtol=1e-10 if is_viterbi else 1e-8,
        atol=0.0 if is_viterbi else 1e-8,
        threads=1,
        n_flops=0 if is_viterbi else 2 * 3 * K**2 * n,
        targets=None if quick else {("hmmlearn" if is_viterbi else "hmmlearn (scaling)",): target},
        n=n,
        K=K,
    )
    if found:
        (ratio,) = found["ratio"].values()
        cells = [f"{1e6 * ms / n:.4g}" for ms in found["ms"].values()]
        bound = (
            [f"{1e6 * found['bound_ms'] / n:.4g}", f"{1 / found['times_bound']:.2f}"] if "bound" in found else ["", ""]
        )
        table(
            "Hidden Markov models: recursions with emissions given, one thread, nanoseconds per step",
            ["", "fastgen", "hmmlearn's C++", "ratio", "target", "3 K^2 multiply-adds", "fraction of peak"],
            [title, *cells, f"{ratio:.1f}", target, *bound],
        )


# ---- Memory

MEASURE_SCORE = (
    MEASURE.partition("warnings.simplefilter")[0]
    + r"""
options = json.loads(sys.argv[1])
sys.path.insert(0, options["benchmarks"])
import hmm_reference
from bench_hmm import estimator
from fastgen import hmm

model, X = hmm_reference.problem(options["n"], options["K"])
made = estimator(hmm, model)
tracemalloc.start()
with Resident() as most:
    found = made.score(X)
traced = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
expected = hmm_reference.score(X, None, model, 1)
json.dump({"resident": most.bytes / 2**20, "traced": traced / 2**20, "score": found, "expected": expected}, sys.stdout)
"""
)


@linux
def test_memory(table, size, quick):
    n, K = size(10 * MILLION), 8
    options = {"n": n, "K": K, "benchmarks": str(Path(__file__).parent)}
    command = [sys.executable, "-c", MEASURE_SCORE, json.dumps(options)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    np.testing.assert_allclose(found["score"], found["expected"], rtol=1e-9)
    for key, what in (("resident", "resident"), ("traced", "traced (tracemalloc)")):
        row = [f"score, {shape(n)} steps, K = {K}, d = 4: {what}", f"{found[key]:.2f}", "< 16"]
        table("Hidden Markov models: memory beyond the data, MiB", ["", "fastgen", "target"], row)
        assert found[key] < 16
