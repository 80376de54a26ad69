"""Bayesian networks against pyAgrum, pgmpy and NumPy: draws, log p(x), fits of tables. Network: alarm."""

import graphical_peers as peers
import numpy as np
import pytest
from versus import Side

from fastgen.graphical import BayesianNetwork

BLOCKS = 1 << 12, 1 << 14, 1 << 17


@pytest.fixture(scope="module")
def alarm():
    return BayesianNetwork.from_network(peers.network("alarm"))


def frequencies(X):
    return np.concatenate([np.bincount(column, minlength=4)[:4] / len(column) for column in np.asarray(X).T])


def test_sampling(versus, size, alarm):
    """Marginal frequencies are what is compared: five standard errors of a share of 1/2."""
    n, network = size(1_000_000), alarm.network_
    gum = peers.load("pyagrum")
    agrum = peers.agrum_network("alarm")
    part = max(1, n // 10)

    def by_agrum():
        generator = gum.BNDatabaseGenerator(agrum)
        generator.drawSamples(part)
        return generator

    def codes(generator):
        frame = generator.to_pandas(with_labels=False)
        return frame[list(network.names)].to_numpy().astype(int)

    by_numpy = [
        Side(lambda b=b: peers.numpy_sample(network, n, b, 0), frequencies, how=f"blocks of {b}") for b in BLOCKS
    ]
    versus(
        f"BayesianNetwork.sample, alarm, {n} rows",
        Side(lambda: alarm.sample(n, 0, codes=True), frequencies),
        {
            "NumPy": by_numpy,
            "pyAgrum": Side(by_agrum, lambda g: frequencies(codes(g)), part=part / n),
        },
        rtol=0,
        atol=5 * np.sqrt(0.5 / part),
        targets={("NumPy",): 5, ("pyAgrum",): 20},
    )


def test_log_prob(versus, size, alarm):
    n, network = size(1_000_000), alarm.network_
    X = alarm.sample(n, 0, codes=True)
    with np.errstate(divide="ignore"):
        logs = [np.log(table).ravel() for table in network.tables]
    agrum, few = peers.agrum_network("alarm"), 200
    gum = peers.load("pyagrum")

    def by_agrum():
        instance = gum.Instantiation()
        for name in network.names:
            instance.add(agrum.variableFromName(name))
        out = np.empty(few)
        for r, row in enumerate(X[:few].tolist()):
            for k, state in enumerate(row):
                instance.chgVal(k, state)
            out[r] = np.log(agrum.jointProbability(instance))
        return out

    versus(
        f"BayesianNetwork.log_prob, alarm, {n} rows",
        Side(lambda: alarm.log_prob(X)),
        {
            "NumPy": [
                Side(lambda b=b: peers.numpy_log_prob(network, logs, X, b), how=f"blocks of {b}") for b in BLOCKS
            ],
            "pyAgrum": Side(by_agrum, part=few / n, counterpart=lambda: alarm.log_prob(X[:few])),
        },
        rtol=1e-6,
        targets={("NumPy",): 3, ("pyAgrum",): 500},
    )


def test_fit(versus, size, alarm):
    n, network = size(1_000_000), alarm.network_
    X = alarm.sample(n, 0, codes=True)
    model = BayesianNetwork(list(network.arcs), states=dict(enumerate(map(range, network.cardinalities))))

    def tables(counts):
        return tuple(count / np.maximum(count.sum(axis=-1, keepdims=True), 1) for count in counts)

    def seen(model):  # configurations without data are uniform, and 0 in the others' tables
        counts = peers.numpy_counts(network, X, 1 << 14)
        pairs = zip(model.network_.tables, counts, strict=True)
        return tuple(table * (count.sum(axis=-1, keepdims=True) > 0) for table, count in pairs)

    versus(
        f"BayesianNetwork.fit, alarm, {n} rows",
        Side(lambda: model.fit(X), seen),
        {"NumPy": [Side(lambda b=b: peers.numpy_counts(network, X, b), tables, how=f"blocks of {b}") for b in BLOCKS]},
        targets={("NumPy",): 3},
    )


@pytest.mark.parametrize("source", ["a database made before", "a data frame"])
def test_fit_against_pyagrum(versus, size, alarm, source):
    """From arrays of codes, and pyAgrum's database made before; and both from a data frame of categories."""
    gum = peers.load("pyagrum")
    pandas = pytest.importorskip("pandas")
    n, network = size(200_000), alarm.network_
    X = alarm.sample(n, 0, codes=True)
    states = dict(enumerate(map(range, network.cardinalities)))
    model = BayesianNetwork(list(network.arcs), states=states, prior="k2")
    labels = [np.array(values, object) for values in network.states]
    frame = alarm.sample(n, 0, as_frame=True)
    text = pandas.DataFrame({name: labels[i][X[:, i]] for i, name in enumerate(network.names)})
    agrum = peers.agrum_network("alarm")
    by_name = BayesianNetwork(alarm.edges_, prior="k2")

    def learner():
        found = gum.BNLearner(text, agrum)
        found.useSmoothingPrior(1)
        return found

    made = learner()

    def theirs(learnt):
        tables = []
        for name, parents in zip(network.names, network.parents, strict=True):
            wanted = [*(network.names[j] for j in parents), name]
            cpt = learnt.cpt(name)
            axes = list(cpt.names)[::-1]  # of the array, the first variable runs fastest
            tables.append(np.transpose(cpt.toarray(), [axes.index(other) for other in wanted]))
        return tuple(tables)

    before = source != "a data frame"
    versus(
        f"BayesianNetwork.fit, alarm, {n} rows, from {source}, against learnParameters",
        Side(lambda: model.fit(X) if before else by_name.fit(frame), lambda fitted: fitted.network_.tables),
        {"pyAgrum": Side(lambda: (made if before else learner()).learnParameters(agrum.dag()), theirs)},
        rtol=1e-9,
        targets=None if before else {("pyAgrum",): 25},
    )
