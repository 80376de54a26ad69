"""Structure learning against pyAgrum and pgmpy: hill-climbing with BIC on rows of alarm."""

import warnings

import graphical_peers as peers
import numpy as np
import pytest
from versus import Side

from fastgen.graphical import BayesianNetwork, hill_climb, score_network


@pytest.mark.parametrize(
    ("n", "seed", "target"), [(10_000, 0, 3), (10_000, 1, 3), (10_000, 2, 3), (100_000, 0, 10), (100_000, 1, 10)]
)
def test_hill_climbing(versus, table, size, quick, n, target, seed):
    """The score (BIC) must reach pyAgrum's; that of the network which the rows were drawn from stands beside.

    pyAgrum has its database already: to make it from a data frame takes seconds.
    """
    gum, pandas = peers.load("pyagrum"), pytest.importorskip("pandas")
    network = peers.network("alarm")
    X = BayesianNetwork.from_network(network).sample(size(n), seed, codes=True)
    cards, names = network.cardinalities, network.names
    labels = [np.array(states, object) for states in network.states]
    frame = pandas.DataFrame({name: labels[i][X[:, i]] for i, name in enumerate(names)})

    learner = gum.BNLearner(frame, peers.agrum_network("alarm"))
    learner.useGreedyHillClimbing()
    learner.useScoreBIC()

    def theirs():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return learner.learnDAG()

    def parents_of(dag):
        place = [peers.agrum_network("alarm").idFromName(name) for name in names]
        number = {node: i for i, node in enumerate(place)}
        return [[number[j] for j in dag.parents(node)] for node in place]

    ours = hill_climb(X, cards).score
    found = {
        "fastgen": ours,
        "fastgen, tabu=0: the first optimum": hill_climb(X, cards, tabu=0).score,
        "fastgen, tabu=10, 200 restarts": hill_climb(X, cards, tabu=10, n_restarts=200, random_state=0).score,
        "pyAgrum": score_network(X, parents_of(theirs()), cards),
        "the network itself": score_network(X, network.parents, cards),
    }
    assert ours >= found["pyAgrum"] - 1e-6
    record = versus(
        f"structure of alarm, {len(X)} rows (seed {seed}), BIC",
        Side(lambda: hill_climb(X, cards), lambda result: min(0.0, score_network(X, result.parents, cards) - ours)),
        {"pyAgrum": Side(theirs, lambda dag: max(0.0, score_network(X, parents_of(dag), cards) - ours))},
        atol=1e-6,
        targets={("pyAgrum",): target},
    )
    assert quick or record is None or record["ratio"]["pyAgrum"] >= target
    for name, value in found.items():
        table(f"Structure of alarm, {len(X)} rows (seed {seed}): score", ["", "BIC"], [name, f"{value:.1f}"])
