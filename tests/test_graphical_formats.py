"""Factors, networks, and the files of graphical models.

Published networks are looked for in the folder that FASTGEN_TEST_DATA names, or in ../shared/data beside the project;
what needs them is skipped where they are not.
"""

import copy
import dataclasses
import gzip
import io
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastgen.graphical import formats
from fastgen.graphical._factors import SUM_TOLERANCE, DiscreteNetwork, Factor, FactorGraph, NetworkError
from fastgen.graphical.formats import FormatError

READERS = {
    "bif": formats.read_bif,
    "dsl": formats.read_dsl,
    "net": formats.read_net,
    "uai": formats.read_uai,
    "xdsl": formats.read_xdsl,
    "xmlbif": formats.read_xmlbif,
}
WRITERS = {
    "bif": formats.write_bif,
    "dsl": formats.write_dsl,
    "net": formats.write_net,
    "uai": formats.write_uai,
    "xdsl": formats.write_xdsl,
    "xmlbif": formats.write_xmlbif,
}


@pytest.fixture(scope="module")
def data():
    """The folder of published networks."""
    folder = Path(os.environ.get("FASTGEN_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "bif").is_dir():
        pytest.skip(f"no published networks in {folder}; FASTGEN_TEST_DATA names another folder")
    return folder


def read(format, text):
    return READERS[format](io.StringIO(text))


def written(format, model):
    stream = io.StringIO()
    WRITERS[format](model, stream)
    return stream.getvalue()


def sprinkler():
    return DiscreteNetwork.of(
        {"rain": ["no", "yes"], "sprinkler": ["off", "on"], "grass": ["dry", "damp", "wet"]},
        {
            "rain": [0.8, 0.2],
            "sprinkler": [[0.6, 0.4], [0.99, 0.01]],
            "grass": [[[1, 0, 0], [0.1, 0.3, 0.6]], [[0.2, 0.3, 0.5], [0.01, 0.09, 0.9]]],
        },
        {"sprinkler": ["rain"], "grass": ["rain", "sprinkler"]},
    )


def by_name(network):
    """Each node by name: states, and its table with parents in the order of their names."""
    nodes = {}
    for name, states, parents, table in zip(
        network.names, network.states, network.parents, network.tables, strict=True
    ):
        order = sorted(range(len(parents)), key=lambda axis: network.names[parents[axis]])
        names = [network.names[parents[axis]] for axis in order]
        nodes[name] = states, names, table.transpose([*order, len(parents)])
    return nodes


def assert_same_nodes(a, b, atol=0.0):
    a, b = by_name(a), by_name(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name][:2] == b[name][:2], name
        np.testing.assert_allclose(a[name][2], b[name][2], rtol=0, atol=atol, err_msg=name)


def joint(graph):
    """p(x) for all x at once."""
    operands = [operand for factor in graph.factors for operand in (factor.table, list(factor.scope))]
    return np.einsum(*operands, list(range(graph.n_variables)), optimize="greedy")


# ---- factors and graphs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "table", "match"),
    [
        ((0, 0), np.ones((2, 2)), "repeats variable 0"),
        ((-1,), np.ones(2), "negative variable"),
        ((0,), np.ones((2, 2)), "one axis for each"),
        ((0,), [1.0, -0.1], r"not negative, got -0.1 at \(1,\)"),
        ((0,), [np.nan, 1.0], r"got nan at \(0,\)"),
        ((0,), [1.0, np.inf], r"got inf at \(1,\)"),
        ((0,), ["a", "b"], "real numbers"),
        ((0.5,), [1.0, 1.0], "integers"),
    ],
)
def test_factors_are_checked(scope, table, match):
    with pytest.raises((ValueError, TypeError), match=match):
        Factor(scope, table)


@pytest.mark.parametrize(
    ("cardinalities", "factors", "match"),
    [
        ([2, 0], [], "variable 1 must have at least one state"),
        ([2], [([1], [1, 1])], r"factor 0 has scope \(1,\), but there are 1 variables"),
        ([2, 3], [([0, 1], np.ones((3, 2)))], r"shape \(2, 3\), got \(3, 2\)"),
    ],
)
def test_graphs_are_checked(cardinalities, factors, match):
    with pytest.raises(ValueError, match=match):
        FactorGraph.of(cardinalities, factors)


def test_factors_are_values():
    table = np.arange(6.0).reshape(2, 3)
    factor = Factor((1, 0), table)
    table[0, 0] = 7
    assert factor.table[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        factor.table[0, 0] = 1
    assert Factor((1, 0), factor.table).table is factor.table
    assert Factor((0, 1), table.T).table.flags.c_contiguous
    assert factor == Factor((1, 0), np.arange(6).reshape(2, 3)) != Factor((0, 1), np.arange(6).reshape(2, 3))
    assert hash(factor) == hash(Factor([1, 0], factor.table))
    for twin in (copy.deepcopy(factor), pickle.loads(pickle.dumps(factor))):
        assert twin == factor
        assert not twin.table.flags.writeable
    graph = FactorGraph.of([3, 2], [factor, ([], 2.0)])
    assert graph.n_variables == 2
    assert graph.factors[1].table.shape == ()
    assert pickle.loads(pickle.dumps(graph)) == graph


# ---- networks --------------------------------------------------------------------------------------------------------


def test_network():
    network = sprinkler()
    assert network.cardinalities == (2, 2, 3)
    assert network.arcs == ((0, 1), (0, 2), (1, 2))
    assert network.order == (0, 1, 2)
    assert network.n_parameters == 1 + 2 + 8
    graph = network.factor_graph()
    assert [factor.scope for factor in graph.factors] == [(0,), (0, 1), (0, 1, 2)]
    assert joint(graph).sum() == pytest.approx(1, rel=1e-15)
    assert joint(graph)[1, 0, 2] == pytest.approx(0.2 * 0.99 * 0.5, rel=1e-15)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), dataclasses.replace(network)):
        assert twin == network
        assert hash(twin) == hash(network)
    renamed = dataclasses.replace(network, names=("a", "b", "c"))
    assert renamed != network
    assert renamed.order == network.order


def test_order_is_the_lowest_that_goes():
    half = [0.5, 0.5]
    network = DiscreteNetwork(
        tuple("abcd"), (("0", "1"),) * 4, ((3,), (), (0, 1), ()), ([half, half], half, [[half] * 2] * 2, half)
    )
    assert network.order == (1, 3, 0, 2)


def test_empty_network():
    network = DiscreteNetwork((), (), (), ())
    assert network.order == network.arcs == ()
    assert network.n_parameters == 0
    assert network.factor_graph() == FactorGraph((), ())


