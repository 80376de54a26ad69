"""Pictures of graphs: matplotlib draws; graphviz' `dot`, if there is one, puts the nodes in their places."""

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastgen._validation import Array
from fastgen.graphical._separation import topological_order

__all__ = ["layered_layout", "plot", "to_dot"]

Arc = tuple[int, int]
Routes = dict[Arc, Array]
"""For each arc, the points (k, 2) that it passes, its ends among them."""

_SWEEPS = 12
_TIMEOUT = 60  # seconds for dot; our own layout takes over


def to_dot(
    names: Sequence[Any],
    arcs: Iterable[Arc],
    labels: Mapping[Arc, Any] | None = None,
    *,
    directed: bool = True,
    attributes: str = "",
) -> str:
    """The graph in graphviz' DOT language.

    Parameters
    ----------
    names : sequence
        Of the nodes, as they are shown. In the text the nodes are called n0, n1, ..., so that any name is possible.
    arcs : iterable of (int, int)
        Parent and child.
    labels : mapping, optional
        Of arcs.
    directed : bool
    attributes : str
        Statements to begin with, such as ``"rankdir=LR; node [shape=box];"``.

    Returns
    -------
    str
    """
    kind, link = ("digraph", "->") if directed else ("graph", "--")
    lines = [f"{kind} {{", *([f"  {attributes}"] if attributes else [])]
    lines += [f"  n{i} [label={_quoted(name)}];" for i, name in enumerate(names)]
    for arc in arcs:
        label = f" [label={_quoted(labels[arc])}]" if labels and arc in labels else ""
        lines.append(f"  n{arc[0]} {link} n{arc[1]}{label};")
    return "\n".join([*lines, "}", ""])


def _quoted(text: Any) -> str:
    """A label: a backslash would begin an escape, a quotation mark end it."""
    shown = str(text).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + shown.replace("\r\n", "\\n").replace("\n", "\\n").replace("\r", "\\n").replace("\0", "") + '"'


