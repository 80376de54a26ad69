"""Every instruction-set variant: FMA ones agree bit for bit, the baseline to rounding, a wrong choice fails loudly."""

import pickle
from functools import cache

import numpy as np
import pytest
from conftest import run_python

from fastgen import _kernels
from fastgen._kernels._cpu import isa_level

NEEDS = {"baseline": 0, "v3": 3, "v4": 4}

# Prints, as a pickle, {name: array} of everything that a kernel computes.
PROGRAM = """
import pickle, sys, warnings
import numpy as np
from fastgen import _kernels, _naive_bayes as nb, kernels, num_threads
from fastgen._hmm_em import HiddenMarkov, Sequences
from fastgen._kernels import _simd
from fastgen._mixture_em import Mixture
from fastgen.families import Gaussian
from fastgen.graphical._message_passing import _Pairs as Pairs

rng = np.random.default_rng(5)
results = {"isa": _kernels.isa}
x = np.r_[rng.uniform(-720, 715, 5003), rng.uniform(-1, 1, 5003), [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -708.0]]
for name, kernel in (("exp", _simd.exp), ("log", _simd.log)):
    results[name] = np.empty(len(x))
    kernel(np.abs(x) if name == "log" else x, results[name])
for K in (1, 2, 9, 40):
    a = rng.normal(scale=20, size=(77, K))
    a[3] = -np.inf
    results[f"logsumexp {K}"], results[f"softmax {K}"] = kernels.logsumexp(a), kernels.softmax(a)
for d in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 40):
    for K in (1, 3):
        means = rng.normal(size=(K, d))
        A = rng.normal(size=(K, d, d + 2))
        full = A @ A.transpose(0, 2, 1)
        sizes = {"full": full, "tied": full[0], "diag": full.diagonal(axis1=1, axis2=2), "spherical": full[:, 0, 0]}
        for kind, covariances in sizes.items():
            for n in (1, 33, 200):
                for missing in (0.0, 0.2):
                    for dtype in (np.float64, np.float32):
                        X = rng.normal(size=(n, d)).astype(dtype)
                        X[rng.random(X.shape) < missing] = np.nan
                        # Products of whole matrices are NumPy's, which asks the processor, not FASTGEN_ISA.
                        key = f"density {kind} d={d} K={K} n={n} missing={missing} {dtype.__name__}"
                        results[key] = kernels.gaussian_log_density(X, means, covariances, kind)
        factor = kernels.precision_cholesky(full)
        results[f"factor d={d} K={K}"] = factor
    for kind in ("full", "diag"):
        for dtype in (np.float64, np.float32):
            for n in (1, 63, 64, 65, 3000):
                X = (1e3 + rng.normal(size=(n, d))).astype(dtype)
                for weights in (None, rng.uniform(size=n)):
                    s = Gaussian(kind).statistics(X, weights)
                    key = f"moments {kind} d={d} n={n} {weights is None} {dtype.__name__}"
                    results[key] = np.r_[s.weight, s.mean.ravel(), s.scatter.ravel()]
    for kind, covariances in sizes.items():  # of K = 3
        if kind == "tied" and d > 1:
            continue  # whitened means are a product of matrices, which is NumPy's
        for missing in (0.0, 0.2):
            X = rng.normal(size=(300, d))
            X[rng.random(X.shape) < missing] = np.nan
            key = f"e-step {kind} d={d} missing={missing}"
            s = kernels.mixture_e_step(X, [0.2, 0.3, 0.5], means, covariances, kind)
            results[key] = np.r_[s.log_likelihood, s.components.weight, s.components.mean.ravel()]
            results[key + " scatter"] = s.components.scatter
            mixture = Mixture(np.array([0.2, 0.3, 0.5]), Gaussian(kind, means=means, covariances=covariances))
            results[key + " scores"] = np.c_[mixture.log_prob(X), mixture.posterior(X)]
    X = rng.normal(size=(500, d))
    X[rng.random(X.shape) < 0.1] = np.nan
    for kind in ("full", "diag", "spherical"):
        start = Gaussian(kind).statistics(X)
        fitted = Gaussian(kind).maximise(start)
        results[f"fit {kind} d={d}"] = np.r_[fitted.means.ravel(), fitted.covariances.ravel()]
for K in (1, 2, 3, 4, 5, 8, 9, 16):
    A = rng.dirichlet(np.ones(K), K)
    chains = {"": A, " with zeros": np.where(abs(np.subtract.outer(range(K), range(K))) > 1, 0.0, A)}
    chains[" with tiny entries"] = np.where(np.eye(K), 1.0, 1e-200)
    logs = rng.normal(scale=3, size=(6000, K))
    means, variances, X = rng.normal(size=(K, 3)), rng.uniform(1, 2, (K, 3)), rng.normal(size=(6000, 3))
    for name, A in chains.items():
        start, A = np.full(K, 1 / K), A / A.sum(axis=1, keepdims=True)
        for lengths in ([6000], [60] * 100):
            key = f"hmm K={K} {len(lengths)} sequences{name}"
            s = kernels.expected_transitions(logs, start, A, lengths)
            results[key] = np.c_[s.posteriors, np.repeat(s.log_likelihoods, lengths)]
            results[key + " transitions"] = np.r_[s.transitions, [s.start]]
            results[key + " score"] = kernels.log_likelihood(logs, start, A, lengths)
            results[key + " path"] = np.r_[tuple(kernels.viterbi(logs, start, A, lengths))]
            s = HiddenMarkov(start, A, Gaussian("diag", means=means, covariances=variances)).e_step(
                Sequences(X, lengths)
            )
            results["e-step " + key] = np.r_[s.components.mean, s.components.scatter]
for n, d, C in ((100, 5, 3), (33, 70, 10), (3000, 2, 24)):
    X, counts, codes = rng.normal(size=(n, d)), rng.poisson(2, size=(n, d)), rng.integers(0, C, n)
    means, variances = rng.normal(size=(C, d)), rng.uniform(1, 2, (C, d))
    tables = tuple(rng.normal(size=(counts.max() + 1, C)) for _ in range(d))
    for data, term in (
        (X, nb.GaussianTerm(None, means, variances)),
        (X, nb.BinaryTerm(None, means, -variances, 0.3)),
        (counts, nb.PoissonTerm(None, variances)),
        (counts, nb.TableTerm(None, tables, None)),
    ):
        for what in ("joint", "predict", "proba", "log_prob"):
            key = f"naive Bayes {type(term).__name__} n={n} d={d} C={C} {what}"
            results[key] = nb.score(data, [term], np.zeros(C), what)
    results[f"e-step naive Bayes n={n} d={d} C={C}"] = np.concatenate(nb.class_moments(X, codes, None, C)[1:])
for K in (*range(1, 10), 16, 17):
    unary, edges = rng.random((120, K)), np.stack([rng.permutation(120) for _ in range(4)]).reshape(-1, 2)
    for number in (1, len(edges)):
        pairs = Pairs(unary, edges, rng.random((number, K, K)), np.arange(len(edges)) % number)
        for maximum in (False, True):
            key = f"belief propagation K={K} {number} tables maximum={maximum}"
            results[key] = np.concatenate([pairs.run(maximum, damping, 7, 0.0, 1)[0] for damping in (0.0, 0.3)])
sys.stdout.write(pickle.dumps(results).hex())
"""