@pytest.mark.parametrize(
    ("changes", "node", "match"),
    [
        ({"names": ("a", "a", "c")}, 1, "two nodes called 'a'"),
        ({"names": ("a", "", "c")}, 1, "not empty"),
        ({"names": ("a", "b\n", "c")}, 1, "no control characters"),
        ({"names": ("a", "b")}, None, "must have one entry for each of the 2 names"),
        ({"states": (("x",), ("y", "y"), ("z",))}, 1, "node 'sprinkler' has two states called 'y'"),
        ({"states": (("x", "y"), (), ("z",))}, 1, "node 'sprinkler' must have at least one state"),
        ({"parents": ((), (0,), (0, 3))}, 2, "node 'grass' has parent 3, but there are 3 nodes"),
        ({"parents": ((), (0,), (0, 0))}, 2, "node 'grass' has parent 'rain' twice"),
        ({"parents": ((2,), (0,), (0, 1))}, 0, "there is a cycle: 'rain' -> 'grass' -> 'rain'"),
        ({"parents": ((1,), (2,), (0,))}, 0, "there is a cycle: 'rain' -> 'grass' -> 'sprinkler' -> 'rain'"),
        ({"parents": ((), (1,), (0, 1))}, 1, "there is a cycle: 'sprinkler' -> 'sprinkler'"),
        ({"parents": ((), (), (0, 1))}, 1, r"table of node 'sprinkler' must have shape \(2,\)"),
    ],
)
def test_networks_are_checked(changes, node, match):
    with pytest.raises(NetworkError, match=match) as caught:
        dataclasses.replace(sprinkler(), **changes)
    assert caught.value.node == node
    assert pickle.loads(pickle.dumps(caught.value)).node == node


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ([0.5, 0.2, 0.2], r"'grass' given rain='yes', sprinkler='off' sum to 0.8999999999999999, not to 1 within 0.01"),
        ([0.5, 0.6, -0.1], r"table of node 'grass' must be finite and not negative, got -0.1 at \(1, 0, 2\)"),
        ([0.5, np.nan, 0.5], r"got nan at \(1, 0, 1\)"),
        ([np.inf, 0, 0], r"got inf at \(1, 0, 0\)"),
        ([1e308, 1e308, 0], "sum to inf"),
    ],
)
def test_tables_are_checked(row, match):
    network = sprinkler()
    table = network.tables[2].copy()
    table[1, 0] = row
    with pytest.raises(NetworkError, match=match) as caught:
        dataclasses.replace(network, tables=(*network.tables[:2], table))
    assert caught.value.node == 2
    assert caught.value.configuration == (1, 0)


def test_sums_have_a_tolerance():
    states = {"a": ["x", "y", "z"]}
    assert DiscreteNetwork.of(states, {"a": [0.33, 0.33, 0.33]}).tables[0].tolist() == [0.33, 0.33, 0.33]
    with pytest.raises(NetworkError, match=r"sum to 0\.98"):
        DiscreteNetwork.of(states, {"a": [0.33, 0.33, 0.32]})
    assert SUM_TOLERANCE == 0.01


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (({"a": ["x"]}, {"a": [1], "b": [1]}), "tables names 'b', which is no node"),
        (({"a": ["x"]}, {}), "tables has no entry for node 'a'"),
        (({"a": ["x"]}, {"a": [1]}, {"b": ["a"]}), "parents names 'b', which is no node"),
        (({"a": ["x"]}, {"a": [[1]]}, {"a": ["b"]}), "node 'a' has a parent 'b', which is no node"),
    ],
)
def test_unknown_names(arguments, match):
    with pytest.raises(NetworkError, match=match):
        DiscreteNetwork.of(*arguments)


def test_normalised():
    third = [0.3333333] * 3
    network = DiscreteNetwork.of(
        {"a": "xyz", "b": "xyz"}, {"a": [0.2, 0.3, 0.5], "b": [third, [0.1, 0.2, 0.7], third]}, {"b": ["a"]}
    )
    scaled = network.normalised()
    assert abs(joint(network.factor_graph()).sum() - 1) > 1e-8
    assert joint(scaled.factor_graph()).sum() == pytest.approx(1, abs=4e-16)
    assert scaled.tables[0] is network.tables[0]
    assert scaled.tables[1][1].tolist() == [0.1, 0.2, 0.7]
    assert scaled.normalised() == scaled


# ---- round trips -----------------------------------------------------------------------------------------------------

FIT = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
ANY_NAME = st.text(FIT, min_size=1, max_size=8) | st.text('"\\/*%{}()[],;|=<>& ', min_size=1, max_size=6)
WORD = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
NAMES = {  # of nodes and states, as far as the format can hold them
    "bif": (ANY_NAME, ANY_NAME),
    "dsl": (WORD, WORD),
    "net": (WORD, ANY_NAME),
    "xdsl": 2 * (ANY_NAME.filter(lambda name: not re.search(r"\s", name)),),
    "xmlbif": 2 * (ANY_NAME.filter(lambda name: name == name.strip()),),
}


@st.composite
def networks(draw, node_names=WORD, state_names=WORD):
    names = draw(st.lists(node_names, min_size=1, max_size=5, unique=True))
    states = [draw(st.lists(state_names, min_size=1, max_size=4, unique=True)) for _ in names]
    rank = draw(st.permutations(range(len(names))))
    parents, tables = [], []
    for node, labels in enumerate(states):
        before = [other for other in range(len(names)) if rank[other] < rank[node]]
        parents.append(draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else [])
        shape = (*(len(states[parent]) for parent in parents[-1]), len(labels))
        weights = draw(hnp.arrays(np.float64, shape, elements=st.just(0.0) | st.floats(1e-300, 1)))
        weights[weights.sum(axis=-1) == 0] = 1
        tables.append(weights / weights.sum(axis=-1, keepdims=True))
    return DiscreteNetwork(tuple(names), tuple(map(tuple, states)), tuple(map(tuple, parents)), tuple(tables))


def assert_same_bits(a, b):
    assert a.states == b.states
    assert a.parents == b.parents
    assert [table.tobytes() for table in a.tables] == [table.tobytes() for table in b.tables]


@pytest.mark.parametrize("format", NAMES)
@given(data=st.data())
def test_round_trip(format, data):
    network = data.draw(networks(*NAMES[format]))
    again = read(format, written(format, network))
    if format in ("dsl", "xdsl"):  # these list parents first
        order = network.order
        numbers = {node: number for number, node in enumerate(order)}
        network = DiscreteNetwork(
            tuple(network.names[node] for node in order),
            tuple(network.states[node] for node in order),
            tuple(tuple(numbers[parent] for parent in network.parents[node]) for node in order),
            tuple(network.tables[node] for node in order),
        )
    assert again.names == network.names
    assert_same_bits(again, network)


@given(networks())
def test_round_trip_of_bayes(network):
    again = read("uai", written("uai", network))
    assert again.parents == network.parents
    assert again.cardinalities == network.cardinalities
    assert [table.tobytes() for table in again.tables] == [table.tobytes() for table in network.tables]
    assert again.names == tuple(f"x{node}" for node in range(len(network.names)))
    assert again.states[0] == tuple(map(str, range(network.cardinalities[0])))


@st.composite
def graphs(draw):
    cardinalities = draw(st.lists(st.integers(1, 4), max_size=5))
    factors = []
    for _ in range(draw(st.integers(0, 4))):
        scope = draw(st.permutations(range(len(cardinalities))))[: draw(st.integers(0, 3))]
        shape = tuple(cardinalities[variable] for variable in scope)
        factors.append((scope, draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1e300)))))
    return FactorGraph.of(cardinalities, factors)