def plot(
    names: Sequence[Any],
    arcs: Iterable[Arc],
    ax: Any = None,
    *,
    labels: Mapping[Arc, Any] | None = None,
    directed: bool = True,
    layout: str | Mapping[Any, Sequence[float]] = "auto",
    font_size: float = 9.0,
    node_color: Any = "white",
    edge_color: Any = "0.3",
) -> Any:
    """Draw a graph with matplotlib.

    Parameters
    ----------
    names : sequence
        Of the nodes.
    arcs : iterable of (int, int)
        Parent and child. Edges without direction too are pairs; they must not occur in both.
    ax : matplotlib Axes, optional
        By default those of a new figure.
    labels : mapping, optional
        Of arcs.
    directed : bool
        Draw heads of arrows.
    layout : {"auto", "dot", "layers"} or mapping
        Where nodes are: by graphviz' program ``dot``, which must be installed; in layers, each node below its parents;
        "auto" takes dot where there is one. Or {node: (x, y)}, where all nodes are given by name, or by number.
    font_size : float
        In points.
    node_color, edge_color : matplotlib colors
        ``node_color`` may be one for each node.

    Returns
    -------
    matplotlib Axes

    Notes
    -----
    Layers: longest paths, order by barycentres (Sugiyama, Tagawa & Toda 1981); arcs across layers bend around nodes.
    """
    try:
        from matplotlib.collections import LineCollection
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'fastgen-models[plot]'") from error

    arcs = [(int(a), int(b)) for a, b in arcs]
    places, routes = _places(names, arcs, layout)
    if ax is None:
        width, height = np.ptp(places, axis=0) if len(places) else (0.0, 0.0)
        unit = max(0.8, 0.3 + 0.0095 * font_size * max((len(str(name)) for name in names), default=0))
        size = np.clip([unit * (width + 1.2), 0.7 * (height + 1.2)], 1.5, 40)
        figure = _new_figure(Figure, (float(size[0]), float(size[1])))
        ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    every = np.concatenate([places, *routes.values(), np.zeros((0, 2))])
    if len(every):
        low, high = every.min(axis=0) - 0.6, every.max(axis=0) + 0.6
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    colors = [node_color] * len(names) if isinstance(node_color, str) or len(node_color) != len(names) else node_color
    texts = [
        ax.text(
            x,
            y,
            str(name).replace("$", r"\$"),  # no formulas
            size=font_size,
            ha="center",
            va="center",
            zorder=2,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": edge_color},
        )
        for (x, y), name, color in zip(places, names, colors, strict=True)
    ]
    lines = []
    for (_, child), route in routes.items():
        near = route[-1] + 0.5 * (route[-2] - route[-1]) if directed else route[-1]
        lines.append(np.concatenate([route[:-1], near[None]]))
        if directed:  # above the boxes, which are drawn first: only then do these know their sizes
            arrow = {"arrowstyle": "-|>", "color": edge_color, "patchB": texts[child].get_bbox_patch(), "lw": 0.9}
            ax.annotate("", route[-1], near, arrowprops=arrow | {"shrinkA": 0, "shrinkB": 0}, zorder=3)
    ax.add_collection(LineCollection(lines, colors=edge_color, linewidths=0.9, zorder=1))
    for arc, text in (labels or {}).items():
        route = routes[arc]
        middle = route[(len(route) - 1) // 2 : len(route) // 2 + 1].mean(axis=0)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        ax.text(*middle, str(text).replace("$", r"\$"), size=0.85 * font_size, ha="center", va="center", bbox=box)
    return ax


def _new_figure(figure_class: Any, size: tuple[float, float]) -> Any:
    """A figure that a notebook or a window shows if pyplot is in use, and one by itself otherwise."""
    import sys

    if "matplotlib.pyplot" in sys.modules:
        return sys.modules["matplotlib.pyplot"].figure(figsize=size)
    return figure_class(figsize=size)


def _places(names: Sequence[Any], arcs: list[Arc], layout: Any) -> tuple[Array, Routes]:
    if isinstance(layout, Mapping):
        places = _given_places(names, layout)
        return places, {(a, b): places[[a, b]] for a, b in arcs}
    if layout not in ("auto", "dot", "layers"):
        raise ValueError(f"layout must be 'auto', 'dot', 'layers', or a mapping from nodes to (x, y); got {layout!r}")
    program = shutil.which("dot") if layout != "layers" else None
    if layout == "dot" and program is None:
        raise FileNotFoundError("layout 'dot' needs the program dot of graphviz, which is not on the path: install it")
    if program is not None:
        try:
            return _dot_layout(program, names, arcs)
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            if layout == "dot":
                raise RuntimeError(f"graphviz' dot failed: {error}") from error
    return layered_layout(len(names), arcs)


def _given_places(names: Sequence[Any], layout: Mapping[Any, Sequence[float]]) -> Array:
    """The places of a mapping from names, or from numbers of nodes."""
    by_name = all(name in layout for name in names)
    keys = names if by_name else range(len(names))
    for key, name in zip(keys, names, strict=True):
        if key not in layout:
            raise ValueError(f"layout must have a place for each node, by name or by number: none for {name!r}")
    unknown = [key for key in layout if key not in keys]
    if unknown:
        raise ValueError(f"layout has a place for {unknown[0]!r}, which is no node: these are {list(names)}")
    places = np.array([layout[key] for key in keys], float)
    if places.size and (places.ndim != 2 or places.shape[1] != 2):
        raise ValueError(f"the places of a layout must be pairs (x, y), got shape {places.shape}")
    return places.reshape(-1, 2)


def _dot_layout(program: str, names: Sequence[Any], arcs: list[Arc]) -> tuple[Array, Routes]:
    """Ask dot, whose format "plain" has one line for each node and each arc; lengths are in inches."""
    text = to_dot(names, arcs, attributes="node [shape=box, fontsize=9]; edge [dir=none];")
    command = [program, "-Tplain"]
    plain = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=_TIMEOUT).stdout
    places = np.full((len(names), 2), np.nan)
    routes: Routes = {}
    for line in plain.splitlines():
        words = line.split()
        if words[:1] == ["node"]:
            places[int(words[1][1:])] = float(words[2]), float(words[3])
        elif words[:1] == ["edge"]:
            arc = int(words[1][1:]), int(words[2][1:])
            k = int(words[3])
            points = np.array(words[4 : 4 + 2 * k], float).reshape(k, 2)
            routes[arc] = np.concatenate([places[[arc[0]]], _bezier(points), places[[arc[1]]]])
    if np.isnan(places).any() or set(routes) != set(arcs):
        raise ValueError("its answer lacks nodes or arcs")
    return places, routes


