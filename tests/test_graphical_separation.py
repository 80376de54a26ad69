"""d-separation, Markov blankets, orders of directed graphs; how they are drawn."""

import os
import re
import subprocess
import sys
from itertools import chain, combinations, product

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from fastgen.graphical import NetworkError
from fastgen.graphical._plot import layered_layout, plot, to_dot
from fastgen.graphical._separation import (
    ancestors,
    children,
    d_connected,
    d_separated,
    descendants,
    markov_blanket,
    moral_graph,
    topological_order,
)

matplotlib.use("Agg")

SPRINKLER = ((), (0,), (0,), (1, 2))  # cloudy, sprinkler, rain, wet
STUDENT = ((), (), (0, 1), (1,), (2,))  # difficulty, intelligence, grade, SAT, letter (Koller & Friedman, figure 3.4)


def all_graphs(n):
    """Every directed acyclic graph on n nodes in which parents have lower numbers: all of them, up to names."""
    subsets = [list(chain.from_iterable(combinations(range(i), k) for k in range(i + 1))) for i in range(n)]
    return product(*subsets)


def random_graph(rng, n, density):
    """A random directed acyclic graph, whose numbers are in no order."""
    names = rng.permutation(n)
    parents = [()] * n
    for i in range(n):
        parents[names[i]] = tuple(int(names[j]) for j in range(i) if rng.random() < density)
    return tuple(parents)


def separated_by_moral_graph(parents, x, y, given):
    """No path in the moral graph of the ancestors of all three, without the given (Lauritzen et al. 1990)."""
    kept = ancestors(parents, {*x, *y, *given})
    small = [tuple(parents[i]) if i in kept else () for i in range(len(parents))]
    near = {i: set() for i in range(len(parents))}
    for i, j in moral_graph(small):
        near[i].add(j)
        near[j].add(i)
    reached = set(x)
    while True:
        more = {j for i in reached for j in near[i]} - reached - set(given)
        if not more:
            return reached.isdisjoint(y)
        reached |= more


def check_against_moral_graph(parents):
    n = len(parents)
    for k in range(n + 1):
        for given in combinations(range(n), k):
            for x in set(range(n)) - set(given):
                found = d_connected(parents, [x], given)
                rest = set(range(n)) - set(given) - {x}
                assert found <= rest
                for y in rest:
                    assert (y not in found) == separated_by_moral_graph(parents, [x], [y], given)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_d_separation_of_all_small_graphs(n):
    for parents in all_graphs(n):
        check_against_moral_graph(parents)


@pytest.mark.parametrize("seed", range(12))
def test_d_separation_of_random_graphs(seed):
    rng = np.random.default_rng(seed)
    check_against_moral_graph(random_graph(rng, 6, rng.uniform(0.2, 0.7)))


def test_d_separation_of_sets():
    rng = np.random.default_rng(5)
    outcomes = []
    for _ in range(400):
        parents = random_graph(rng, 9, 0.25)
        role = rng.integers(0, 4, 9)
        x, y, given = (np.flatnonzero(role == r).tolist() for r in range(3))
        outcomes.append(d_separated(parents, x, y, given))
        assert outcomes[-1] == separated_by_moral_graph(parents, x, y, given) == d_separated(parents, y, x, given)
    assert 20 < sum(outcomes) < 380


def test_textbook():
    assert not d_separated(SPRINKLER, [1], [2])
    assert d_separated(SPRINKLER, [1], [2], [0])
    assert not d_separated(SPRINKLER, [1], [2], [0, 3])
    assert d_separated(SPRINKLER, [0], [3], [1, 2])
    # Koller and Friedman, section 3.3.1: D and S; the letter opens the way from D to I
    assert d_separated(STUDENT, [0], [3])
    assert not d_separated(STUDENT, [0], [3], [4])
    assert d_separated(STUDENT, [0], [3], [4, 1])
    assert d_connected(STUDENT, [0]) == {2, 4}
    assert d_connected(STUDENT, [0], [4]) == {1, 2, 3}