@pytest.mark.parametrize(
    ("format", "text", "line", "column"),
    [
        ("bif", "", 1, 1),
        ("bif", "\n// nothing\n", 1, 1),
        ("net", "", 1, 1),
        ("net", "net { }\n", 1, 8),
        ("dsl", "net X { };", 1, 11),
        ("xmlbif", "<BIF>\n<NETWORK></NETWORK></BIF>", 2, 1),
        ("xmlbif", "<BIF>\n<NETWORK><NAME>x</NAME></NETWORK></BIF>", 2, 1),
        ("xdsl", "<smile><nodes></nodes></smile>", 1, 8),
        ("uai", "BAYES 0 0", 1, 1),
    ],
)
def test_networks_without_nodes_are_malformed(format, text, line, column):
    with pytest.raises(FormatError, match="expected a network of at least one node, found none") as caught:
        read(format, text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_bif_of_a_network_block_alone():
    """The grammar has a declaration of the network, then any number of blocks, none too."""
    assert read("bif", "network x { property y; }").names == ()


@pytest.mark.parametrize(
    ("format", "start", "unit"),
    [
        ("bif", "network x { property ", '"a\\'),
        ("bif", "network x { property ", '"\\\\\\'),
        ("bif", "network x { property // \n", '" \\'),
        ("bif", "network x { property ", "/* "),
        ("dsl", "net X { A = ", '"a\\'),
        ("dsl", "net X { A = // \n", '"a\\'),
        ("dsl", "net X { A = ", "/* "),
        ("net", "net { A = ", '"a\\'),
        ("net", "net { A = % \n", '"a\\'),
    ],
)
def test_what_is_not_closed_is_looked_for_once(format, start, unit):
    """200,000 begins of strings or comments: with a search for each end it would take an hour."""
    with pytest.raises(FormatError, match="found the end"):
        read(format, start + unit * 200_000)


def test_comments_that_are_not_closed():
    for format, text, column in (
        ("bif", "network x { } /* variable", 15),
        ("bif", "network x { } /*/", 15),
        ("dsl", "net X { }; /*", 12),
    ):
        with pytest.raises(FormatError, match=r"expected '\*/' after this '/\*', found the end") as caught:
            read(format, text)
        assert (caught.value.line, caught.value.column) == (1, column)


def test_lone_quotes_in_properties():
    """A string ends with its line; outside of strings a backslash makes a quote part of a word."""
    text = """network x { property a " b \\" c; // a comment
property "d \\" ; } /* no comment";
property 5" x 3\\"; }
variable a\\"b { type discrete { x } }
probability ( a\\"b ) { table 1; }"""
    network = read("bif", text)
    assert network.names == ('a\\"b',)
    assert read("bif", written("bif", network)) == network


def test_tables_that_are_not_in_the_file_have_a_bound_in_all():
    """20 parents make 2^21 entries: eight such tables are the 2^24 that are allowed."""
    names = [f"n{number}" for number in range(20)]
    lines = [f"variable {name} {{ type discrete {{ a, b }} }} probability ({name}) {{ table 1 0; }}" for name in names]
    child = "variable {0} {{ type discrete {{ a, b }} }} probability ({0} | {1}) {{ default 1 0; }}"
    children = [child.format(f"c{number}", " ".join(names)) for number in range(9)]
    network = read("bif", "\n".join(lines + children[:8]))
    assert sum(table.size for table in network.tables[20:]) == 2**24
    with pytest.raises(FormatError, match="too many that are not in the file") as caught:
        read("bif", "\n".join(lines + children))
    assert caught.value.line == 29


def test_deterministic_tables_have_a_bound():
    """A file of 100 kB that would make a table of 6000 x 6000 entries."""
    states = "".join(f'<state id="s{number}"/>' for number in range(6000))
    nodes = f'<cpt id="a">{states}<probabilities>1{" 0" * 5999}</probabilities></cpt>'
    nodes += f'<deterministic id="b">{states}<parents>a</parents>'
    nodes += f"<resultingstates>{'s0 ' * 6000}</resultingstates></deterministic>"
    with pytest.raises(FormatError, match="too many that are not in the file"):
        read("xdsl", f"<smile><nodes>{nodes}</nodes></smile>")


@given(graphs())
def test_round_trip_of_markov(graph):
    again = read("uai", written("uai", graph))
    assert again.cardinalities == graph.cardinalities
    assert [factor.scope for factor in again.factors] == [factor.scope for factor in graph.factors]
    for mine, theirs in zip(graph.factors, again.factors, strict=True):
        np.testing.assert_array_equal(mine.table, theirs.table)


def read_or_refuse(format, stream, n_newlines):
    """Read what may be malformed; a FormatError must stand within the text, any other is raised."""
    refused = None
    try:
        READERS[format](stream)
    except FormatError as error:
        refused = error
    assert refused is None or (1 <= refused.line <= n_newlines + 1 and refused.column >= 1)


@pytest.mark.parametrize("format", READERS)
@given(data=st.data())
def test_damaged_files(format, data):
    """What is cut off, deleted or exchanged leaves a file that is read, or a FormatError: nothing else."""
    text = written(format, data.draw(networks()))
    damage = data.draw(st.sampled_from(["cut", "delete", "exchange", "insert"]))
    if damage == "cut":
        text = text[: data.draw(st.integers(0, len(text)))]
    for _ in range(data.draw(st.integers(1, 4)) if damage != "cut" else 0):
        at = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(1, 4)) if damage != "insert" else 0
        instead = (
            "" if damage == "delete" else data.draw(st.text('01.e-+ "{}()[],;|=<>/&\n#%\\x\0\x85\u0660', max_size=3))
        )
        text = text[:at] + instead + text[at + length :]
    read_or_refuse(format, io.StringIO(text) if damage != "exchange" else io.BytesIO(text.encode()), text.count("\n"))


# ---- sources and targets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".bif", ".bifxml", ".XML", ".xmlbif", ".net", ".dsl", ".xdsl", ".uai"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_files(tmp_path, suffix, packed):
    network = sprinkler()
    path = tmp_path / f"a.b{suffix}{packed}"
    formats.write_network(network, path)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == bool(packed)
    again = formats.read_network(str(path))
    if suffix == ".uai":
        assert again.parents == network.parents
        assert all(map(np.array_equal, again.tables, network.tables))
    else:
        assert again == network
    first = path.read_bytes()
    formats.write_network(network, path)
    assert path.read_bytes() == first
    with path.open("rb") as stream:
        assert READERS[{"bifxml": "xmlbif", "xml": "xmlbif"}.get(suffix[1:].lower(), suffix[1:])](stream)


def test_unknown_suffix(tmp_path):
    for name in ("a.txt", "a", "a.gz"):
        with pytest.raises(ValueError, match="must end in one of"):
            formats.read_network(tmp_path / name)
        with pytest.raises(ValueError, match="must end in one of"):
            formats.write_network(sprinkler(), tmp_path / name)
    with pytest.raises(FileNotFoundError):
        formats.read_bif(tmp_path / "none.bif")


def test_undirected_models_are_no_networks(tmp_path):
    path = tmp_path / "a.uai"
    formats.write_uai(FactorGraph.of([2], [([0], [1, 3])]), path)
    with pytest.raises(FormatError, match="expected 'BAYES', found 'MARKOV'"):
        formats.read_network(path)