def _bezier(points: Array) -> Array:
    """Points on the cubic curves with these control points, 3 k + 1."""
    t = np.linspace(0, 1, 6)[1:-1, None]
    pieces = [
        (1 - t) ** 3 * points[i]
        + 3 * t * (1 - t) ** 2 * points[i + 1]
        + 3 * t**2 * (1 - t) * points[i + 2]
        + t**3 * points[i + 3]
        for i in range(0, len(points) - 3, 3)
    ]
    return np.concatenate(pieces) if pieces else points[:0]


def layered_layout(n: int, arcs: Sequence[Arc]) -> tuple[Array, Routes]:
    """Places of nodes, each below its parents, and routes of arcs; a unit apart.

    Parameters
    ----------
    n : int
        Nodes.
    arcs : sequence of (int, int)
        Without cycle.

    Returns
    -------
    places : array (n, 2)
    routes : dict
        For each arc, the points (k, 2) that it passes.
    """
    parents: list[list[int]] = [[] for _ in range(n)]
    for a, b in arcs:
        parents[b].append(a)
    level = [0] * n
    for node in topological_order(parents):
        level[node] = 1 + max((level[p] for p in parents[node]), default=-1)
    for node in range(n):  # roots come down to their children
        below = [level[b] for a, b in arcs if a == node] if not parents[node] else []
        level[node] = min(below) - 1 if below else level[node]
    chains: dict[Arc, list[int]] = {}  # an arc across several layers passes a place in each between
    for a, b in arcs:
        inner = range(len(level), len(level) + level[b] - level[a] - 1)
        level.extend(range(level[a] + 1, level[b]))
        chains[a, b] = [a, *inner, b]
    near: list[tuple[list[int], list[int]]] = [([], []) for _ in level]
    for chain in chains.values():
        for above, under in pairwise(chain):
            near[above][1].append(under)
            near[under][0].append(above)
    layers: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for node, its_level in enumerate(level):
        layers[its_level].append(node)
    x = np.zeros(len(level))
    for layer in layers:
        x[layer] = np.arange(len(layer)) - 0.5 * (len(layer) - 1)
    for sweep in range(_SWEEPS):
        side = sweep % 2
        for layer in layers if side == 0 else layers[::-1]:
            wanted = np.array([x[near[i][side]].mean() if near[i][side] else x[i] for i in layer])
            order = np.argsort(wanted, kind="stable")
            layer[:] = [layer[i] for i in order]
            x[layer] = _spread(wanted[order])
    places = np.column_stack([x, -np.array(level, float)])
    return places[:n], {arc: places[chain] for arc, chain in chains.items()}


def _spread(wanted: Array) -> Array:
    """The places nearest to these ascending ones, in squares, at least 1 apart: isotonic regression."""
    blocks: list[list[float]] = []  # sum and number of what has been pushed together
    for k, place in enumerate(wanted.tolist()):
        blocks.append([place - k, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    return np.repeat([total / count for total, count in blocks], [int(count) for _, count in blocks]) + np.arange(
        len(wanted)
    )
