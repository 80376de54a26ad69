"""Bayesian networks: fit, missing cells, queries, names; against sums over all states."""

import itertools
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import chi2
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator
from test_graphical_rows import random_network

from fastgen import num_threads
from fastgen.graphical import (
    BayesianNetwork,
    BayesianNetworkClassifier,
    DiscreteNetwork,
    EngineLimitError,
    NetworkError,
)

SPRINKLER = {
    "states": {"cloudy": ["no", "yes"], "sprinkler": ["off", "on"], "rain": ["no", "yes"], "wet": ["no", "yes"]},
    "tables": {
        "cloudy": [0.5, 0.5],
        "sprinkler": [[0.5, 0.5], [0.9, 0.1]],
        "rain": [[0.8, 0.2], [0.2, 0.8]],
        "wet": [[[1.0, 0.0], [0.1, 0.9]], [[0.1, 0.9], [0.01, 0.99]]],
    },
    "parents": {"sprinkler": ["cloudy"], "rain": ["cloudy"], "wet": ["sprinkler", "rain"]},
}


@pytest.fixture
def sprinkler():
    return BayesianNetwork.from_tables(**SPRINKLER)


def joint(network):
    """p(x) of all x, as one table, by multiplication."""
    V = len(network.names)
    table = np.ones(network.cardinalities)
    for i, (parents, own) in enumerate(zip(network.parents, network.tables, strict=True)):
        axes = [*parents, i]
        order = np.argsort(axes)
        shape = [network.cardinalities[j] if j in axes else 1 for j in range(V)]
        table = table * np.transpose(own, order).reshape(shape)
    return table


def posterior(table, row):
    """Distribution of each variable given the states of a row (-1: missing), and P(row)."""
    part = table.copy()
    for i, state in enumerate(row):
        if state >= 0:
            keep = np.zeros(table.shape[i])
            keep[state] = 1
            part = part * keep.reshape([-1 if j == i else 1 for j in range(table.ndim)])
    total = part.sum()
    marginals = [part.sum(axis=tuple(j for j in range(table.ndim) if j != i)) / total for i in range(table.ndim)]
    return marginals, total


def holes(X, rng, share):
    X = X.astype(np.int64)
    X[rng.random(X.shape) < share] = -1
    return X


# ---- queries ---------------------------------------------------------------------------------------------------------


def test_murphys_sprinkler(sprinkler):
    """K. Murphy, A brief introduction to graphical models and Bayesian networks (1998): 0.4298, 0.7079, 0.6471."""
    wet = {"wet": "yes"}
    assert sprinkler.query("sprinkler", wet).probabilities[1] == pytest.approx(0.42976, abs=1e-5)
    result = sprinkler.query("rain", wet)
    assert result.probabilities[1] == pytest.approx(0.70793, abs=1e-5)
    assert np.exp(result.log_evidence) == pytest.approx(0.6471, abs=1e-12)
    assert result.exact
    assert result.states == (("no", "yes"),)


def test_joint_queries(sprinkler, rng):
    table = joint(sprinkler.network_)
    names = list(sprinkler.categories_)
    for size in (1, 2, 3, 4):
        for targets in itertools.permutations(range(4), size):
            row = np.where(rng.random(4) < 0.3, rng.integers(0, 2, 4), -1)
            if tuple(row[1:]) == (0, 0, 1):  # cannot be
                continue
            _, total = posterior(table, row)
            evidence = {names[i]: sprinkler.categories_[names[i]][s] for i, s in enumerate(row) if s >= 0}
            found = sprinkler.query([names[i] for i in targets], evidence)
            part = table.copy()
            for i, s in enumerate(row):
                if s >= 0:
                    part = part * np.eye(2)[s].reshape([-1 if j == i else 1 for j in range(4)])
            rest = tuple(j for j in range(4) if j not in targets)
            expected = np.transpose(part.sum(axis=rest), np.argsort(np.argsort(targets))) / total
            np.testing.assert_allclose(found.probabilities, expected, atol=1e-14)
            assert found.log_evidence == pytest.approx(np.log(total), abs=1e-13)


def test_impossible_evidence_is_explained(sprinkler):
    evidence = {"cloudy": "yes", "sprinkler": "off", "rain": "no", "wet": "yes"}
    cause = "the evidence has probability 0: 'sprinkler' = 'off' and 'rain' = 'no' and 'wet' = 'yes' cannot occur"
    with pytest.raises(ValueError, match=cause):
        sprinkler.query("cloudy", {name: evidence[name] for name in ("sprinkler", "rain", "wet")})
    for call in (
        lambda: sprinkler.query("cloudy", evidence),
        lambda: sprinkler.sample(3, 0, evidence=evidence),
        lambda: sprinkler.mpe(evidence),
        lambda: sprinkler.query(["wet", "rain"], evidence),
    ):
        with pytest.raises(ValueError, match=cause):
            call()
    X = [["yes", "off", "no", "yes"], ["yes", "off", None, "yes"]]
    assert sprinkler.log_prob(X)[0] == -np.inf
    proba = sprinkler.predict_proba([["yes", "off", "no", "yes"]], targets=["rain"])["rain"]
    assert np.isnan(proba).all()
    assert sprinkler.impute(X)[1].tolist() == ["yes", "off", "yes", "yes"]
    assert sprinkler.predict([[None, "off", "no", "yes"]])[0].tolist() == [None, "off", "no", "yes"]