def test_errors_name_the_place(tmp_path):
    path = tmp_path / "a.bif"
    path.write_text("network a {\n}\n  variabel b {\n}\n")
    with pytest.raises(FormatError) as caught:
        formats.read_bif(path)
    error = caught.value
    assert (error.source, error.line, error.column) == (str(path), 3, 3)
    assert str(error) == f"{path}, line 3, column 3: expected 'network', 'variable' or 'probability', found 'variabel'"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(FormatError, match=r"^<stream>, line 1, column 1: "):
        formats.read_bif(io.StringIO("x"))


def test_broken_gzip(tmp_path):
    path = tmp_path / "a.bif.gz"
    whole = gzip.compress(written("bif", sprinkler()).encode())
    for broken in (whole[:2], whole[:9], whole[:-1], whole[:30] + b"\0\0\0" + whole[33:]):
        path.write_bytes(broken)
        with pytest.raises(FormatError, match="expected a whole gzip file"):
            formats.read_network(path)


def test_encodings():
    text = written("bif", dataclasses.replace(sprinkler(), names=("pluie", "arrosé", "herbe")))
    for content in (text.encode(), text.encode("latin-1"), b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()):
        assert formats.read_bif(io.BytesIO(content)).names == ("pluie", "arrosé", "herbe")
    text = written("xmlbif", dataclasses.replace(sprinkler(), names=("pluie", "arrosé", "herbe")))
    latin = text.replace("UTF-8", "ISO-8859-1")
    for content in (text.encode(), b"\xef\xbb\xbf" + text.encode(), latin.encode("latin-1")):
        assert formats.read_xmlbif(io.BytesIO(content)).names == ("pluie", "arrosé", "herbe")
    assert formats.read_xmlbif(io.StringIO(latin)).names == ("pluie", "arrosé", "herbe")
    with pytest.raises(FormatError, match="encoding"):
        formats.read_xmlbif(io.BytesIO(text.replace("UTF-8", "no-such").encode()))


@pytest.mark.parametrize(
    ("format", "name", "match"),
    [
        ("net", "a-b", r"\.net file cannot hold the node 'a-b'.*dataclasses.replace"),
        ("dsl", "a b", r"\.dsl file cannot hold the node 'a b'"),
        ("xdsl", "a b", r"\.xdsl file cannot hold the node 'a b'"),
        ("xmlbif", "a ", "cannot hold the node 'a '"),
        ("xmlbif", "a\uffff", "XML cannot hold the node"),
    ],
)
def test_names_that_do_not_fit(tmp_path, format, name, match):
    network = dataclasses.replace(sprinkler(), names=("rain", name, "grass"))
    with pytest.raises(ValueError, match=match):
        WRITERS[format](network, tmp_path / "a")
    assert not list(tmp_path.iterdir())


# ---- BIF -------------------------------------------------------------------------------------------------------------

WILD = """
// A comment: { ( "
network "any name" { property author "it's { mine"; property credal-set constant
}
/* another
   comment } */
probability(c|a,b){
  property function whatever;
  (y, "third one") .25 , 7.5E-1;   // in any order
  ("n <= (1.5)" x/y) 1e0 0 ;
  default 0.5,0.5;
}
VARIABLE a { property "p, q"; type discrete[2] { y, "n <= (1.5)" }; property position = (1, 2); }
variable "b" {type discrete [3]{Transp. x/y "third one"} }
variable c { type discrete { +, "say \\"hi\\" \\\\o/" }; }
probability ( a ) { table 0.1, 0.9; }
probability ( "b" a ) { table 0.1 0.2,0.3 0.3 0.6 0.5; }
"""


def test_bif_in_the_wild():
    network = read("bif", WILD)
    assert network.names == ("a", "b", "c")
    assert network.states == (("y", "n <= (1.5)"), ("Transp.", "x/y", "third one"), ("+", 'say "hi" \\o/'))
    assert network.parents == ((), (0,), (0, 1))
    assert network.tables[0].tolist() == [0.1, 0.9]
    assert network.tables[1].tolist() == [[0.1, 0.3, 0.6], [0.2, 0.3, 0.5]]  # in 'table' own states run slowest
    half = [0.5, 0.5]
    assert network.tables[2].tolist() == [[half, half, [0.25, 0.75]], [half, [1, 0], half]]
    again = read("bif", written("bif", network))
    assert again == network


def test_bif_rows_override_table():
    text = """variable a { type discrete [2] { x, y }; } variable b { type discrete [2] { x, y }; }
    probability ( a ) { table 0.5 0.5; }
    probability ( b | a ) { (y) 0 1; table 0.1 0.2 0.9 0.8; }"""
    assert read("bif", text).tables[1].tolist() == [[0.1, 0.9], [0, 1]]


