"""``python -m fastgen``: the demo runs without a warning and writes its pictures; info tells what is in use."""

import subprocess
import sys

import pytest


def run(*arguments):
    command = [sys.executable, "-W", "error", "-m", "fastgen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return run("demo", "--output", folder, "--seed", 1), folder


def test_demo_writes_pictures(demo):
    done, folder = demo
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("learning-curves", "least-likely", "generated", "completed"):
        picture = folder / f"{name}.png"
        assert str(picture) in done.stdout
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_demo_classifies_digits(demo):
    """Gaussians with full covariance reach 97 % on 1200 of these digits; what is printed is measured."""
    done, _ = demo
    (line, *_) = [line for line in done.stdout.splitlines() if line.strip().startswith("fastgen, full  ")]
    assert float(line.split()[-1].rstrip("*")) > 0.96


def test_info():
    done = run("info")
    assert done.returncode == 0, done.stderr
    for word in ("fastgen:", "instruction set:", "threads:", "blas:", "numpy:", "compiled modules:"):
        assert word in done.stdout


def test_an_output_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("demo", "--output", tmp_path / "file")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
