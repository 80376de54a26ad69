"""The restricted Boltzmann machine, against enumeration, finite differences and scikit-learn.

Statistical tests have fixed seeds; LEVEL is how often each would fail for another seed though all is right.
"""

import copy
import pickle

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logsumexp
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastgen._kernels.jit import sampling as kernels
from fastgen.graphical.boltzmann import RestrictedBoltzmannMachine, _Units

LEVEL = 1e-4
Z = stats.norm.isf(LEVEL / 2)


def all_states(n):
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)


def machine(d, m, seed=0, scale=1.0):
    """With random parameters."""
    rng = np.random.default_rng(seed)
    rbm = RestrictedBoltzmannMachine(m, n_iter=1, batch_size=2, random_state=0).fit(rng.integers(0, 2, (4, d)))
    rbm.components_ = rng.normal(0, scale, (m, d))
    rbm.intercept_hidden_, rbm.intercept_visible_ = rng.normal(0, scale, m), rng.normal(0, scale, d)
    return rbm


def energy(rbm, v, h):
    return -(v @ rbm.intercept_visible_ + h @ rbm.intercept_hidden_ + ((h @ rbm.components_) * v).sum(-1))


def brute_log_prob(rbm):
    """log p(v) of all states, and log Z, by the sum over both layers."""
    m, d = rbm.components_.shape
    table = -energy(rbm, all_states(d)[:, None], all_states(m)[None])
    log_z = logsumexp(table)
    return logsumexp(table, axis=1) - log_z, log_z


@pytest.fixture(scope="module")
def digits():
    return (load_digits().data > 7.5).astype(float)


