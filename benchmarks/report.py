"""The report of a benchmark run: one table, one chart.

``python benchmarks/report.py bench-output/benchmark.json`` prints the table, and writes report.md, report.json and
report.png beside the file that it reads.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

COLOURS = {
    "NumPy": "#4c72b0",
    "NumPy + pool": "#8fa9d0",
    "NumPy, expanded": "#b9c9e3",
    "SciPy": "#dd8452",
    "scikit-learn": "#55a868",
    "hmmlearn": "#937860",
    "hmmlearn (scaling)": "#c9b79c",
    "Numba": "#da8bc3",
    "pyAgrum": "#64b5cd",
    "pgmpy": "#ccb974",
    "JAX": "#8172b3",
    "PGMax, scaled": "#b5651d",
    "pomegranate, scaled": "#c44e52",
    "dynamax, scaled": "#8c8c8c",
}


def milliseconds(value: float) -> str:
    """Three digits, and no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def ratio(value: float) -> str:
    """How many times slower."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def aligned(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table that also reads well as it is: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(len(row[j]) for row in cells) for j in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        parts = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "| " + " | ".join(parts) + " |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])


def targets(row: dict[str, Any]) -> str:
    """What was to be reached, and whether it was."""
    cells = []
    for target in row.get("targets", ()):
        name = target["rivals"][0] if len(target["rivals"]) == 1 else "others"
        missed = "" if target["measured"] >= target["wanted"] else f" (missed: {ratio(target['measured'])})"
        cells.append(f"{name} {target['wanted']:g}{missed}")
    return ", ".join(cells)


def speed_table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements: each rival's time, and in brackets how many times fastgen's it is."""
    lines = []
    for row in rows:
        ms, ratios = row["ms"], row["ratio"]
        cells = [row["workload"], row["threads"], milliseconds(ms["fastgen"])]
        for name in ("NumPy", "NumPy + pool"):
            cells.append(f"{milliseconds(ms[name])} ({ratio(ratios[name])})" if name in ms else "")
        peers = [name for name in ms if name not in ("fastgen", "NumPy", "NumPy + pool")]
        cells.append(", ".join(f"{name} {milliseconds(ms[name])} ({ratio(ratios[name])})" for name in peers))
        cells.append(
            f"{row['times_bound']:.2f} (best {row['best_times_bound']:.2f}) x {row['bound']}" if "bound" in row else ""
        )
        lines.append([*cells, targets(row)])
    headers = ["workload", "threads", "fastgen ms", "NumPy ms (ratio)", "NumPy + pool ms (ratio)"]
    return aligned([*headers, "others ms (ratio)", "vs bound", "target ratios"], lines)


def texts(rows: Sequence[dict[str, Any]], tables: Sequence[dict[str, Any]]) -> list[str]:
    """The table of measurements, and the others with their titles."""
    found = [speed_table(rows)] if rows else []
    return found + [f"{table['title']}\n\n{aligned(table['headers'], table['rows'])}" for table in tables]


def heading(info: dict[str, Any]) -> str:
    """Processor, instruction set, threads, versions, limits of the machine."""
    config, limits = info["fastgen"], info.get("limits")
    versions = ", ".join(f"{name} {config[name]}" for name in ("numpy", "scipy", "scikit-learn") if config[name])
    processor = info.get("cpu", {}).get("brand_raw") or "an unknown processor"
    in_use = f"instruction set {config['instruction set']}, {config['threads']} threads, {config['cpus']} CPUs"
    lines = [
        f"fastgen {config['fastgen']} on {processor}: {in_use}",
        f"Python {config['python']}, {versions}; BLAS: {', '.join(config['blas']) or 'unknown'}",
    ]
    if limits:
        lines.append(
            f"Limits of this machine: {limits['fma_gflops']:.1f} GFLOP/s (one thread, float64), reading memory "
            f"{limits['read_gbs']:.1f} GB/s (one thread), {limits['read_gbs_2']:.1f} GB/s (two)"
        )
    lines.append(
        "Medians; in brackets, how many times the time of fastgen. NumPy: the fastest of the block sizes and "
        "layouts that an expert would try; with a pool, blocks on threads of their own. Expanded: squares of x - mean "
        "are multiplied out, which costs digits; no target counts it where covariances are full. Scaled: not measured "
        "here, but the time here of scikit-learn, hmmlearn or NumPy by the ratio of the two on another processor: a "
        "hint. Bound: "
        "what the machine's limits would allow, beside the median and the best round."
    )
    if info.get("quick"):
        lines.append("A quick run: small sizes, few rounds; these are not measurements.")
    return "\n".join(lines)


def chart(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Horizontal bars on a logarithmic axis: how many times faster fastgen is than each rival."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row["ratio"]]
    bars = [(i, name, value) for i, row in enumerate(rows) for name, value in row["ratio"].items()]
    figure, axes = plt.subplots(figsize=(10, 1.4 + 0.2 * len(bars) + 0.12 * len(rows)), layout="constrained")
    y, positions, labels, named = 0.0, [], [], set()
    for row in rows:
        first = y
        for name, value in row["ratio"].items():
            axes.barh(
                y,
                value - 1,
                left=1,
                height=0.85,
                color=COLOURS.get(name, "#444444"),
                label=None if name in named else name,
            )
            axes.annotate(
                f"{ratio(value)}",
                (value, y),
                xytext=(3 if value >= 1 else -3, 0),
                textcoords="offset points",
                ha="left" if value >= 1 else "right",
                va="center",
                fontsize=8,
            )
            named.add(name)
            y += 1
        positions.append((first + y - 1) / 2)
        threads = row["threads"]
        labels.append(f"{row['workload']}, {threads} thread{'' if threads == 1 else 's'}")
        y += 0.6
    values = [value for _, _, value in bars]
    axes.set_xscale("log")
    axes.set_xlim(low := min(0.5, 0.6 * min(values)), high := 2 * max(values))
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low < t < high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_yticks(positions, labels, fontsize=8)
    axes.set_ylim(y - 0.2, -1)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel("how many times faster fastgen is (logarithmic)")
    axes.set_title(title, fontsize=10, loc="left")
    figure.legend(loc="outside upper right", ncols=len(named), fontsize=8, frameon=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Read the JSON of pytest-benchmark; print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="what pytest wrote with --benchmark-json")
    path = parser.parse_args().json
    run = json.loads(path.read_text(encoding="utf-8"))
    info = run["machine_info"]
    rows = [entry["extra_info"] for entry in run["benchmarks"] if "ms" in entry["extra_info"]]
    tables = run.get("tables", [])
    head = heading(info)
    print("\n\n".join([head, *texts(rows, tables)]))
    parts = ["# Benchmarks", head.replace("\n", "\\\n"), "![Speed-up](report.png)"]
    if rows:
        parts.append(speed_table(rows))
    parts += [f"## {table['title']}\n\n{aligned(table['headers'], table['rows'])}" for table in tables]
    path.with_name("report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    machine = {"processor": info.get("cpu", {}).get("brand_raw")}
    machine |= {key: info[key] for key in ("fastgen", "limits", "quick") if key in info}
    record = {"machine": machine, "workloads": rows, "tables": tables}
    path.with_name("report.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    config = info["fastgen"]
    title = f"fastgen {config['fastgen']}, {info.get('cpu', {}).get('brand_raw', '')}, {config['instruction set']}"
    if rows:
        chart(rows, title, path.with_name("report.png"))


if __name__ == "__main__":
    main()