def test_blankets_separate():
    rng = np.random.default_rng(1)
    for _ in range(50):
        parents = random_graph(rng, 10, 0.3)
        moral = moral_graph(parents)
        for node in range(10):
            blanket = markov_blanket(parents, node)
            assert blanket == {i + j - node for i, j in moral if node in (i, j)}
            assert d_connected(parents, [node], blanket) == set()
            for one in blanket:  # none can be left out
                assert d_connected(parents, [node], blanket - {one})
    assert markov_blanket(STUDENT, 1) == {0, 2, 3}


def test_ancestors_and_orders():
    rng = np.random.default_rng(2)
    for _ in range(50):
        parents = random_graph(rng, 12, 0.2)
        A = np.zeros((12, 12), int)
        for child, some in enumerate(parents):
            A[list(some), child] = 1
        reach = np.linalg.matrix_power(A + np.eye(12, dtype=int), 12) > 0
        for node in range(12):
            assert ancestors(parents, [node]) == set(np.flatnonzero(reach[:, node]))
            assert descendants(parents, [node]) == set(np.flatnonzero(reach[node]))
            assert children(parents)[node] == np.flatnonzero(A[node]).tolist()
        order = topological_order(parents)
        assert sorted(order) == list(range(12))
        position = np.argsort(order)
        assert all(position[p] < position[c] for c, some in enumerate(parents) for p in some)
    assert topological_order(()) == ()
    assert topological_order(((2,), (), ())) == (1, 2, 0)
    assert ancestors(SPRINKLER, []) == set()
    assert moral_graph(SPRINKLER) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]


def test_cycles_are_named():
    with pytest.raises(NetworkError, match="cycle: 'b' -> 'c' -> 'b'") as caught:
        topological_order(((), (2, 0), (1,), (2,)), "abcd")
    assert caught.value.node == 1
    with pytest.raises(NetworkError, match="cycle: 0 -> 0"):
        topological_order(((0,),))
    with pytest.raises(NetworkError, match="cycle: 1 -> 2 -> 3 -> 1"):
        topological_order(((1,), (3,), (1,), (2,)))


def test_sets_must_be_disjoint():
    for x, y, given in [([0], [0], []), ([0], [1], [1]), ([0], [1], [0])]:
        with pytest.raises(ValueError, match="disjoint"):
            d_separated(SPRINKLER, x, y, given)


def test_large_graphs():
    chain_graph = ((), *((i,) for i in range(20_000)))
    assert d_connected(chain_graph, [0], [15_000]) == set(range(1, 15_000))
    assert not d_separated(chain_graph, [0], [20_000])
    assert topological_order(chain_graph)[-1] == 20_000


# ---- pictures ------------------------------------------------------------------------------------------------------

FAKE_DOT = """#!{python}
import re, sys
text = sys.stdin.read()
assert sys.argv[1:] == ["-Tplain"]
print("graph 1 3 3")
for k in re.findall(r"n([0-9]+) \\[", text):
    print(f'node n{{k}} {{int(k) * 2}} {{-int(k)}} 0.75 0.5 "any \\\\"name" solid box black lightgrey')
for a, b in re.findall(r"n([0-9]+) -> n([0-9]+)", text):
    print(f"edge n{{a}} n{{b}} 4 {{2 * int(a)}} {{-int(a)}} 0 0 1 1 {{2 * int(b)}} {{-int(b)}} solid black")
print("stop")
"""


def arcs_of(parents):
    return [(p, c) for c, some in enumerate(parents) for p in some]


@pytest.fixture
def no_dot(monkeypatch):
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def fake_dot(tmp_path, monkeypatch):
    def install(text=FAKE_DOT):
        path = tmp_path / "dot"
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    if os.name == "nt":
        pytest.skip("needs scripts that begin with #!")
    return install