HEAD = "variable a {\n type discrete [2] { x, y };\n}\nvariable b {\n type discrete [2] { x, y };\n}\n"
ROOT = HEAD + "probability (a) { table 0.5 0.5; }\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "match"),
    [
        ("variable a\n {\n type integer; }", 3, 7, "expected 'discrete'"),
        ("variable a {\n type discrete [3] { x, y };\n}", 2, 22, "expected 3 states, found 2"),
        ("variable a {\n type discrete [two] { x, y };\n}", 2, 17, "expected the number of states, found 'two'"),
        ("variable a {\n type discrete [2] { x, x };\n}", 2, 22, "two states called 'x'"),
        ("variable a {\n type discrete [0] { };\n}", 2, 22, "at least one state"),
        ("variable a {\n}", 1, 10, "variable 'a' has no 'type'"),
        ("variable a {\n kind discrete [2] { x, y };\n}", 2, 2, "expected 'type', 'property' or '}', found 'kind'"),
        ("variable a {\n type discrete [2] { x, y", 2, 26, "expected the name of a state, or '}', found the end"),
        ("variable {\n type discrete [2] { x, y };}", 1, 10, "expected the name of a variable, found '{'"),
        ("network a {\n color blue;\n}", 2, 2, "expected 'property' or '}', found 'color'"),
        (HEAD + "variable a { type discrete { z } }", 7, 10, "two nodes called 'a'"),
        (HEAD, 1, 10, "node 'a' has no distribution"),
        (ROOT, 4, 10, "node 'b' has no distribution"),
        (ROOT + ROOT[len(HEAD) :], 8, 14, "node 'a' has two distributions"),
        (ROOT + "probability (b | c) {\n}", 8, 18, "'c' is no node"),
        (ROOT + "probability (c) {\n}", 8, 14, "'c' is no node"),
        (ROOT + "probability (b | a, a) {\n default 0.5 0.5;}", 8, 14, "node 'b' has parent 'a' twice"),
        (ROOT + "probability (b | b) {\n default 0.5 0.5;}", 8, 14, "there is a cycle: 'b' -> 'b'"),
        (ROOT + "probability (b | a) {\n (x) 0.5 0.5;\n}", 8, 14, r"expected the row \(y\) for 'b', found none"),
        (ROOT + "probability (b | a) {\n}", 8, 14, r"expected the row \(x\)"),
        (ROOT + "probability (b) {\n}", 8, 14, "expected a table for 'b'"),
        (ROOT + "probability (b | a) {\n (x) 0.5 0.5;\n (x) 0 1;\n}", 10, 2, r"row of \(x\) is given twice"),
        (ROOT + "probability (b | a) {\n (x) 0.5 0.5;\n (z) 0 1;\n}", 10, 2, "expected a state of 'a', found 'z'"),
        (ROOT + "probability (b | a) {\n (x) 0.5 0.5;\n (x, y) 0 1;\n}", 10, 2, "the states of 1 parents, found 2"),
        (ROOT + "probability (b | a) {\n (x) 0.5 0.5;\n (y) 0 0.5 0.5;\n}", 10, 2, "expected 2 numbers, found 3"),
        (ROOT + "probability (b | a) {\n (x) 0.5 0.5;\n (y) 0.5 0.6;\n}", 10, 2, "'b' given a='y' sum to 1.1"),
        (ROOT + "probability (b | a) {\n (x) 0.5 0.5;\n (y) -0.5 1.5;\n}", 10, 2, "not negative, got -0.5"),
        (ROOT + "probability (b | a) {\n (x) 0.5 0.5;\n (y) 1e999 1;\n}", 10, 2, "must be finite"),
        (ROOT + "probability (b | a) {\n (x) 0.5, O.5;\n (y) 0 1;\n}", 9, 11, "expected a number or ';', found 'O.5'"),
        (ROOT + "probability (b) { table 0.5\n nan; }", 9, 2, "expected a number or ';', found 'nan'"),
        (ROOT + "probability (b) { table 0.5\n 0_5; }", 9, 2, "expected a number or ';', found '0_5'"),
        (ROOT + "probability (b) { table 0.5 0.5\n }", 9, 2, "expected a number or ';', found '}'"),
        (ROOT + "probability (b) { table 0.5 0.5", 8, 32, "expected ';', found the end"),
        (ROOT + "probability (b) { table 1; }", 8, 19, "expected 2 numbers, found 1"),
        (ROOT + "probability (b) { default 1 0; default 1 0; }", 8, 32, "'b' has two entries 'default'"),
        (ROOT + "probability (b) {\n (x 1 0; }", 9, 11, r"expected '\)', found the end"),
        (ROOT + "probability b {", 8, 13, r"expected '\(', found 'b'"),
    ],
)
def test_malformed_bif(text, line, column, match):
    with pytest.raises(FormatError, match=match) as caught:
        read("bif", text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_bif_tables_have_a_bound():
    names = [f"n{number}" for number in range(45)]
    lines = [f"variable {name} {{ type discrete [2] {{ 0, 1 }}; }}" for name in names]
    lines += [f"probability ({name}) {{ table 1 0; }}" for name in names[1:]]
    given = ", ".join(names[1:])
    for entry, match in (("default 1 0;", "too many"), ("table 1 0;", "numbers, found 2"), ("", r"row \(0, 0, 0")):
        with pytest.raises(FormatError, match=match):
            read("bif", "\n".join([*lines, f"probability (n0 | {given}) {{ {entry} }}"]))
    names = [f"n{number}" for number in range(80)]
    lines = [f"variable {name} {{ type discrete {{ 0 }} }} probability ({name}) {{ table 1; }}" for name in names[1:]]
    last = f"variable n0 {{ type discrete {{ 0 }} }} probability (n0 | {' '.join(names[1:])}) {{ default 1; }}"
    with pytest.raises(FormatError, match="more than 63 parents"):
        read("bif", "\n".join([*lines, last]))


# ---- UAI -------------------------------------------------------------------------------------------------------------


def test_uai_markov():
    """The example of the format's description."""
    text = """c
c comments
MARKOV  # here too
3
2 2 3
2
2 0 1
2 1 2

4
 0.128 0.872
 0.920 0.080
6
 0.210 0.333 0.457
 0.811 0.000 0.189
"""
    graph = read("uai", text)
    assert graph.cardinalities == (2, 2, 3)
    assert graph.factors[0] == Factor((0, 1), [[0.128, 0.872], [0.92, 0.08]])
    assert graph.factors[1] == Factor((1, 2), [[0.21, 0.333, 0.457], [0.811, 0, 0.189]])


def test_uai_bayes():
    network = read("uai", "BAYES 2 2 3 2 2 1 0 1 1 6 .1 .9 .2 .8 .3 .7 3 .2 .3 .5")
    assert network.parents == ((1,), ())
    assert network.tables[0].tolist() == [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    assert network.states == (("0", "1"), ("0", "1", "2"))


@pytest.mark.parametrize(
    ("text", "line", "column", "match"),
    [
        ("", 1, 1, "expected 'MARKOV' or 'BAYES', found the end"),
        ("MARK 1", 1, 1, "expected 'MARKOV' or 'BAYES', found 'MARK'"),
        ("BAYES\n", 1, 6, "expected the number of variables, found the end"),
        ("MARKOV\n2\n2", 3, 2, "expected a cardinality, found the end"),
        ("MARKOV\n2\n2 0\n0", 3, 3, "cardinality of at least 1, found '0'"),
        ("MARKOV\n2\n2 -2\n0", 3, 3, "expected a cardinality, found '-2'"),
        ("MARKOV\n2\n2 2\n1\n2 0 2\n4 1 1 1 1", 5, 5, "expected a variable below 2"),
        ("MARKOV\n2\n2 2\n1\n2 0 0\n4 1 1 1 1", 5, 5, "each once in a scope, found '0'"),
        ("MARKOV\n2\n2 2\n1\n3 0 1 0\n4 1 1 1 1", 5, 1, "size of a scope, at most 2"),
        ("MARKOV\n2\n2 2\n1\n2 0 1\n3 1 1 1", 6, 1, "expected 4, the number of entries of the table, found 3"),
        ("MARKOV\n2\n2 2\n1\n2 0 1\n4 1 1 1", 6, 8, "expected 4 numbers, found 3"),
        ("MARKOV\n2\n2 2\n1\n2 0 1\n4 1 1 x 1", 6, 7, "expected a number, found 'x'"),
        ("MARKOV\n2\n2 2\n1\n2 0 1\n4 1 1 -1 1", 6, 7, "not negative, found '-1'"),
        ("MARKOV\n2\n2 2\n1\n2 0 1\n4 1 1 1 1 1", 6, 11, "expected the end, found '1'"),
        ("BAYES\n2\n2 2\n2\n1 0\n1 0\n2 .5 .5\n2 .5 .5", 6, 1, "node 'x0' has two distributions"),
        ("BAYES\n2\n2 2\n1\n1 0\n2 .5 .5", 3, 3, "node 'x1' has no distribution"),
        ("BAYES\n1\n2\n1\n0\n1 1", 5, 1, "expected a scope with a child"),
        ("BAYES\n2\n2 2\n2\n1 0\n2 0 1\n2 .5 .5\n4\n1 0\n.5 .6", 10, 1, "'x1' given x0='1' sum to 1.1"),
        ("BAYES\n2\n2 2\n2\n2 1 0\n2 0 1\n4 1 0 1 0\n4 1 0 1 0", 5, 1, "cycle: 'x0' -> 'x1' -> 'x0'"),
        ("BAYES\n1\n999999999999\n1\n1 0\n1 1", 6, 1, "expected 999999999999"),
        ("MARKOV\n" + "9" * 5000, 2, 1, "expected the number of variables, found '999"),
    ],
)
def test_malformed_uai(text, line, column, match):
    with pytest.raises(FormatError, match=match) as caught:
        read("uai", text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("0", {}),
        ("1 0", {}),
        ("2 1 0 2 1\n", {1: 0, 2: 1}),
        ("1\n2 1 0 2 1\n", {1: 0, 2: 1}),
        ("1 7 3", {7: 3}),
        ("1 1 7 3", {7: 3}),
    ],
)
def test_uai_evidence(text, evidence):
    assert formats.read_uai_evidence(io.StringIO(text)) == evidence


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "expected the number of observed variables, found the end"),
        ("2 1 0", "found 3 numbers"),
        ("2 1 5 0 1 5 1", "n and n pairs"),
        ("2 1 0 1 1", "line 1, column 7: variable 1 is observed twice"),
        ("1 1 -1", "expected a number of digits, found '-1'"),
    ],
)
def test_malformed_uai_evidence(text, match):
    with pytest.raises(FormatError, match=match):
        formats.read_uai_evidence(io.StringIO(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("PR\n-0.2008", -0.2008),
        ("PR\n1\n-0.2008", -0.2008),
        ("PR\n1", 1.0),
        ("PR\n-1\n-BEGIN-\n-0.2\n-BEGIN-\n-inf", -np.inf),
    ],
)
def test_uai_partition(text, value):
    solution = formats.read_uai_solution(io.StringIO(text))
    assert (solution.task, solution.log10_partition, solution.marginals) == ("PR", value, ())