@parametrize_with_checks([RestrictedBoltzmannMachine(n_components=4, n_iter=2, binarize=0.5)])
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("shape", [(5, 3), (3, 6), (1, 1)])
def test_probabilities_against_both_layers(shape):
    rbm = machine(*shape)
    V = all_states(shape[0])
    expected, log_z = brute_log_prob(rbm)
    np.testing.assert_allclose(rbm.log_prob(V), expected, rtol=1e-12)
    found, error = rbm.log_partition()
    np.testing.assert_allclose(found, log_z, rtol=1e-13)
    assert error == 0
    np.testing.assert_allclose(rbm.free_energy(V), -expected - log_z, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(rbm.transform(V), expit(V @ rbm.components_.T + rbm.intercept_hidden_), rtol=1e-14)
    conditional = np.zeros(len(V))
    for i in range(shape[0]):
        flipped = np.arange(len(V)) ^ (1 << i)
        conditional += expected - np.logaddexp(expected, expected[flipped])
    np.testing.assert_allclose(rbm.score_samples(V), conditional, rtol=1e-10)


def test_extreme_parameters():
    """Inputs of the units far beyond the range of exp, and many units."""
    rbm = machine(6, 3, scale=2000.0)
    expected, log_z = brute_log_prob(rbm)
    np.testing.assert_allclose(rbm.log_prob(all_states(6)), expected, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(rbm.log_partition()[0], log_z, rtol=1e-14)
    assert np.isfinite(rbm.score_samples(all_states(6))).all()
    wide = machine(3, 500)
    a = all_states(3) @ wide.components_.T + wide.intercept_hidden_
    F = -all_states(3) @ wide.intercept_visible_ - np.logaddexp(0, a).sum(1)
    np.testing.assert_allclose(wide.free_energy(all_states(3)), F, rtol=1e-13)
    np.testing.assert_allclose(wide.log_prob(all_states(3)), -F - logsumexp(-F), rtol=1e-11)


def test_exponential():
    x = np.concatenate([np.linspace(-707.9, 707.9, 640), [0.0, -0.0, 1e-300, -1e-17, 0.34657359, -0.34657359]])
    x = np.concatenate([x, np.zeros(-len(x) % kernels.TILE)])
    y, power = np.empty(kernels.TILE), np.empty(kernels.TILE, np.int64)
    for tile in x.reshape(-1, kernels.TILE):
        kernels.exp_tile(tile, y, power)
        np.testing.assert_allclose(y, np.exp(tile), rtol=4e-16 + 1e-16)
    kernels.exp_tile(np.full(kernels.TILE, -1e6), y, power)
    assert (y < 1e-300).all()


@pytest.mark.parametrize("n", [1, 63, 64, 200_001])
def test_draws_have_their_probabilities(n):
    a = np.linspace(-4, 4, n)
    p, drawn = a.copy(), np.empty(n)
    _Units(np.random.default_rng(1)).sigmoid(p, drawn)
    np.testing.assert_allclose(p, expit(a), rtol=1e-15)
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    for part in np.array_split(np.arange(n), 8) if n > 1000 else []:  # 8 comparisons
        error = np.sqrt((p[part] * (1 - p[part])).sum())
        assert abs((drawn[part] - p[part]).sum()) < stats.norm.isf(LEVEL / 16) * error


def one_gradient(rbm, V, method="pcd", **kwargs):
    """What a step of `partial_fit` adds to the parameters, divided by the learning rate."""
    copied = copy.deepcopy(rbm).set_params(method=method, learning_rate=1e-3, **kwargs)
    copied.partial_fit(V)
    names = "components_", "intercept_hidden_", "intercept_visible_"
    return [(getattr(copied, name) - getattr(rbm, name)) / 1e-3 for name in names]


def finite_differences(rbm, function):
    found = []
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        values = getattr(rbm, name)
        gradient = np.empty_like(values)
        for place in np.ndindex(values.shape):
            sides = []
            for sign in (1, -1):
                moved = copy.deepcopy(rbm)
                getattr(moved, name)[place] += sign * 1e-5
                sides.append(function(moved))
            gradient[place] = (sides[0] - sides[1]) / 2e-5
        found.append(gradient)
    return found


def test_gradient_against_finite_differences():
    """The step is the gradient of the log-likelihood if the chains are of the model: many chains, drawn exactly.

    62 components, so each is compared at LEVEL / 62.
    """
    rbm = machine(5, 3, seed=2, scale=0.7)
    rng = np.random.default_rng(3)
    data = rng.integers(0, 2, (7, 5)).astype(float)
    states = all_states(5)
    p = np.exp(rbm.log_prob(states))
    n = 400_000
    v = states[rng.choice(32, n, p=p / p.sum())]
    rbm.h_samples_ = (rng.random((n, 3)) < rbm.transform(v)).astype(float)
    found = one_gradient(rbm, data, k=1)
    exact = finite_differences(rbm, lambda moved: moved.log_prob(data).mean())
    limit = stats.norm.isf(LEVEL / 62 / 2) * 0.5 / np.sqrt(n)  # of means of numbers in [0, 1]
    for mine, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=limit + 1e-8)


def test_weight_decay_and_momentum():
    rbm = machine(4, 3, seed=4)
    V = np.random.default_rng(5).integers(0, 2, (6, 4))
    plain, decayed = (one_gradient(rbm, V, l2=l2, random_state=6)[0] for l2 in (0.0, 0.5))
    np.testing.assert_allclose(decayed - plain, -0.5 * rbm.components_, rtol=1e-9, atol=1e-9)
    moving = copy.deepcopy(rbm).set_params(momentum=0.9, learning_rate=0.1, random_state=7)
    moving._velocity = tuple(np.full_like(part, 2.0) for part in moving._velocity)
    still = copy.deepcopy(rbm).set_params(learning_rate=0.1, random_state=7)
    moving.partial_fit(V)
    still.partial_fit(V)
    np.testing.assert_allclose(moving.components_ - still.components_, 1.8, rtol=1e-12)


def test_contrastive_divergence_starts_at_the_data():
    """With a strong diagonal the chains stay where they start: the gradient of CD vanishes at any data."""
    rbm = machine(4, 4)
    rbm.components_, rbm.intercept_hidden_ = 200 * np.eye(4), np.full(4, -100.0)
    rbm.intercept_visible_ = np.full(4, -100.0)
    V = np.random.default_rng(8).integers(0, 2, (5, 4)).astype(float)
    for gradient in one_gradient(rbm, V, "cd", k=3):
        np.testing.assert_allclose(gradient, 0, atol=1e-9)
    assert np.abs(one_gradient(rbm, V, "pcd")[2]).max() > 0.1


def test_annealed_importance_sampling():
    """Within its error of enumeration, for three machines; the error is about that of repetitions."""
    for seed, shape in enumerate([(8, 4), (5, 9), (30, 10)]):
        rbm = machine(*shape, seed=seed, scale=0.7)
        exact, _ = rbm.log_partition()
        found, error = rbm.log_partition("ais", n_runs=400, n_betas=300, random_state=9)
        assert 0 < error < 0.2
        assert abs(found - exact) < Z * error
    repeated = [rbm.log_partition("ais", n_runs=100, n_betas=100, random_state=seed) for seed in range(40)]
    spread = np.std([value for value, _ in repeated], ddof=1)
    assert 0.6 < spread / np.mean([error for _, error in repeated]) < 1.6
    V = np.random.default_rng(0).integers(0, 2, (3, 30))
    np.testing.assert_allclose(
        rbm.log_prob(V, "ais", n_runs=400, n_betas=300, random_state=9), rbm.log_prob(V) + exact - found, rtol=1e-12
    )


def test_samples_are_of_the_model():
    rbm = machine(6, 4, seed=10, scale=0.8)
    p = np.exp(rbm.log_prob(all_states(6)))
    codes = rbm.sample(20_000, 60, random_state=11) @ (1 << np.arange(6))
    assert stats.chisquare(np.bincount(codes.astype(int), minlength=64), p * 20_000).pvalue > LEVEL
    rng = np.random.default_rng(12)  # what is of the model stays so
    v = rbm.gibbs(all_states(6)[rng.choice(64, 20_000, p=p / p.sum())], random_state=13)
    codes = v @ (1 << np.arange(6))
    assert stats.chisquare(np.bincount(codes.astype(int), minlength=64), p * 20_000).pvalue > LEVEL


def test_draws_are_those_of_the_estimators_random_state():
    rbm = machine(6, 4, seed=10)
    rbm.random_state = 3
    first = rbm.sample(5, 40)
    np.testing.assert_array_equal(first, rbm.sample(5, 40))
    np.testing.assert_array_equal(first, rbm.sample(5, 40, random_state=3))
    assert (first != rbm.sample(5, 40, random_state=4)).any()
    np.testing.assert_array_equal(rbm.gibbs(first), rbm.gibbs(first, random_state=3))
    options = {"n_runs": 20, "n_betas": 30}
    assert rbm.log_partition("ais", **options) == rbm.log_partition("ais", **options, random_state=3)
    assert rbm.log_partition("ais", **options) != rbm.log_partition("ais", **options, random_state=4)
    np.testing.assert_array_equal(
        rbm.log_prob(first, "ais", **options), rbm.log_prob(first, "ais", **options, random_state=3)
    )
    rbm.random_state = np.random.default_rng(0)  # a generator goes on
    assert (rbm.sample(5, 40) != rbm.sample(5, 40)).any()


def test_learns_a_distribution():
    """Three patterns with noise: close to the entropy of the data, which is the best that there is."""
    rng = np.random.default_rng(14)
    patterns = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
    states = all_states(6)
    noise = np.array([np.prod(np.where(states == row, 0.95, 0.05), axis=1) for row in patterns])
    p = np.array([0.5, 0.3, 0.2]) @ noise
    X = states[rng.choice(64, 4000, p=p)]
    entropy = -(p * np.log(p)).sum()
    for method in ("pcd", "cd"):
        rbm = RestrictedBoltzmannMachine(8, n_iter=60, batch_size=50, learning_rate=0.3, method=method, random_state=0)
        divergence = -(p @ rbm.fit(X).log_prob(states)) - entropy
        assert 0 <= divergence < (0.05 if method == "pcd" else 0.2)


def test_digits(digits):
    """Held-out digits are likelier than under independent pixels, and samples are as plausible as data."""
    train, held_out = digits[:1400], digits[1400:]
    rbm = RestrictedBoltzmannMachine(64, n_iter=40, learning_rate=0.2, random_state=0).fit(train)
    share = (train.sum(0) + 0.5) / (len(train) + 1)
    independent = (held_out * np.log(share) + (1 - held_out) * np.log(1 - share)).sum(1).mean()
    log_z, error = rbm.log_partition("ais", random_state=1)
    log_prob = -rbm.free_energy(held_out).mean() - log_z
    assert error < 0.3
    assert log_prob > independent + 4
    generated = rbm.free_energy(rbm.sample(300, 1000, random_state=2))
    noise = rbm.free_energy(np.random.default_rng(3).random((300, 64)) < share)
    data = rbm.free_energy(digits)
    assert abs(np.median(generated) - np.median(data)) < 0.25 * (np.median(noise) - np.median(data))


def test_as_good_as_scikit_learn(digits):
    """The same number of passes: a higher likelihood, exactly; and the pseudo-likelihood that it estimates."""
    theirs = BernoulliRBM(16, learning_rate=0.1, n_iter=10, random_state=0).fit(digits)
    ours = RestrictedBoltzmannMachine(16, learning_rate=0.1, n_iter=10, random_state=0).fit(digits)
    copied = copy.deepcopy(ours)
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        setattr(copied, name, getattr(theirs, name))
    np.testing.assert_allclose(copied.transform(digits), theirs.transform(digits), rtol=1e-10)
    np.testing.assert_allclose(copied.free_energy(digits), theirs._free_energy(digits), rtol=1e-10)
    assert ours.log_prob(digits).mean() > copied.log_prob(digits).mean() + 1
    theirs.random_state = np.random.RandomState(1)  # as an int, it chooses the same features each time
    one_at_a_time = np.mean([theirs.score_samples(digits).mean() for _ in range(100)])
    np.testing.assert_allclose(one_at_a_time, copied.score_samples(digits).mean(), rtol=0.02)


def test_seeds_and_copies(digits):
    X = digits[:100]
    rbm = RestrictedBoltzmannMachine(8, n_iter=2, random_state=3)
    first = rbm.fit(X).components_
    np.testing.assert_array_equal(clone(rbm).fit(X).components_, first)
    assert (clone(rbm).set_params(random_state=4).fit(X).components_ != first).any()
    for one, other in ((rbm.sample(3, 5, 1), rbm.sample(3, 5, 1)), (rbm.gibbs(X, 2), rbm.gibbs(X, 2))):
        np.testing.assert_array_equal(one, other)
    loaded = pickle.loads(pickle.dumps(rbm))
    np.testing.assert_array_equal(loaded.transform(X), rbm.transform(X))
    before = X.copy()
    X.flags.writeable = False
    rbm.fit(X).partial_fit(X).gibbs(X)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_allclose(rbm.transform(np.asfortranarray(X)), rbm.transform(X), rtol=1e-13)
    assert rbm.transform(X.astype(np.float32)).dtype == np.float32
    pipeline = make_pipeline(MinMaxScaler(), RestrictedBoltzmannMachine(4, n_iter=1)).fit(X)
    assert pipeline.transform(X).shape == (100, 4)
    assert list(pipeline.get_feature_names_out())[:1] == ["restrictedboltzmannmachine0"]


def test_partial_fit_learns(digits):
    rbm = RestrictedBoltzmannMachine(16, learning_rate=0.5, random_state=0)
    rbm.partial_fit(digits[:50])
    start = rbm.score_samples(digits).mean()
    for _ in range(6):
        for begin in range(0, 1797, 50):
            rbm.partial_fit(digits[begin : begin + 50])
    assert rbm.score_samples(digits).mean() > start + 2
    fitted = RestrictedBoltzmannMachine(16, n_iter=1, random_state=0).fit(digits)
    fitted.partial_fit(digits[:50])  # goes on from a fit


def test_failures_leave_no_trace(digits):
    rbm = RestrictedBoltzmannMachine(4, n_iter=1, random_state=0).fit(digits[:50])
    before = rbm.components_.copy()
    for method in (rbm.fit, rbm.partial_fit):
        for bad in (np.full((3, 64), 2.0), np.full((3, 64), np.nan), -digits[:4]):
            with pytest.raises(ValueError, match=r"\[0, 1\]|NaN"):
                method(bad)
    with pytest.raises(ValueError, match="lower learning_rate"), np.errstate(all="ignore"):
        rbm.set_params(learning_rate=1e10, l2=1e10, n_iter=20).fit(digits[:100])
    np.testing.assert_array_equal(rbm.components_, before)
    with pytest.raises(ValueError, match="features"):
        rbm.partial_fit(digits[:5, :10])


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"n_components": 0}, "n_components"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": np.inf}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"n_iter": 0}, "n_iter"),
        ({"k": 0}, "k must be"),
        ({"method": "exact"}, "method must be one of"),
        ({"schedule": "cosine"}, "schedule must be one of"),
        ({"momentum": 1.0}, "momentum below 1"),
        ({"l2": -1.0}, "l2"),
        ({"binarize": "yes"}, "binarize"),
        ({"binarize": np.nan}, "binarize"),
    ],
)
def test_refuses(kwargs, match):
    with pytest.raises(ValueError, match=match):
        RestrictedBoltzmannMachine(**{"n_components": 2, "n_iter": 1, **kwargs}).fit(np.eye(4))


def test_refuses_what_is_too_large_or_grey():
    rbm = machine(21, 22)
    with pytest.raises(ValueError, match="use method='ais'"):
        rbm.log_prob(np.zeros((1, 21)))
    for method in (rbm.log_prob, rbm.score_samples):
        with pytest.raises(ValueError, match=r"binary data, got 0.5 at row 0, column 0"):
            method(np.full((1, 21), 0.5))
    with pytest.raises(ValueError, match="method must be one of"):
        rbm.log_prob(np.zeros((1, 21)), "guess")
    with pytest.raises(ValueError, match="infinity"):
        rbm.transform(np.full((1, 21), np.inf))
    with pytest.raises(ValueError, match="n_samples"):
        rbm.sample(0)
    with pytest.raises(ValueError, match="n_runs"):
        rbm.log_partition("ais", n_runs=1)