@pytest.mark.parametrize("seed", range(12))
def test_posteriors_are_sums_over_all_states(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, int(rng.integers(1, 7)))
    model = BayesianNetwork.from_network(network)
    table = joint(network)
    X = holes(model.sample(40, rng, codes=True), rng, 0.5)
    inference = model.infer(X)
    assert inference.exact
    assert inference.method == "exact"
    log_prob = model.log_prob(X)
    filled, best = model.predict(X, targets=network.names), model.mpe(X)
    for r, row in enumerate(X):
        marginals, total = posterior(table, row)
        assert log_prob[r] == pytest.approx(np.log(total), abs=1e-12)
        for i, expected in enumerate(marginals):
            np.testing.assert_allclose(inference.marginals[f"n{i}"][r], expected, atol=1e-13)
            state = int(filled[r, i][1:])
            assert expected[state] >= expected.max() - 1e-12
        states = tuple(int(value[1:]) for value in best[r])
        allowed = [[s] if s >= 0 else range(k) for s, k in zip(row, table.shape, strict=True)]
        assert table[states] == pytest.approx(max(table[x] for x in itertools.product(*allowed)), rel=1e-12)


def test_soft_evidence(sprinkler):
    table = joint(sprinkler.network_)
    likelihood = np.array([0.2, 0.9])
    weighted = table * likelihood.reshape(1, 1, -1, 1)
    found = sprinkler.query("cloudy", {"wet": "yes"}, soft={"rain": likelihood})
    expected = weighted[..., 1].sum(axis=(1, 2))
    np.testing.assert_allclose(found.probabilities, expected / expected.sum(), atol=1e-14)
    assert found.log_evidence == pytest.approx(np.log(expected.sum()), abs=1e-14)


def test_soft_evidence_in_joint_queries(sprinkler):
    """Also of the targets themselves, and where one of these is known."""
    table = joint(sprinkler.network_) * np.array([0.2, 0.9])[:, None, None, None] * np.array([0.7, 0.1])[:, None]
    soft = {"cloudy": [0.2, 0.9], "rain": [[0.7, 0.1]]}
    for evidence in ({}, {"rain": "yes"}, {"cloudy": "no", "wet": "yes"}, {"rain": "no", "cloudy": "yes"}):
        part = table.copy()
        for i, name in enumerate(SPRINKLER["states"]):
            if name in evidence:
                part = part * np.eye(2)[sprinkler.categories_[name].index(evidence[name])].reshape(
                    [-1 if j == i else 1 for j in range(4)]
                )
        found = sprinkler.query(["rain", "cloudy", "wet"], evidence, soft=soft)
        np.testing.assert_allclose(
            found.probabilities, part.sum(axis=1).transpose(1, 0, 2) / part.sum(), rtol=1e-12, atol=1e-14
        )
        assert found.log_evidence == pytest.approx(np.log(part.sum()), abs=1e-13)


def test_impossible_soft_evidence_is_explained():
    """a = x has probability 1/2; what cannot be is the soft evidence with it."""
    model = BayesianNetwork.from_tables(
        {"a": ["x", "y"], "b": ["u", "v"]}, {"a": [0.5, 0.5], "b": [[1.0, 0.0], [0.0, 1.0]]}, {"b": ["a"]}
    )
    cause = "the evidence has probability 0: 'a' = 'x' and the soft evidence of 'b' cannot occur together"
    with pytest.raises(ValueError, match=cause):
        model.query("b", {"a": "x"}, soft={"b": [0.0, 1.0]})
    with pytest.raises(
        ValueError, match="0: the soft evidence of 'a' and the soft evidence of 'b' cannot occur together"
    ):
        model.query("b", soft={"a": [1.0, 0.0], "b": [0.0, 1.0]})
    with pytest.raises(ValueError, match=r"0: the soft evidence of 'b' cannot occur$"):
        model.query(["b", "a"], {"a": "x"}, soft={"b": [0.0, 0.0], "a": [1.0, 0.5]})


@pytest.mark.parametrize(
    ("soft", "text"),
    [
        ({"b": [0.5]}, r"the soft evidence of 'b' must have shape \(2,\), got \(1,\)"),
        ({"b": [[1, 0], [0, 1]]}, r"the soft evidence of 'b' must have shape \(2,\), got \(2, 2\)"),
        ({"b": [0.5, -0.5]}, "the soft evidence of 'b' must be finite and not negative"),
        ({"b": [0.5, np.nan]}, "the soft evidence of 'b' must be finite and not negative"),
        ({"b": ["u", "v"]}, "the soft evidence of 'b' must hold"),
        ({"b": [1, 1], 1: [1, 1]}, "the soft evidence of 'b' is given twice"),
        ({"c": [0.5, 0.5]}, "no variable 'c'"),
    ],
)
def test_wrong_soft_evidence(soft, text):
    model = BayesianNetwork.from_tables({"a": ["x", "y"], "b": ["u", "v"]}, {"a": [0.5, 0.5], "b": [0.5, 0.5]})
    for call in (lambda: model.query(["a", "b"], soft=soft), lambda: model.infer({"a": "x"}, soft=soft)):
        with pytest.raises((TypeError, ValueError), match=text):
            call()


def test_joint_queries_that_are_too_large_are_refused():
    model = BayesianNetwork("empty").fit(np.eye(70, dtype=int))
    for size in (30, 40, 64):
        with pytest.raises(EngineLimitError, match=f"joint distribution of {size} variables") as caught:
            model.query(range(size))
        assert caught.value.cost.states == 2**size
    with pytest.raises(ValueError, match="at most 64 variables, got 66"):
        model.query(range(66))
    model._engine.operation_limit = 1000  # that the engine takes for one row, here for 2^16
    with pytest.raises(EngineLimitError, match="multiplications, above operation_limit=1000"):
        model.query(range(17))
    with pytest.raises(EngineLimitError, match="above limit=1000"):
        model.set_params(limit=1000).query(range(6))


def test_joint_queries_in_several_pieces():
    """17 independent coins: the product of their distributions, made in two runs of rows."""
    rng = np.random.default_rng(0)
    chances = rng.random(17)
    model = BayesianNetwork.from_tables(
        {f"c{i}": ["0", "1"] for i in range(17)}, {f"c{i}": [1 - p, p] for i, p in enumerate(chances)}
    )
    found = model.query(range(17)).probabilities
    expected = np.ones(1)
    for p in chances:
        expected = np.multiply.outer(expected, [1 - p, p])
    np.testing.assert_allclose(found, expected[0], rtol=1e-12)