@pytest.mark.parametrize("samples", ["", "1\n"])
def test_uai_marginals(samples):
    solution = formats.read_uai_solution(io.StringIO(f"MAR\n{samples}3 2 0.1 0.9 2 0.3 0.7 3 0.2 0.2 0.6"))
    assert solution.task == "MAR"
    assert solution.log10_partition is None
    assert [marginal.tolist() for marginal in solution.marginals] == [[0.1, 0.9], [0.3, 0.7], [0.2, 0.2, 0.6]]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("MPE\n1 0", "expected 'PR' or 'MAR', found 'MPE'"),
        ("PR", "expected log10 of the partition function, found the end"),
        ("PR 1 2 3", "expected the end, found '2'"),
        ("MAR\n1 3 0.1 0.9", "line 2, column 12: expected 3 probabilities"),
        ("MAR\n1 2 0.1 0.9 0.3", "expected the end, found '0.3'"),
    ],
)
def test_malformed_uai_solution(text, match):
    with pytest.raises(FormatError, match=match):
        formats.read_uai_solution(io.StringIO(text))


# ---- Hugin, GeNIe, XML -----------------------------------------------------------------------------------------------


def test_net_in_the_wild():
    text = """net { node_size = (80 40); HR_Desc = "; } % not a comment"; }
% a comment ; }
discrete node b { label = "B"; states = ("State 1" "50 %"); }
node a { states = ("x" "y"); }
potential (b | a) { data = (( 2 8 ) % a=x
  (0.333333 0.666666)); experience = (1 2); }
potential (a) { data = (10 30); }
"""
    network = read("net", text)
    assert network.states == (("State 1", "50 %"), ("x", "y"))
    assert network.tables[0].tolist() == [[0.2, 0.8], [0.333333, 0.666666]]  # the first are weights
    assert network.tables[1].tolist() == [0.25, 0.75]


NET = 'net\n{\n}\nnode a {\n states = ("x" "y");\n}\n'


@pytest.mark.parametrize(
    ("text", "line", "column", "match"),
    [
        ("net {\n", 1, 6, "expected the name of an attribute, or '}', found the end"),
        ("utility u {}", 1, 1, "expected 'net', 'node' or 'potential'"),
        ("node a {\n states = x;\n}", 2, 11, r"expected '\(', found 'x'"),
        ("node a {\n}", 1, 6, "node 'a' has no 'states'"),
        ('node a {\n states = ("x" "y"', 2, 19, "expected ';', found the end"),
        ('node a {\n states = ("x y);\n}', 3, 2, "expected ';', found the end"),
        (NET + "potential (a) { }", 7, 12, "potential of 'a' has no 'data'"),
        (NET + "potential (a) {\n data = (1 2 3); }", 8, 9, "expected 2 numbers, found 3"),
        (NET + "potential (a) {\n data = (1 2; }", 8, 13, r"as many '\)' as '\('"),
        (NET + "potential (a) {\n data = 1 2; }", 8, 9, r"expected '\(', found '1'"),
        (NET + "potential (a) {\n data = (1\nnormal); }", 9, 1, "expected a number, found 'normal'"),
        (NET + "potential (a) {\n data = (0 0); }", 8, 10, "sum to 0.0"),
        (NET + "potential (a) {\n data = (-1 3); }", 8, 10, "not negative, got -1.0"),
        (NET + "potential (a | b) {\n data = (1 3); }", 7, 16, "'b' is no node"),
    ],
)
def test_malformed_net(text, line, column, match):
    with pytest.raises(FormatError, match=match) as caught:
        read("net", text)
    assert (caught.value.line, caught.value.column) == (line, column)


DSL = """net Unnamed // a comment
{
 CREATION = { CREATOR = ""; };
 node a
 {
  TYPE = CPT;
  HEADER = { ID = a; NAME = "A; } /* no comment */"; };
  PARENTS = ();
  DEFINITION = {
   NAMESTATES = (0, no);
   PROBABILITIES = (0.25, 0.75);
  };
 };
 submodel s { node b { TYPE = CPT; PARENTS = (a); DEFINITION = { NAMESTATES = (x, y);
  PROBABILITIES = (0, 1, 0.5, 0.5); }; }; };
};
"""


def test_dsl():
    network = read("dsl", DSL)
    assert network.names == ("a", "b")
    assert network.states == (("0", "no"), ("x", "y"))
    assert network.tables[1].tolist() == [[0, 1], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "match"),
    [
        ("net Unnamed", "network x", 1, 1, "expected 'net'"),
        ("TYPE = CPT;\n", "TYPE = NOISY_MAX;\n", 6, 10, "expected CPT.* found 'NOISY_MAX'"),
        ("  PARENTS = ();\n", "\n", 4, 7, "node 'a' has no PARENTS"),
        ("(0.25, 0.75)", "(0.25, 0.75, 0)", 11, 20, "expected 2 numbers, found 3"),
        ("(0.25, 0.75)", "(0.25, a)", 11, 27, "expected a number, found 'a'"),
        ("(0.25, 0.75)", "(0.25, 0.5)", 11, 21, "sum to 0.75"),
        ("(0.25, 0.75)", "0.25, 0.75", 11, 20, r"expected '\('"),
        ("0.5, 0.5", "0.5,\n0.6", 15, 26, "'b' given a='no' sum to 1.1"),
        ("(a)", "(c)", 14, 47, "'c' is no node"),
        ("};\n};\n};\n", "", 16, 3, "the end"),
    ],
)
def test_malformed_dsl(old, new, line, column, match):
    assert old in DSL or not new
    text = DSL.replace(old, new) if new else DSL[: DSL.rindex("};\n")].rstrip() + "\n"
    with pytest.raises(FormatError, match=match) as caught:
        read("dsl", text)
    if new:
        assert (caught.value.line, caught.value.column) == (line, column)


