"""Structure learning against pyAgrum and pgmpy: hill-climbing with BIC on rows of alarm."""

import warnings

import graphical_peers as peers
import numpy as np
import pytest
from versus import Side

from fastgen.graphical import BayesianNetwork, hill_climb, score_network


@pytest.mark.parametrize(("n", "target"), [(10_000, 3), (100_000, 10)])
@pytest.mark.parametrize(("title", "options"), [("hill-climbing", {}), ("tabu", {"tabu": 400})])
def test_hill_climbing(versus, table, size, quick, n, target, title, options):
    """Scores (BIC, of what was learned) must be near each other; the table says whose are better.

    pyAgrum has its database already: to make it from a data frame takes seconds.
    """
    gum, pandas = peers.load("pyagrum"), pytest.importorskip("pandas")
    network = peers.network("alarm")
    X = BayesianNetwork.from_network(network).sample(size(n), 0, codes=True)
    cards, names = network.cardinalities, network.names
    labels = [np.array(states, object) for states in network.states]
    frame = pandas.DataFrame({name: labels[i][X[:, i]] for i, name in enumerate(names)})
    found = {}

    def score(name, parents):
        found[name] = score_network(X, parents, cards)
        return found[name]

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

    versus(
        f"structure of alarm, {len(X)} rows, BIC, {title}",
        Side(lambda: hill_climb(X, cards, **options), lambda result: score(f"fastgen, {title}", result.parents)),
        {"pyAgrum": Side(theirs, lambda dag: score("pyAgrum", parents_of(dag)))},
        rtol=0.05,
        targets={("pyAgrum",): target},
    )
    if title == "tabu":
        found["fastgen, tabu, 200 restarts"] = hill_climb(X, cards, tabu=10, n_restarts=200, random_state=0).score
        found["the network itself"] = score_network(X, network.parents, cards)
    for name, value in found.items():
        table(f"Structure of alarm, {len(X)} rows: score", ["", "BIC"], [name, f"{value:.1f}"])