def test_one_target_by_name(sprinkler):
    """`query`, `d_separated` take a name as one variable; its letters are none."""
    rows = [["yes", None, None, "yes"]]
    for targets in ("rain", ["rain"], ("rain",), 2, np.array([2])):
        expected = sprinkler.query("rain", {"cloudy": "yes", "wet": "yes"}).probabilities
        np.testing.assert_array_equal(sprinkler.infer(rows, targets=targets).marginals["rain"][0], expected)
        np.testing.assert_array_equal(sprinkler.predict_proba(rows, targets=targets)["rain"][0], expected)
        np.testing.assert_array_equal(sprinkler.query(targets, {"cloudy": "yes", "wet": "yes"}).probabilities, expected)
        assert sprinkler.predict(rows, targets=targets).tolist() == [["yes"]]
    with pytest.raises(ValueError, match="each once"):
        sprinkler.infer(rows, targets=["rain", 2])


def test_names_that_are_tuples():
    data = pd.DataFrame({("a", 1): ["x", "y"], ("b", 1): ["u", "v"]})
    model = BayesianNetwork([(("a", 1), ("b", 1))]).fit(data)
    assert model.query(("b", 1), {("a", 1): "x"}).variables == (("b", 1),)
    assert model.query((("b", 1), ("a", 1))).variables == (("b", 1), ("a", 1))


@pytest.mark.parametrize("method", ["exact", "auto", "loopy", "mean_field", "gibbs", "likelihood_weighting"])
def test_unknown_options_of_infer_are_refused(method, sprinkler):
    for call in (sprinkler.infer, lambda **options: sprinkler.query("rain", **options)):
        with pytest.raises(TypeError, match="no option 'nonsense'"):
            call(method=method, nonsense=1)
        with pytest.raises(TypeError, match="no option 'graph'"):
            call(method=method, graph=1)


def test_options_of_auto_are_those_of_loopy(sprinkler):
    assert sprinkler.infer(damping=0.5).exact
    found = BayesianNetwork.from_tables(**SPRINKLER, limit=8).infer(damping=0.5, max_iter=3)
    assert found.method == "loopy"
    assert found.details[0].n_iter == 3


@pytest.mark.parametrize("method", ["likelihood_weighting", "gibbs"])
def test_random_state_of_the_network_is_used_by_infer(method):
    """As by `sample`."""
    model = BayesianNetwork.from_tables({"a": ["x", "y"]}, {"a": [0.4, 0.6]}, random_state=0)
    found = {model.infer(method=method).marginals["a"].tobytes() for _ in range(5)}
    assert found == {model.infer(method=method, random_state=0).marginals["a"].tobytes()}
    assert found != {model.infer(method=method, random_state=1).marginals["a"].tobytes()}
    model.set_params(random_state=np.random.default_rng(0))
    assert len({model.infer(method=method).marginals["a"].tobytes() for _ in range(5)}) > 1


def test_limit_can_be_changed(sprinkler):
    sprinkler.infer(method="exact")
    engine = sprinkler._engine
    with pytest.raises(EngineLimitError):
        sprinkler.set_params(limit=1).infer(method="exact")
    assert sprinkler.set_params(limit=1 << 30).infer(method="exact").exact
    assert sprinkler._engine is not engine
    assert sprinkler._engine is sprinkler._engine


def test_draws_given_evidence(sprinkler):
    """Pearson's test over the joint of the others; false alarm: 1e-6."""
    drawn = sprinkler.sample(20_000, 5, evidence={"wet": "yes"}, codes=True)
    assert (drawn[:, 3] == 1).all()
    expected = joint(sprinkler.network_)[..., 1]
    expected = 20_000 * expected / expected.sum()
    counts = np.zeros((2, 2, 2))
    np.add.at(counts, tuple(drawn[:, :3].T), 1)
    kept = expected > 0
    assert (counts[~kept] == 0).all()
    statistic = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert statistic < chi2.isf(1e-6, kept.sum() - 1)


def test_imputation_by_draws(sprinkler):
    """Share of draws against the posterior: five standard errors."""
    X = [[None, "on", None, "yes"]] * 20_000
    filled = sprinkler.impute(X, method="sample", random_state=1)
    assert set(filled[:, 1]) == {"on"}
    expected = sprinkler.query("rain", {"sprinkler": "on", "wet": "yes"}).probabilities[1]
    share = (filled[:, 2] == "yes").mean()
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 20_000)
    again = sprinkler.impute(X, method="sample", random_state=1)
    np.testing.assert_array_equal(filled, again)


def test_mpe_of_a_mapping(sprinkler):
    assert sprinkler.mpe({"wet": "yes"}) == {"cloudy": "yes", "sprinkler": "off", "rain": "yes", "wet": "yes"}
    assert set(sprinkler.mpe()) == set(SPRINKLER["states"])


def test_refusal_and_approximation(sprinkler):
    model = BayesianNetwork.from_tables(**SPRINKLER, limit=8)
    with pytest.raises(EngineLimitError, match="approximation"):
        model.infer({"wet": "yes"}, method="exact")
    result = model.infer({"wet": "yes"})
    assert not result.exact
    assert result.method == "loopy"
    exact = sprinkler.infer({"wet": "yes"})
    for name, table in exact.marginals.items():
        np.testing.assert_allclose(result.marginals[name], table, atol=0.1)
    for method, tolerance in (("likelihood_weighting", 0.02), ("gibbs", 0.05)):
        found = sprinkler.infer({"cloudy": "yes", "sprinkler": "on"}, method=method, random_state=0)
        assert not found.exact
        for name, table in sprinkler.infer({"cloudy": "yes", "sprinkler": "on"}).marginals.items():
            np.testing.assert_allclose(found.marginals[name], table, atol=tolerance)
    with pytest.raises(ValueError, match="method must be one of"):
        sprinkler.infer(method="magic")