def test_dsl_depth():
    with pytest.raises(FormatError, match="nested at most 20 deep"):
        read("dsl", "net x " + "{ a = " * 5000)


XMLBIF = """
  <?xml version="1.0"?>
<!DOCTYPE BIF [ <!ELEMENT BIF ( NETWORK )*> ]>
<BIF VERSION="0.3">
<NETWORK><NAME>n</NAME><!-- a comment -->
<VARIABLE TYPE="nature"><NAME> light &amp; on </NAME><OUTCOME>a</OUTCOME><OUTCOME>b</OUTCOME></VARIABLE>
<VARIABLE><NAME>y</NAME><OUTCOME>a</OUTCOME><OUTCOME>b</OUTCOME><PROPERTY>p</PROPERTY></VARIABLE>
<DEFINITION><FOR>light &amp; on</FOR><GIVEN>y</GIVEN>
<TABLE>0.25 0.75 <!-- y = b --> 1
  0</TABLE></DEFINITION>
<DEFINITION><FOR>y</FOR><TABLE>0.5 0.5</TABLE></DEFINITION>
</NETWORK></BIF>
"""


def test_xmlbif():
    network = read("xmlbif", XMLBIF)
    assert network.names == ("light & on", "y")
    assert network.parents == ((1,), ())
    assert network.tables[0].tolist() == [[0.25, 0.75], [1, 0]]


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "match"),
    [
        ("<BIF VER", "<FIB VER", 12, 13, "well-formed"),
        ("0</TABLE>", "0", 10, 6, "mismatched tag"),
        ('TYPE="nature"', 'TYPE="utility"', 6, 1, "of type 'nature', found 'utility'"),
        ("<OUTCOME>b</OUTCOME></VAR", "<OUTCOME>a</OUTCOME></VAR", 6, 1, "two states called 'a'"),
        ("<NAME>y</NAME>", "", 7, 1, "expected one <NAME> in <VARIABLE>, found 0"),
        ("<NAME>y</NAME>", "<NAME>y</NAME><NAME>y</NAME>", 7, 25, "expected one <NAME> in <VARIABLE>, found 2"),
        ("<GIVEN>y<", "<GIVEN>z<", 8, 38, "'z' is no node"),
        ("<TABLE>0.25", "<TABLE>O.25", 9, 1, "expected numbers in <TABLE>, found 'O.25'"),
        ("0.25 0.75", "0.25", 9, 1, "expected 4 numbers, found 3"),
        ("0.25 0.75", "0.25 0.5", 9, 1, "given y='a' sum to 0.75"),
        ("<!ELEMENT BIF ( NETWORK )*>", '<!ENTITY a "b">', 3, 28, "no declarations of entities, found that of 'a'"),
        ("<DEFINITION><FOR>y</FOR><TABLE>0.5 0.5</TABLE></DEFINITION>", "", 7, 11, "node 'y' has no distribution"),
    ],
)
def test_malformed_xmlbif(old, new, line, column, match):
    assert old in XMLBIF
    with pytest.raises(FormatError, match=match) as caught:
        read("xmlbif", XMLBIF.replace(old, new))
    assert (caught.value.line, caught.value.column) == (line, column)


def test_entities_are_refused():
    """A document that would grow without bounds."""
    bomb = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><BIF>&b;</BIF>'
    with pytest.raises(FormatError, match="no declarations of entities"):
        read("xmlbif", bomb)


XDSL = """<?xml version="1.0" encoding="UTF-8"?>
<smile version="1.0" id="n"><nodes>
<cpt id="a"><state id="x" /><state id="y" /><probabilities>0.25 0.75</probabilities></cpt>
<deterministic id="b"><state id="x" /><state id="y" /><parents>a</parents>
<resultingstates>y x</resultingstates></deterministic>
</nodes><extensions><genie><node id="a"><name>A</name></node></genie></extensions></smile>
"""


def test_xdsl():
    network = read("xdsl", XDSL)
    assert network.names == ("a", "b")
    assert network.tables[1].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("old", "new", "line", "match"),
    [
        ("y x<", "y z<", 5, "expected states of 'b', found 'z'"),
        ("y x<", "y<", 5, "expected 4 numbers, found 2"),
        ("<parents>a<", "<parents>c<", 4, "'c' is no node"),
        ("0.25 0.75", "0.25 0.7", 3, "sum to 0.95"),
        ('<cpt id="a">', "<cpt>", 3, "expected an attribute 'id' of <cpt>"),
        ('<deterministic id="b">', '<noisymax id="b"/><deterministic id="b">', 4, "found <noisymax>, .* not supported"),
        ("<nodes>", "<nodes><nodes/>", 2, "<nodes>, which is not supported"),
    ],
)
def test_malformed_xdsl(old, new, line, match):
    assert old in XDSL
    with pytest.raises(FormatError, match=match) as caught:
        read("xdsl", XDSL.replace(old, new))
    assert caught.value.line == line


# ---- published networks ----------------------------------------------------------------------------------------------

BNLEARN = {  # nodes, arcs, parameters: https://www.bnlearn.com/bnrepository
    "alarm": (37, 46, 509),
    "andes": (223, 338, 1157),
    "asia": (8, 8, 18),
    "barley": (48, 84, 114005),
    "cancer": (5, 4, 10),
    "child": (20, 25, 230),
    "diabetes": (413, 602, 429409),
    "earthquake": (5, 4, 10),
    "hailfinder": (56, 66, 2656),
    "hepar2": (70, 123, 1453),
    "insurance": (27, 52, 1008),
    "link": (724, 1125, 14211),
    "mildew": (35, 46, 540150),
    "munin": (1041, 1397, 80592),
    "munin1": (186, 273, 15622),
    "munin2": (1003, 1244, 69431),
    "munin3": (1041, 1306, 71059),
    "munin4": (1038, 1388, 80352),
    "pathfinder": (109, 195, 72079),
    "pigs": (441, 592, 5618),
    "sachs": (11, 17, 178),
    "survey": (6, 6, 21),
    "water": (32, 66, 10083),
    "win95pts": (76, 112, 574),
}


@pytest.mark.parametrize("name", BNLEARN)
def test_bnlearn(data, name):
    network = formats.read_network(data / "bif" / f"{name}.bif.gz")
    assert (len(network.names), len(network.arcs), network.n_parameters) == BNLEARN[name]
    assert max(np.abs(table.sum(axis=-1) - 1).max() for table in network.tables) < 4e-7
    again = read("bif", written("bif", network))
    assert again.names == network.names
    assert_same_bits(again, network)
    assert_same_bits(network.normalised().normalised(), network.normalised())


def test_asia_in_three_formats(data):
    """Also p(tuberculosis or cancer), p(x-ray) and p(dyspnoea) of Lauritzen and Spiegelhalter (1988)."""
    bnlearn = formats.read_network(data / "bif" / "asia.bif.gz")
    marginals = [joint(bnlearn.factor_graph()).sum(axis=tuple({*range(8)} - {node}))[0] for node in (5, 6, 7)]
    assert marginals == pytest.approx([0.064828, 0.11029004, 0.4359706], abs=1e-12)

    names = {
        "visit_to_Asia": "asia",
        "tuberculosis": "tub",
        "tuberculos_or_cancer": "either",
        "positive_XraY": "xray",
        "lung_cancer": "lung",
        "smoking": "smoke",
        "bronchitis": "bronc",
        "dyspnoea": "dysp",
    }
    table = formats.read_network(data / "formats" / "bif" / "asia.bif")  # 'table', not rows
    table = dataclasses.replace(table, names=tuple(names[name] for name in table.names), states=(("yes", "no"),) * 8)
    assert_same_nodes(table, bnlearn)

    uai = formats.read_network(data / "formats" / "uai" / "asia.uai")
    order = ("asia", "smoke", "bronc", "lung", "tub", "either", "dysp", "xray")
    assert_same_nodes(dataclasses.replace(uai, names=order, states=(("yes", "no"),) * 8), bnlearn)


