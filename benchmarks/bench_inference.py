"""Exact inference against pyAgrum and pgmpy, and class posteriors: published networks.

One in ten cells is observed, in other columns in each row.
"""

import graphical_peers as peers
import numpy as np
import pytest
from versus import Side

import fastgen
from fastgen.graphical import BayesianNetwork
from fastgen.graphical._engine import Engine
from fastgen.graphical._posterior import class_posteriors


def rows_of(name, n, seed=0):
    """Samples of the network, of which one cell in ten is seen."""
    network = peers.network(name)
    rng = np.random.default_rng(seed)
    X = BayesianNetwork.from_network(network).sample(n, rng, codes=True)
    return np.where(rng.random(X.shape) < 0.1, np.asarray(X, np.int32), -1)


def agrum_marginals(name, kind, evidence):
    """All marginals for all rows: the tree is kept. Observed variables are in the result as well."""
    gum = peers.load("pyagrum")
    engine = getattr(gum, kind)(peers.agrum_network(name))
    names = peers.network(name).names
    rows = [{names[i]: int(row[i]) for i in np.flatnonzero(row >= 0)} for row in evidence]

    def call():
        out = []
        for row in rows:
            engine.setEvidence(row)
            engine.makeInference()
            out.append(np.concatenate([engine.posterior(other).toarray() for other in names]))
        return np.array(out)

    return call


def agrum_sides(name, evidence, ours, part):
    return [
        Side(
            agrum_marginals(name, kind, evidence),
            part=part,
            how=kind,
            counterpart=ours,
        )
        for kind in ("LazyPropagation", "ShaferShenoyInference")
    ]


def joined(result):
    return np.concatenate(result[0], axis=1)


@pytest.mark.parametrize(
    ("name", "target"), [("alarm", 200), ("hailfinder", 150), ("win95pts", 100), ("pathfinder", 20)]
)
def test_rows(versus, size, name, target):
    n = size(10_000)
    evidence = rows_of(name, n)
    engine = Engine(peers.network(name).factor_graph())
    few = 20
    versus(
        f"all marginals, {name}, {n} rows, 10 % seen, other columns in each",
        Side(lambda: engine.marginals(evidence), joined),
        {"pyAgrum": agrum_sides(name, evidence[:few], lambda: engine.marginals(evidence[:few]), few / n)},
        rtol=1e-6,
        atol=1e-8,
        targets={("pyAgrum",): target},
    )


@pytest.mark.parametrize(
    ("name", "target"), [("alarm", 20), ("hepar2", 15), ("andes", 10), ("pigs", 10), ("water", 3), ("barley", 3)]
)
def test_one_row(versus, name, target):
    """Plans are compiled before, and so are trees; eight rows, one by one, since no two cost the same."""
    evidence = rows_of(name, 8, 1)
    engine = Engine(peers.network(name).factor_graph())
    for row in evidence:
        engine.compile(np.flatnonzero(row >= 0))

    def theirs(kind):
        calls = [agrum_marginals(name, kind, row[None]) for row in evidence]  # a tree of its own for each row
        return Side(lambda: np.concatenate([call() for call in calls]), how=kind)

    versus(
        f"all marginals, {name}, 8 rows one by one, plans compiled before",
        Side(
            lambda: [engine.marginals(row) for row in evidence],
            lambda results: np.concatenate([joined(result) for result in results]),
        ),
        {"pyAgrum": [theirs("LazyPropagation"), theirs("ShaferShenoyInference")]},
        rtol=1e-6,
        atol=1e-8,
        threads=1,
        targets={("pyAgrum",): target},
    )


@pytest.mark.parametrize(
    "name",
    [
        "asia", "sachs", "child", "insurance", "alarm", "hailfinder", "win95pts", "hepar2", "andes", "pigs",
        "pathfinder", "water", "barley", "mildew",
    ],
)  # fmt: skip
def test_first_query(versus, name):
    """From nothing to all marginals: triangulation, program, and one query."""
    graph = peers.network(name).factor_graph()
    evidence = np.full((1, graph.n_variables), -1)
    versus(
        f"first query, all marginals, {name}",
        Side(lambda: Engine(graph).marginals(evidence), joined),
        {"pyAgrum": Side(lambda: agrum_marginals(name, "LazyPropagation", evidence)())},
        rtol=1e-6,
        atol=1e-8,
        threads=1,
        targets={("pyAgrum",): 1},
    )


def test_against_pgmpy(versus):
    """Ten marginals of alarm, three variables seen."""
    inference, readwrite = peers.load("pgmpy.inference"), peers.load("pgmpy.readwrite")
    import gzip
    import warnings

    network = peers.network("alarm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = readwrite.BIFReader(string=gzip.decompress(peers.path("alarm").read_bytes()).decode()).get_model()
    row = np.where(np.isin(np.arange(37), [3, 11, 30]), 0, -1)
    asked = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    evidence = {network.names[i]: network.states[i][0] for i in (3, 11, 30)}
    engine = Engine(network.factor_graph())
    engine.compile([3, 11, 30], asked)

    def theirs():
        elimination, out = inference.VariableElimination(model), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i in asked:
                answer = elimination.query([network.names[i]], evidence=evidence, show_progress=False)
                order = [answer.state_names[network.names[i]].index(state) for state in network.states[i]]
                out.append(answer.values[order])
        return np.concatenate(out)

    versus(
        "ten marginals of alarm, three variables seen",
        Side(lambda: engine.marginals(row, targets=asked), lambda result: joined(result)[0]),
        {"pgmpy": Side(theirs)},
        rtol=1e-6,  # rows are normalised here
        atol=1e-8,
        threads=1,
        calls=10,
        targets={("pgmpy",): 20},
    )


@pytest.mark.parametrize("target", ["CATECHOL", "LVFAILURE"])
def test_classes(versus, size, target):
    """All other columns are seen."""
    skbn, types = peers.load("pyagrum.skbn"), peers.load("pyagrum.lib.discreteTypeProcessor")
    pandas = pytest.importorskip("pandas")
    network = peers.network("alarm")
    n, few, node = size(1_000_000), 1000, network.names.index(target)
    X = BayesianNetwork.from_network(network).sample(n, 0, codes=True)
    agrum = peers.agrum_network("alarm")
    classifier = skbn.BNClassifier(type_processor=types.DiscreteTypeProcessor(), learningMethod="NaiveBayes")
    classifier.fromTrainedModel(agrum, targetAttribute=target, targetModality=network.states[node][0])
    labels = [np.array(states, object) for states in network.states]
    frame = pandas.DataFrame({name: labels[i][X[:few, i]] for i, name in enumerate(network.names) if i != node})
    versus(
        f"P({target} | all others), alarm, {n} rows",
        Side(lambda: class_posteriors(network, X, node)[:, 0]),
        {
            "pyAgrum": Side(
                lambda: classifier.predict_proba(frame)[:, 1],
                part=few / n,
                counterpart=lambda: class_posteriors(network, X[:few], node)[:, 0],
            )
        },
        rtol=1e-6,
        atol=1e-8,
        threads=fastgen.get_num_threads(),
        targets={("pyAgrum",): 20},
    )
