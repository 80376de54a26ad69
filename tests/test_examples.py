"""Examples run."""

import runpy
from pathlib import Path

import pytest
from sklearn import datasets

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_denoise(tmp_path, monkeypatch, capsys):
    """On a part of the photograph: the exact optimum is the least energy, and all three remove most of the noise."""
    pytest.importorskip("matplotlib")
    whole = datasets.load_sample_image("china.jpg")
    monkeypatch.setattr(datasets, "load_sample_image", lambda name: whole[:160, :240])
    runpy.run_path(str(EXAMPLES / "denoise.py"))["main"](str(tmp_path / "picture.png"))
    assert (tmp_path / "picture.png").stat().st_size > 1000
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    above = {line[0]: float(line[-3]) for line in lines if line[0] in ("graph", "ICM", "max-product")}
    assert above["graph"] == 0
    assert min(above["ICM"], above["max-product"]) > 0
    wrong = {line[0]: float(line[-2].rstrip("%")) for line in lines if line[0] in ("graph", "ICM", "max-product")}
    assert max(wrong.values()) < 10  # of 20