# ---- fits ------------------------------------------------------------------------------------------------------------


def test_fit_counts(rng):
    X = rng.integers(0, [2, 3, 4], (500, 3))
    X[:, 2] = (X[:, 0] + X[:, 1] + (rng.random(500) < 0.2)) % 4
    weights = rng.random(500)
    edges = [(0, 2), (1, 2)]
    model = BayesianNetwork(edges).fit(X, sample_weight=weights)
    counts = np.zeros((2, 3, 4))
    np.add.at(counts, tuple(X.T), weights)
    np.testing.assert_allclose(model.network_.tables[2], counts / counts.sum(axis=-1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(model.network_.tables[0], np.bincount(X[:, 0], weights) / weights.sum(), rtol=1e-12)
    assert model.edges_ == edges
    for prior, pseudo in (("k2", 1.0), (0.5, 0.5), ("bdeu", 10 / 24)):
        table = BayesianNetwork(edges, prior=prior).fit(X).network_.tables[2]
        counts = np.full((2, 3, 4), pseudo)
        np.add.at(counts, tuple(X.T), 1)
        np.testing.assert_allclose(table, counts / counts.sum(axis=-1, keepdims=True), rtol=1e-12)


def test_configurations_without_data_are_uniform():
    model = BayesianNetwork([(0, 1)], states={0: range(3)}).fit([[0, 0], [1, 1]])
    np.testing.assert_array_equal(model.network_.tables[1], [[1, 0], [0, 1], [0.5, 0.5]])


def test_criteria(rng):
    X = rng.integers(0, 2, (200, 3))
    model = BayesianNetwork([(0, 1)]).fit(X)
    total = model.log_prob(X).sum()
    assert model.aic(X) == pytest.approx(-2 * total + 2 * 4)
    assert model.bic(X) == pytest.approx(-2 * total + np.log(200) * 4)
    assert model.score(X) == pytest.approx(total / 200)


@pytest.mark.parametrize("prior", [None, "k2"])
def test_em_is_monotone_and_beats_the_start(prior):
    rng = np.random.default_rng(3)
    network = random_network(rng, 6, zeros=0)
    truth = BayesianNetwork.from_network(network)
    X = holes(truth.sample(1500, rng, codes=True), rng, 0.25)
    arcs = list(network.arcs)
    model = BayesianNetwork(arcs, prior=prior, max_iter=1000, tol=1e-7).fit(X)
    assert model.stop_reason_ == "converged"
    assert np.diff(model.history_).min() > -1e-10
    objective = model.log_prob(X).mean()
    if prior is None:
        assert objective == pytest.approx(model.history_[-1], abs=1e-9)
        assert objective > truth.log_prob(X).mean()  # the maximum is above any other
    weighted = np.unique(X, axis=0, return_counts=True)
    again = BayesianNetwork(arcs, prior=prior, max_iter=1000, tol=1e-7).fit(weighted[0], sample_weight=weighted[1])
    for a, b in zip(model.network_.tables, again.network_.tables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_em_step_is_an_explicit_refit():
    """One M-step against counts of all completions, weighted by their posteriors."""
    rng = np.random.default_rng(8)
    X = holes(rng.integers(0, 2, (60, 3)), rng, 0.3)
    with pytest.warns(match="did not converge"):
        one = BayesianNetwork([(0, 1), (1, 2)], max_iter=1, tol=0).fit(X)
    with pytest.warns(match="did not converge"):
        two = BayesianNetwork([(0, 1), (1, 2)], max_iter=2, tol=0).fit(X)
    table = joint(one.network_)
    counts = np.zeros((2, 2, 2))
    for row in X:
        part = table.copy()
        for i, s in enumerate(row):
            if s >= 0:
                part = part * np.eye(2)[s].reshape([-1 if j == i else 1 for j in range(3)])
        counts += part / part.sum()
    np.testing.assert_allclose(two.network_.tables[0], counts.sum(axis=(1, 2)) / 60, atol=1e-12)
    pair = counts.sum(axis=2)
    np.testing.assert_allclose(two.network_.tables[1], pair / pair.sum(axis=1, keepdims=True), atol=1e-12)


def test_hidden_variable_and_restarts():
    """Two independent coins mixed: a hidden class explains the dependence that arcs cannot."""
    rng = np.random.default_rng(0)
    z = rng.random(2000) < 0.4
    X = (rng.random((2000, 4)) < np.where(z[:, None], 0.9, 0.2)).astype(np.int64)
    X = np.column_stack([np.full(2000, -1), X])
    edges = [(0, i) for i in range(1, 5)]
    model = BayesianNetwork(edges, states={0: [0, 1]}, random_state=0, max_iter=500, tol=1e-6, n_init=2).fit(X)
    share = np.sort(model.network_.tables[0])
    np.testing.assert_allclose(share, [0.4, 0.6], atol=0.05)
    with pytest.raises(ValueError, match="no observed value"):
        BayesianNetwork(edges).fit(X)


def test_threads_do_not_change_bits(rng):
    truth = BayesianNetwork.from_network(random_network(rng, 8, zeros=0))
    X = truth.sample(30_000, 1, codes=True)
    Y = holes(X[:3000], rng, 0.2)
    results = []
    for threads in (1, 2, 7):
        with num_threads(threads):
            model = BayesianNetwork(list(truth.network_.arcs)).fit(X)
            em = BayesianNetwork(list(truth.network_.arcs), max_iter=3, tol=10.0).fit(Y)
            marginals = truth.infer(Y).marginals
            results.append(
                [
                    *model.network_.tables,
                    *em.network_.tables,
                    *marginals.values(),
                    truth.log_prob(X),
                    truth.sample(999, 1),
                ]
            )
    for others in results[1:]:
        for a, b in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weather():
    rng = np.random.default_rng(1)
    sky = rng.choice(["sun", "cloud", "rain"], 400)
    ground = np.where((sky == "rain") | (rng.random(400) < 0.1), "wet", "dry")
    return pd.DataFrame(
        {
            "sky": pd.Categorical(sky, categories=["sun", "cloud", "rain", "snow"]),
            "ground": ground,
            "umbrellas": rng.integers(3, 6, 400),
            "windy": rng.random(400) < 0.5,
        }
    )


def test_pandas_in_and_out(weather):
    model = BayesianNetwork([("sky", "ground"), ("sky", "umbrellas")], prior="k2").fit(weather)
    assert list(model.feature_names_in_) == list(weather.columns)
    assert model.categories_["sky"] == ("sun", "cloud", "rain", "snow")
    assert model.categories_["umbrellas"] == (3, 4, 5)
    assert model.categories_["windy"] == (False, True)
    drawn = model.sample(50, 0)
    assert isinstance(drawn, pd.DataFrame)
    assert list(drawn["sky"].cat.categories) == ["sun", "cloud", "rain", "snow"]
    missing = weather.drop(columns="ground").iloc[:, ::-1]
    proba = model.predict_proba(missing)
    assert list(proba) == ["ground"]
    expected = model.predict_proba(weather.assign(ground=None))["ground"]
    np.testing.assert_array_equal(proba["ground"], expected)
    filled = model.impute(missing)
    assert list(filled.columns) == list(weather.columns)
    assert set(filled["ground"]) <= {"dry", "wet"}
    np.testing.assert_allclose(model.log_prob(filled), model.log_prob(filled.astype(object)), rtol=0)
    with pytest.raises(ValueError, match=r"'fog' in row 0, which is no state"):
        model.log_prob(pd.DataFrame({"sky": ["fog"]}))
    with pytest.raises(ValueError, match="'mood' is no variable"):
        model.log_prob(pd.DataFrame({"mood": ["fog"]}))
    assert model.query("ground", {"sky": "rain", "umbrellas": 4}).probabilities[1] > 0.9


def test_polars_and_object_arrays_agree_with_pandas(weather):
    edges = [("sky", "ground"), ("sky", "umbrellas")]
    weather = weather.assign(sky=weather["sky"].astype(str))
    model = BayesianNetwork(edges).fit(weather)
    other = BayesianNetwork(edges).fit(pl.DataFrame(weather.to_dict(orient="list")))
    array = BayesianNetwork([(0, 1), (0, 2)]).fit(weather.to_numpy(object))
    for a, b, c in zip(model.network_.tables, other.network_.tables, array.network_.tables, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert isinstance(other.sample(3, 0), pl.DataFrame)
    assert array.sample(3, 0).dtype == object


def test_frames_keep_their_index():
    data = pd.DataFrame({"a": ["x", "y", "x"], "b": ["u", "v", "u"]}, index=[10, 20, 30])
    model = BayesianNetwork([("a", "b")]).fit(data)
    holes = data.assign(a=[None, "y", "x"])
    for out in (
        model.impute(holes),
        model.impute(holes, method="sample", random_state=0),
        model.predict(holes),
        model.mpe(holes),
        model.predict(holes, targets=["a"]),
    ):
        assert out.index.tolist() == [10, 20, 30]
        assert out["a"].tolist() == ["x", "y", "x"]
    assert holes.assign(a=model.impute(holes)["a"])["a"].tolist() == ["x", "y", "x"]
    assert model.sample(2).index.tolist() == [0, 1]
    assert model.impute(holes.to_numpy(object)).index.tolist() == [0, 1, 2]
    again = holes.set_axis([1, 1, 2])  # not unique
    assert model.impute(again).index.tolist() == [1, 1, 2]


def test_ordered_categories_stay_ordered():
    sizes = ["S", "M", "L"]
    data = pd.DataFrame({"size": pd.Categorical(["M", "L", "M"], sizes, ordered=True), "colour": ["r", "g", "r"]})
    model = BayesianNetwork([("size", "colour")]).fit(data)
    for out in (model.sample(4, 0), model.impute(data), model.predict(data, targets=["size"])):
        assert out["size"].dtype == data["size"].dtype
        assert (out["size"] <= "L").all()
    assert not model.sample(4, 0)["colour"].cat.ordered
    kind = pl.Enum(sizes)
    frame = pl.DataFrame({"colour": ["r", "g", None], "size": pl.Series(["M", None, "L"], dtype=kind)})
    model = BayesianNetwork([("size", "colour")], prior=1).fit(frame)
    for out in (model.sample(4, 0), model.impute(frame)):
        assert out.schema == frame.schema
    assert model.predict(frame, targets=["size"]).schema == {"size": kind}


def test_draws_as_codes_are_of_one_type(sprinkler):
    """Given evidence or not: unsigned integers, of the smallest type that holds them all."""
    for model, dtype in ((sprinkler, np.uint8), (BayesianNetwork("empty").fit([[0], [300]]), np.uint16)):
        name = next(iter(model.categories_))
        for evidence in (None, {name: model.categories_[name][-1]}):
            assert model.sample(5, 0, evidence=evidence, codes=True).dtype == dtype


def test_draws_as_frames_or_arrays(weather):
    model = BayesianNetwork("empty").fit(weather)
    assert isinstance(model.sample(3, 0, as_frame=False), np.ndarray)
    polars = BayesianNetwork("empty").fit(pl.DataFrame({"a": ["x", "y"]}))
    assert isinstance(polars.sample(3, 0, as_frame=True), pl.DataFrame)
    assert isinstance(BayesianNetwork("empty").fit([["x"], ["y"]]).sample(3, 0, as_frame=True), pd.DataFrame)


def test_values_that_are_equal_to_python_are_not_merged():
    X = np.array([["x"], [1], [True]], object)
    with pytest.raises(ValueError, match=r"column 0 holds 1 \(in row 1\) and True, which are equal"):
        BayesianNetwork("empty").fit(X)
    model = BayesianNetwork("empty").fit(X[:2])
    assert model.categories_ == {0: (1, "x")}
    with pytest.raises(ValueError, match=r"column 'a' holds 0.0 \(in row 2\) and False"):
        BayesianNetwork("empty").fit(pd.DataFrame({"a": ["x", False, 0.0]}))
    assert BayesianNetwork("empty").fit(np.array([["x"], [True], [2]], object)).categories_ == {0: (True, 2, "x")}


def test_values_that_are_no_names():
    """Text with a line break cannot be the name of a state: it is quoted there."""
    X = np.array([["a\nb"], ["c"], ["a\nb"]], object)
    model = BayesianNetwork("empty").fit(X)
    assert model.categories_ == {0: ("a\nb", "c")}
    assert model.network_.states == (("0: 'a\\nb'", "1: 'c'"),)
    np.testing.assert_allclose(model.query(0).probabilities, [2 / 3, 1 / 3])
    assert model.impute(X).tolist() == X.tolist()


def test_kinds_of_arrays_agree(rng):
    X = rng.integers(0, [2, 3, 4], (300, 3))
    model = BayesianNetwork([(0, 1), (1, 2)]).fit(X)
    kinds = [X.astype(np.uint8), X.astype(np.float32), np.asfortranarray(X), X.tolist(), X[::-1].copy()[::-1]]
    kinds += [np.ma.masked_array(X), X.astype(">i4")]
    read_only = X.copy()
    read_only.flags.writeable = False
    for other in (*kinds, read_only):
        same = BayesianNetwork([(0, 1), (1, 2)]).fit(other)
        for a, b in zip(model.network_.tables, same.network_.tables, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(model.log_prob(X), model.log_prob(other))
    mask = rng.random(X.shape) < 0.3
    floats = np.where(mask, np.nan, X)
    np.testing.assert_array_equal(model.log_prob(floats), model.log_prob(np.ma.masked_array(X, mask)))
    np.testing.assert_array_equal(model.log_prob(floats), model.log_prob(np.where(mask, -1, X)))


@pytest.mark.parametrize(
    ("X", "text"),
    [
        ([[0, 1], [2, 0]], r"column 0 holds 2 in row 1: its states are numbered 0 to 1"),
        ([[0, -2]], r"column 1 holds -2 in row 0"),
        ([[0, 0.5]], r"column 1 holds 0.5 in row 0, which is no state"),
        ([[0, 1, 0]], r"X has 3 features, but BayesianNetwork is expecting 2"),
        ([[0, np.inf]], "inf"),
        ([0, 1], "1D array|2D array|dimension"),
    ],
)
def test_wrong_rows(X, text):
    model = BayesianNetwork([(0, 1)]).fit([[0, 0], [1, 1]])
    with pytest.raises(ValueError, match=text):
        model.log_prob(X)


def test_wrong_parameters(sprinkler):
    X = [[0, 0, 0], [1, 1, 1]]
    for structure, text in (
        ([(0, 1), (1, 0)], "cycle"),
        ([(0, 7)], "no variable 7"),
        ([(0, 1, 2)], "pairs"),
        (None, "pairs"),
        (1.5, "pairs"),
        ("magic", "structure must be one of"),
        ([(0, 1), (0, 1)], "twice"),
    ):
        model = BayesianNetwork(structure)
        with pytest.raises(ValueError, match=text):
            model.fit(X)
        assert not hasattr(model, "network_")
    with pytest.raises(ValueError, match="prior"):
        BayesianNetwork([], prior=-1).fit(X)
    with pytest.raises(ValueError, match="complete rows"):
        BayesianNetwork().fit([[0, -1], [1, 1]])
    with pytest.raises(ValueError, match="no variable 'fog'"):
        sprinkler.query("fog")
    with pytest.raises(ValueError, match="'maybe' is no state of 'rain'"):
        sprinkler.query("wet", {"rain": "maybe"})
    with pytest.raises(ValueError, match="each once"):
        sprinkler.query(["wet", "wet"])
    with pytest.raises(NetworkError, match="sum to"):
        BayesianNetwork.from_tables({"a": [0, 1]}, {"a": [0.5, 0.6]})


def test_a_failed_fit_leaves_the_model(rng):
    model = BayesianNetwork([(0, 1)]).fit(rng.integers(0, 2, (50, 2)))
    before = model.log_prob([[0, 1]])
    with pytest.raises(ValueError, match="no variable 1"):
        model.fit(np.zeros((5, 1), int))
    np.testing.assert_array_equal(model.log_prob([[0, 1]]), before)


def test_arcs_from_an_iterator_last(rng):
    X = rng.integers(0, 2, (20, 2))
    model = BayesianNetwork(zip([0], [1], strict=True))
    assert model.fit(X).edges_ == model.fit(X).edges_ == [(0, 1)]
    assert clone(model).fit(X).edges_ == [(0, 1)]
    classifier = BayesianNetworkClassifier(iter([("class", 0), (0, 1)]))
    for _ in range(2):
        assert classifier.fit(X, X[:, 0]).model_.edges_ == [("class", 0), (0, 1)]
    model.set_params(structure=iter([(0, 1)]))
    with pytest.raises(ValueError, match="structure is an iterator"):
        model.fit(X)
    assert model.edges_ == [(0, 1)]


@pytest.mark.parametrize("structure", ["empty", [(0, 1)], lambda codes, sizes: [(), ()]])
def test_options_without_a_learner_are_refused(structure):
    with pytest.raises(ValueError, match="structure_options"):
        BayesianNetwork(structure, structure_options={"nonsense": 1}).fit([[0, 1], [1, 0]])


def test_copies(sprinkler, tmp_path):
    again = pickle.loads(pickle.dumps(sprinkler))
    assert again.network_ == sprinkler.network_
    assert again.query("rain", {"wet": "yes"}).log_evidence == sprinkler.query("rain", {"wet": "yes"}).log_evidence
    sprinkler.write(tmp_path / "a.bif")
    read = BayesianNetwork.read(tmp_path / "a.bif")
    assert read.network_ == sprinkler.network_
    refitted = clone(sprinkler).fit(sprinkler.sample(5000, 0))
    assert refitted.edges_ == sprinkler.edges_
    for a, b in zip(refitted.network_.tables, sprinkler.network_.tables, strict=True):
        np.testing.assert_allclose(a, b, atol=0.06)
    codes = clone(sprinkler).fit(sprinkler.sample(5000, 0, codes=True))
    assert codes.network_ == refitted.network_


def test_the_graph(sprinkler):
    assert sprinkler.markov_blanket("sprinkler") == ["cloudy", "rain", "wet"]
    assert sprinkler.d_separated("sprinkler", "rain", "cloudy")
    assert not sprinkler.d_separated("sprinkler", "rain", ["cloudy", "wet"])
    assert not sprinkler.d_separated("sprinkler", "rain")


def test_plots_by_names(sprinkler):
    pytest.importorskip("matplotlib")
    layout = {"cloudy": (0, 2), "sprinkler": (-1, 1), "rain": (1, 1), "wet": (0, 0)}
    for given in (layout, dict(enumerate(layout.values()))):
        ax = sprinkler.plot(layout=given)
        assert {text.get_text(): text.get_position() for text in ax.texts if text.get_text()} == layout
    with pytest.raises(ValueError, match="by name or by number: none for 'cloudy'"):
        sprinkler.plot(layout={"rain": (0, 0)})
    with pytest.raises(ValueError, match="place for 'fog', which is no node"):
        sprinkler.plot(layout=layout | {"fog": (0, 0)})
    with pytest.raises(ValueError, match="pairs"):
        sprinkler.plot(layout=dict.fromkeys(layout, (0, 0, 0)))


def test_learned_structure_is_found(rng):
    both = [[[0.95, 0.05], [0.4, 0.6]], [[0.5, 0.5], [0.05, 0.95]]]
    truth = DiscreteNetwork.of(
        {name: ["0", "1"] for name in "abcd"},
        {"a": [0.5, 0.5], "b": [[0.9, 0.1], [0.1, 0.9]], "c": [0.4, 0.6], "d": both},
        {"b": ["a"], "d": ["b", "c"]},
    )
    X = BayesianNetwork.from_network(truth).sample(5000, 0, codes=True)
    assert {(0, 1), (1, 3), (2, 3)} <= {tuple(sorted(edge)) for edge in BayesianNetwork("hill_climb").fit(X).edges_}
    for structure in ("tabu", "pc"):
        model = BayesianNetwork(structure).fit(X)
        skeleton = {frozenset(edge) for edge in model.edges_}
        assert skeleton == {frozenset((0, 1)), frozenset((1, 3)), frozenset((2, 3))}, structure
    assert len(BayesianNetwork("chow_liu").fit(X).edges_) == 3
    assert BayesianNetwork("empty").fit(X).edges_ == []
    assert BayesianNetwork(lambda codes, sizes: [(), (0,), (), ()]).fit(X).edges_ == [(0, 1)]


# ---- classifiers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["naive", "tan", "hill_climb"])
def test_classifier_is_bayes_rule(structure, rng):
    X = rng.integers(0, [2, 3, 2, 4], (800, 4))
    y = np.array(["no", "yes", "maybe"])[(X[:, 0] + X[:, 1] + (rng.random(800) < 0.1)) % 3]
    model = BayesianNetworkClassifier(structure).fit(X, y)
    table = joint(model.model_.network_)
    expected = np.moveaxis(table, -1, 0)[:, *X.T].T
    expected = expected / expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-13)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), expected, atol=1e-13)
    np.testing.assert_array_equal(model.predict(X), model.classes_[expected.argmax(axis=1)])
    assert (model.predict(X) == y).mean() > (0.8 if structure == "tan" else 0.35)
    holed = holes(X, rng, 0.2)
    proba = model.predict_proba(holed)
    for r in range(30):
        np.testing.assert_allclose(proba[r], posterior(table, [*holed[r], -1])[0][-1], atol=1e-13)
    np.testing.assert_allclose(model.log_prob(X), np.log(np.moveaxis(table, -1, 0)[:, *X.T].sum(axis=0)), atol=1e-12)
    classes = np.searchsorted(model.classes_, y)
    np.testing.assert_allclose(model.log_prob(X, y), np.log(table[*X.T, classes]), atol=1e-12)


def test_naive_structure_is_naive_bayes(rng):
    from fastgen import CategoricalNB

    X = rng.integers(0, 4, (500, 6))
    y = rng.integers(0, 3, 500)
    ours = BayesianNetworkClassifier("naive", prior=1.0).fit(X, y)
    theirs = CategoricalNB(alpha=1.0).fit(X, y)
    prior = theirs.class_count_ + 1
    expected = theirs.predict_joint_log_proba(X) - theirs.class_log_prior_ + np.log(prior / prior.sum())
    expected = np.exp(expected - expected.max(axis=1, keepdims=True))
    np.testing.assert_allclose(ours.predict_proba(X), expected / expected.sum(axis=1, keepdims=True), atol=1e-12)


def test_class_column(weather):
    by_column = BayesianNetworkClassifier("naive", class_column="ground").fit(weather)
    by_y = BayesianNetworkClassifier("naive", class_column="ground").fit(
        weather.drop(columns="ground"), weather["ground"]
    )
    X = weather.drop(columns="ground")
    np.testing.assert_array_equal(by_column.predict_proba(X), by_y.predict_proba(X))
    assert (by_column.predict(X) == weather["ground"]).mean() > 0.8
    with pytest.raises(ValueError, match="requires y"):
        BayesianNetworkClassifier().fit(weather)


@pytest.mark.parametrize("structure", ["tan", "naive", "hill_climb", [("class", 0)]])
def test_classifiers_are_pickled(structure, rng):
    X = rng.integers(0, 3, (60, 4))
    model = BayesianNetworkClassifier(structure).fit(X, X[:, 0] > 1)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_limit_of_a_classifier_can_be_changed(rng):
    X = rng.integers(0, 3, (60, 4))
    model = BayesianNetworkClassifier().fit(X, X[:, 0] > 1)
    holed = np.where(rng.random(X.shape) < 0.3, -1, X)
    before = model.predict_proba(holed)
    with pytest.raises(EngineLimitError):
        model.set_params(limit=1).predict_proba(holed)
    np.testing.assert_array_equal(model.set_params(limit=1 << 31).predict_proba(holed), before)


@pytest.mark.parametrize("structure", ["tan", "hill_climb"])
def test_weights_are_copies_of_rows_for_the_structure(structure):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, y, w = rng.integers(0, 3, (40, 5)), rng.integers(0, 2, 40), rng.integers(0, 4, 40)
        weighted = BayesianNetworkClassifier(structure).fit(X, y, sample_weight=w)
        copied = BayesianNetworkClassifier(structure).fit(np.repeat(X, w, axis=0), np.repeat(y, w))
        assert weighted.model_.edges_ == copied.model_.edges_


def test_weights_without_a_structure_to_learn_from_tan():
    """What has no weight does not bend the tree: the heavy rows tie feature 2 to 1, the others to 0."""
    rng = np.random.default_rng(0)
    a, b, y = (rng.integers(0, 2, 400) for _ in range(3))
    X = np.column_stack([a, b, np.where(np.arange(400) < 300, a, b)])
    w = np.where(np.arange(400) < 300, 0.01, 1.0)
    assert (0, 2) in BayesianNetworkClassifier().fit(X, y).model_.edges_
    assert (1, 2) in BayesianNetworkClassifier().fit(X, y, sample_weight=w).model_.edges_


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_missing_labels_are_named(missing):
    X = pd.DataFrame({"f": ["x", "y", "x"], "class": pd.Series(["p", "q", missing], dtype=object)})
    with pytest.raises(ValueError, match=r"y contains missing labels: .* in row 2"):
        BayesianNetworkClassifier("naive").fit(X)


@pytest.mark.parametrize("structure", ["tan", "naive", [("class", 0)], "empty", lambda codes, sizes: [()] * 5])
def test_options_of_a_structure_are_not_ignored(structure, rng):
    X = rng.integers(0, 3, (60, 4))
    with pytest.raises((TypeError, ValueError), match="nonsense"):
        BayesianNetworkClassifier(structure, structure_options={"nonsense": 1}).fit(X, X[:, 0] > 1)


def test_options_of_tan(rng):
    X = rng.integers(0, 3, (60, 4))
    y = X[:, 0] > 1
    model = BayesianNetworkClassifier("tan", structure_options={"root": 2}).fit(X, y)
    assert [child for _, child in model.model_.edges_].count(2) == 1  # the root has the class as its only parent
    with pytest.raises(ValueError, match="parameter of the classifier"):
        BayesianNetworkClassifier("tan", structure_options={"class_column": 2}).fit(X, y)


def test_states_of_the_class(rng):
    X = rng.integers(0, 2, (30, 2))
    y = np.array(["mid", "low"])[X[:, 0]]
    for labels in (y, y.astype(object)):
        model = BayesianNetworkClassifier("naive", states={"class": ["low", "mid", "high"], 1: [0, 1, 2]}).fit(
            X, labels
        )
        assert model.classes_.tolist() == ["low", "mid", "high"]
        counts = np.array([(y == "low").sum(), (y == "mid").sum(), 0]) + 1  # the prior is 1 for each entry
        np.testing.assert_allclose(model.predict_proba([[-1, -1]]), [counts / counts.sum()], rtol=1e-14)
        assert (model.predict(X) == y).all()
        total = np.logaddexp.reduce([model.log_prob(X, np.full(30, label)) for label in model.classes_])
        np.testing.assert_allclose(total, model.log_prob(X), rtol=1e-12)
    with pytest.raises(ValueError, match="y holds 'mid', which is none of the classes"):
        BayesianNetworkClassifier("naive", states={"class": ["low", "high"]}).fit(X, y)
    with pytest.raises(ValueError, match="not distinct"):
        BayesianNetworkClassifier("naive", states={"class": ["low", "low", "mid"]}).fit(X, y)
    with pytest.raises(ValueError, match="y holds 'top'"):
        model.log_prob(X, np.full(30, "top"))


def test_unknown_values():
    X, y = [[0, 0], [1, 1], [0, 1]], [0, 1, 1]
    with pytest.raises(ValueError, match="holds 5"):
        BayesianNetworkClassifier("naive").fit(X, y).predict([[5, 0]])
    model = BayesianNetworkClassifier("naive", handle_unknown="missing").fit(X, y)
    np.testing.assert_array_equal(model.predict_proba([[5, 0]]), model.predict_proba([[-1, 0]]))


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=f"{estimator.structure}-{check.func.__name__}")
        for structure in ("naive",)
        for estimator, check in estimator_checks_generator(
            BayesianNetworkClassifier(structure, handle_unknown="missing")
        )
    ],
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