@pytest.mark.parametrize("seed", range(8))
def test_layers(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    parents = random_graph(rng, n, 3 / n)
    arcs = arcs_of(parents)
    places, routes = layered_layout(n, arcs)
    assert list(routes) == arcs
    for (a, b), route in routes.items():
        np.testing.assert_array_equal(route[[0, -1]], places[[a, b]])
        np.testing.assert_array_equal(np.diff(route[:, 1]), -1)  # downwards, a layer at a time
    points = np.concatenate([places, *(route[1:-1] for route in routes.values())])
    for y in np.unique(points[:, 1]):
        assert np.diff(np.sort(points[points[:, 1] == y, 0])).min(initial=1) > 1 - 1e-9  # no route through a node
    assert layered_layout(0, [])[0].shape == (0, 2)


def test_plot(no_dot, tmp_path):
    names = ["cloudy", "$x_1$ sprinkler", 'a "rain" \\', 4]
    ax = plot(names, arcs_of(SPRINKLER), labels={(0, 1): 0.5}, node_color=["white", "C0", (1, 0, 0), "0.8"])
    assert [t.get_text().replace(r"\$", "$") for t in ax.texts if t.get_text()] == [*map(str, names), "0.5"]
    ax.figure.savefig(tmp_path / "net.png")
    axes = Figure().add_subplot()
    assert (
        plot("abcd", arcs_of(SPRINKLER), axes, directed=False, layout={0: (0, 0), 1: (1, 0), 2: (0, 1), 3: (1, 1)})
        is axes
    )
    assert len(axes.texts) == 4  # no arrows
    axes.figure.canvas.draw()
    plot([], []).figure.savefig(tmp_path / "empty.svg")
    plot("a", []).figure.savefig(tmp_path / "one.svg")
    with pytest.raises(FileNotFoundError, match="graphviz"):
        plot("ab", [(0, 1)], layout="dot")
    with pytest.raises(ValueError, match="layout"):
        plot("ab", [(0, 1)], layout="circle")


def test_arrows_end_at_boxes(no_dot):
    ax = plot(["a", "a long name"], [(0, 1)])
    ax.figure.canvas.draw()
    box = ax.texts[1].get_bbox_patch().get_window_extent()
    tip = ax.texts[2].arrow_patch.get_path().vertices
    tips = ax.texts[2].arrow_patch.get_window_extent()
    assert len(tip)
    assert abs(tips.y0 - box.y1) < 2  # pixels


def test_plot_by_dot(fake_dot):
    fake_dot()
    ax = plot("abcd", arcs_of(SPRINKLER))
    assert [t.get_position() for t in ax.texts[:4]] == [(0, 0), (2, -1), (4, -2), (6, -3)]
    ax.figure.canvas.draw()
    fake_dot("#!{python}\nraise SystemExit(1)\n")
    with pytest.raises(RuntimeError, match="dot failed"):
        plot("ab", [(0, 1)], layout="dot")
    places = [t.get_position() for t in plot("ab", [(0, 1)]).texts[:2]]
    np.testing.assert_array_equal(places, layered_layout(2, [(0, 1)])[0])


def test_dot_text():
    names = ["plain", 'say "hi"', "back\\slash\\", "two\nlines", "ünï"]
    text = to_dot(names, [(0, 1), (1, 2)], {(0, 1): 'w "1"'}, attributes="rankdir=LR;")
    assert text.splitlines()[:2] == ["digraph {", "  rankdir=LR;"]
    labels = re.findall(r'label="((?:[^"\\]|\\.)*)"\];', text)
    decoded = [re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], label) for label in labels]
    assert decoded == [*names, 'w "1"']
    assert "  n1 -> n2;" in text
    assert to_dot("ab", [(0, 1)], directed=False).splitlines()[0::3] == ["graph {", "  n0 -- n1;"]


def test_matplotlib_is_lazy():
    code = "import sys, fastgen.graphical._plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
