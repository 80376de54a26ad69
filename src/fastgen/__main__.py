"""``python -m fastgen``: a demonstration, what is installed, and where the benchmarks are."""

import argparse
import importlib.util
import sys
from pathlib import Path


def demo(output: Path, seed: int, quiet: bool) -> int:
    """Run the demonstration; return 2 if Matplotlib is missing or the folder cannot be made."""
    if importlib.util.find_spec("matplotlib") is None:
        print('the demo draws with Matplotlib: pip install "fastgen-models[plot]"', file=sys.stderr)
        return 2
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"cannot make the folder for the pictures: {error}", file=sys.stderr)
        return 2
    from fastgen import _demo

    def report(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    _demo.run(output, seed, report)
    return 0


def info() -> int:
    """Print `fastgen.show_config`."""
    from fastgen import show_config

    show_config()
    return 0


def bench() -> int:
    """Say how to run the benchmarks: they are no part of the installed package."""
    if Path("benchmarks", "report.py").exists():
        print("run them with: make bench")
    else:
        print("the benchmarks live in the source repository and are run there with: make bench")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fastgen", description="Classical generative models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo_parser = commands.add_parser("demo", help="classify, score, generate and complete digits; writes pictures")
    demo_parser.add_argument(
        "--output", type=Path, default=Path("demo-output"), metavar="DIR", help="where pictures go (%(default)s)"
    )
    demo_parser.add_argument("--seed", type=int, default=0, help="of everything random (%(default)s)")
    demo_parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    commands.add_parser("info", help="version, instruction set, threads, dependencies")
    commands.add_parser("bench", help="how to run the benchmarks")
    options = parser.parse_args(arguments)
    if options.command == "demo" and options.seed < 0:
        parser.error("--seed must not be negative")
    if options.command == "demo":
        return demo(options.output, options.seed, options.quiet)
    return info() if options.command == "info" else bench()


if __name__ == "__main__":
    sys.exit(main())