def test_alarm_in_two_formats(data):
    bnlearn = formats.read_network(data / "bif" / "alarm.bif.gz")
    assert_same_nodes(formats.read_network(data / "formats" / "net" / "alarm.net"), bnlearn)
    assert_same_nodes(formats.read_network(data / "formats" / "bif" / "alarm.bif"), bnlearn, atol=1e-7)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("DSL/alarm.dsl", "alarm"),
        ("DSL/hailfinder.dsl", "hailfinder"),
        ("bifxml/alarm.bifxml", "alarm"),
        ("bifxml/hailfinder.bifxml", "hailfinder"),
        ("bifxml/Water.bifxml", "water"),
    ],
)
def test_networks_with_parents_out_of_order(data, file, name):
    """Conversions that list parents in another order than the tables have: all else is the same, rows as a set."""
    converted = formats.read_network(data / "formats" / file)
    bnlearn = formats.read_network(data / "bif" / f"{name}.bif.gz")
    ours, theirs = by_name(converted), by_name(bnlearn)
    folded = {key.lower(): key for key in theirs}
    assert {key.lower() for key in ours} == folded.keys()
    for key, (states, parents, table) in ours.items():
        expected = theirs[folded[key.lower()]]
        assert states == expected[0]
        assert [parent.lower() for parent in parents] == [parent.lower() for parent in expected[1]]
        rows, others = (sorted(block.reshape(-1, len(states)).round(5).tolist()) for block in (table, expected[2]))
        np.testing.assert_allclose(rows, others, atol=1.1e-5)
        if len(parents) < 2:
            np.testing.assert_allclose(table, expected[2], atol=1e-6)


def test_dog_problem(data):
    """p(dog out | bowel problem, family out) of Charniak (1991)."""
    network = formats.read_network(data / "formats" / "bifxml" / "dog.bifxml")
    states, parents, table = by_name(network)["dog-out"]
    assert (states, parents) == (("true", "false"), ["bowel-problem", "family-out"])
    assert table[..., 0].tolist() == [[0.99, 0.97], [0.9, 0.3]]


def test_counts_in_a_net_file(data):
    network = formats.read_network(data / "formats" / "net" / "test1.net")
    nodes = by_name(network)
    assert nodes["C4"][2].tolist() == [0.1, 0.9]
    np.testing.assert_allclose(nodes["C2"][2][0], [[0.2, 0.8], [7 / 12, 5 / 12]])  # by C1, C4


@pytest.mark.parametrize(
    ("file", "n_nodes", "n_parameters"),
    [
        ("bif/BIFReader_file1.bif", 0, 0),
        ("bif/BIFReader_file2.bif", 2, 2),
        ("bif/tree.bif", 9, 39),
        ("net/test2.net", 19, 448),
        ("uai/BNUAIReader_file2.uai", 5, 24),
        ("uai/dog.uai", 5, 10),
        ("xdsl/benefits.xdsl", 14, 59),
        ("DSL/insurance.dsl", 27, 1008),
        ("bifxml/insurance.bifxml", 27, 1008),
    ],
)
def test_other_files(data, file, n_nodes, n_parameters):
    network = formats.read_network(data / "formats" / file)
    assert (len(network.names), network.n_parameters) == (n_nodes, n_parameters)


@pytest.mark.parametrize(
    ("file", "line", "match"),
    [
        ("bif/BIFReader_file3.bif", 58, "expected 12 numbers, found 10"),
        ("bif/BIFReader_file4.bif", 58, "expected 12 numbers, found 10"),
        ("bif/BIFReader_file5.bif", 58, "expected 12 numbers, found 10"),
        ("bif/carpo.bif", 503, r"expected the row \(1, 1\) for 'N5', found none"),  # noisy gates in properties
        ("DSL/carpo.dsl", 223, "'N117' sum to 0.0"),
        ("uai/BNUAIReader_file1.uai", 1, "expected the number of variables, found the end"),
        ("uai/BNUAIReader_file3.uai", 36, "sum to 0.7999999999999999"),
    ],
)
def test_malformed_files(data, file, line, match):
    with pytest.raises(FormatError, match=match) as caught:
        formats.read_network(data / "formats" / file)
    assert caught.value.line == line
    assert caught.value.source.endswith(file)


@pytest.mark.parametrize("format", ["net", "dsl", "xdsl", "xmlbif"])
def test_conversions(data, format):
    """What BIF has is the same in every other format."""
    for name in ("alarm", "hailfinder", "sachs", "munin1"):
        network = formats.read_network(data / "bif" / f"{name}.bif.gz")
        assert_same_nodes(read(format, written(format, network)), network)


def test_uai_competition(data):
    files = sorted((data / "uai").glob("*.uai.gz"))
    assert len(files) == 30
    for path in files:
        graph = formats.read_uai(path)
        stem = str(path)[: -len(".gz")]
        evidence = formats.read_uai_evidence(stem + ".evid")
        assert all(state < graph.cardinalities[variable] for variable, state in evidence.items())
        assert len(evidence) == {"Pedigree_11": 37, "Pedigree_13": 37, "Promedus_13": 4, "Promedus_29": 8}.get(
            path.name[: -len(".uai.gz")], len(evidence)
        )
        assert np.isfinite(formats.read_uai_solution(stem + ".PR").log10_partition)
        marginals = formats.read_uai_solution(stem + ".MAR").marginals
        assert tuple(map(len, marginals)) == graph.cardinalities
        assert max(abs(marginal.sum() - 1) for marginal in marginals) < 1e-5
    assert read("uai", written("uai", graph)) == graph


@pytest.mark.parametrize(
    ("format", "file"),
    [
        ("bif", "bif/tree.bif"),
        ("bif", "bif/asia.bif"),
        ("net", "net/test1.net"),
        ("dsl", "DSL/alarm.dsl"),
        ("xmlbif", "bifxml/dog.bifxml"),
        ("xdsl", "xdsl/benefits.xdsl"),
        ("uai", "uai/BNUAIReader_file2.uai"),
        ("uai", "uai/markov_example.uai"),
    ],
)
def test_damaged_published_files(data, rng, format, file):
    content = (data / "formats" / file).read_bytes()[:3000]
    for trial in range(150):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            if trial % 3 == 0:
                del damaged[rng.integers(len(damaged)) :]
                damaged += b"\n"
            elif trial % 3 == 1:
                del damaged[rng.integers(len(damaged))]
            else:
                damaged[rng.integers(len(damaged))] = rng.integers(256)
        read_or_refuse(format, io.BytesIO(damaged), damaged.count(b"\n"))