@cache
def results_of(isa):
    if isa_level() < NEEDS[isa]:
        pytest.skip(f"this processor has no {isa}: level {isa_level()}")
    done = run_python(PROGRAM, check=False, FASTGEN_ISA=isa)
    if "cannot run here: this build" in done.stderr:
        pytest.skip(f"{isa} was not built")
    assert done.returncode == 0, done.stderr
    return pickle.loads(bytes.fromhex(done.stdout))


@pytest.mark.parametrize("isa", NEEDS)
def test_the_variant_that_was_asked_for_runs(isa):
    assert results_of(isa)["isa"] == isa


def test_v3_and_v4_agree_bit_for_bit():
    v3, v4 = results_of("v3"), results_of("v4")
    assert v3.keys() == v4.keys()
    assert len(v3) > 900
    different = [k for k in v3 if k != "isa" and not np.array_equal(v3[k], v4[k], equal_nan=True)]
    assert different == []


@pytest.mark.parametrize("isa", ["v3", "v4"])
def test_baseline_agrees_to_rounding(isa):
    fast, baseline = results_of(isa), results_of("baseline")
    for key in baseline:
        if key != "isa":
            tolerance = 1e-6 if key.endswith("float32") and key.startswith("density") else 1e-12
            # Off-diagonal scatter may cancel to any extent: relative to the largest element.
            scale = np.nanmax(np.abs(baseline[key]), initial=0, where=np.isfinite(baseline[key]))
            atol = tolerance * scale if key.startswith(("moments", "fit", "factor", "e-step")) else 0
            np.testing.assert_allclose(fast[key], baseline[key], rtol=tolerance, atol=atol, err_msg=key)


@pytest.mark.parametrize("isa", ["v5", "V3", "avx2", "v3 "])
def test_an_unknown_variant_fails_loudly(python, isa):
    done = python("import fastgen", check=False, FASTGEN_ISA=isa)
    assert done.returncode != 0
    assert f"ImportError: FASTGEN_ISA={isa!r} cannot run here" in done.stderr
    assert "baseline" in done.stderr  # what it offers instead


def test_a_variant_that_the_processor_lacks_fails_loudly(python):
    code = """
import importlib.abc, importlib.util, sys
class Old(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "fastgen._kernels._cpu":
            return None
        return importlib.util.spec_from_loader(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        module.isa_level = lambda: 1
sys.meta_path.insert(0, Old())
import fastgen
print(fastgen._kernels.isa)
"""
    assert python(code, FASTGEN_ISA=None).stdout.strip() == "baseline"
    done = python(code, check=False, FASTGEN_ISA="v4")
    assert done.returncode != 0
    assert "ImportError: FASTGEN_ISA='v4' cannot run here: this build on this processor offers baseline" in done.stderr


def test_an_empty_choice_is_no_choice(python):
    assert python("import fastgen; print(fastgen._kernels.isa)", FASTGEN_ISA="").stdout.strip() in NEEDS


def test_kernels_go_by_their_plain_names(python):
    import sys

    for name in ("_simd", "_gaussian", "_mixture", "_hmm", "_naive_bayes"):
        assert sys.modules[f"fastgen._kernels.{name}"] is getattr(_kernels, name)
    for function in (_kernels._simd.exp, _kernels._gaussian.log_density_f64):
        pickled = pickle.dumps(function)
        for isa in NEEDS:
            assert f"_{isa}".encode() not in pickled
        assert pickle.loads(pickled) is function
        # Unpickled in a process that never imported the package, and that takes another variant.
        code = f"import pickle; f = pickle.loads(bytes.fromhex({pickled.hex()!r})); print(f.__name__, f.__module__)"
        name, module = python(code, FASTGEN_ISA="baseline").stdout.split()
        assert name == function.__name__
        assert not any(f"_{isa}" in module for isa in NEEDS)
