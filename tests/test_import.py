"""What import costs, what names there are, and that an installed package needs no writable folder."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastgen


def modules_after(python, code):
    return set(json.loads(python(f"{code}; import json, sys; print(json.dumps(sorted(sys.modules)))").stdout))


def roots(modules):
    return {name.partition(".")[0] for name in modules}


def test_import_fastgen_is_light(python):
    before = modules_after(python, "pass")
    added = roots(modules_after(python, "import fastgen") - before)
    assert "fastgen" in added
    assert added.isdisjoint({"numpy", "scipy", "sklearn", "numba", "llvmlite", "pandas", "matplotlib", "joblib"})


def test_import_of_kernels_brings_numpy_alone(python):
    for code in ("import fastgen.kernels", "import fastgen; fastgen.kernels", "import fastgen.families"):
        modules = roots(modules_after(python, code))
        assert "numpy" in modules
        assert modules.isdisjoint({"scipy", "sklearn", "numba", "llvmlite", "pandas", "joblib"})


def test_estimators_do_not_bring_numba(python):
    modules = roots(modules_after(python, "import fastgen; fastgen.Gaussian, fastgen.GenerativeClassifier"))
    assert "sklearn" in modules
    assert modules.isdisjoint({"numba", "llvmlite", "matplotlib"})


def test_computing_with_kernels_brings_nothing_more(python):
    code = "import fastgen; fastgen.kernels.gaussian_log_density([[0., float('nan')]], [0., 0.], [[1., 0.], [0., 1.]])"
    assert roots(modules_after(python, code)).isdisjoint({"scipy", "sklearn", "numba"})


def test_every_public_name_resolves(python):
    for order in (fastgen.__all__, fastgen.__all__[::-1]):  # whichever is asked for first
        python(f"import fastgen; print([getattr(fastgen, name) for name in {order}])")
    python("from fastgen import *; Gaussian, GenerativeClassifier, kernels, num_threads")
    assert dir(fastgen) == sorted(fastgen.__all__)


@pytest.mark.parametrize(
    "module", ["kernels", "families", "gaussian", "classifier", "mixture", "hidden_markov", "hmm", "naive_bayes"]
)
def test_every_public_name_of_a_module_resolves(module):
    namespace = importlib.import_module(f"fastgen.{module}")
    for name in namespace.__all__:
        assert getattr(namespace, name).__doc__


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'fastgen' has no attribute 'gausian'"):
        _ = fastgen.gausian
    with pytest.raises(ImportError):
        from fastgen import gausian  # noqa: F401
    assert not hasattr(fastgen, "__wrapped__")


def test_version():
    assert fastgen.__version__ == importlib.metadata.version("fastgen-models")


def test_show_config(capsys):
    assert fastgen.show_config() is None
    printed = capsys.readouterr().out
    config = fastgen.show_config("dicts")
    assert config["fastgen"] == fastgen.__version__
    assert config["instruction set"] == fastgen._kernels.isa
    assert config["threads"] == fastgen.get_num_threads()
    assert Path(config["compiled modules"]).is_dir()
    for key in config:
        assert f"{key}:" in printed
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="mode must be 'stdout' or 'dicts'"):
        fastgen.show_config("dict")


def test_typing_marker_is_shipped():
    assert (Path(fastgen.__file__).parent / "py.typed").is_file()


@pytest.mark.skipif(os.name != "posix", reason="folders are made read-only by their mode bits")
def test_import_from_a_read_only_folder(tmp_path):
    """Sources and compiled modules side by side, as a wheel installs them, in a folder that cannot be written to."""
    from fastgen._kernels import _cpu

    package = tmp_path / "site" / "fastgen"
    ignore = shutil.ignore_patterns("__pycache__", "*.pyx", "*.h")
    shutil.copytree(Path(fastgen.__file__).parent, package, ignore=ignore)
    compiled = Path(_cpu.__file__).parent
    for module in compiled.rglob("*"):
        if module.suffix in (".so", ".pyd"):
            target = package / "_kernels" / module.relative_to(compiled)
            if not target.exists():
                shutil.copy(module, target)
    for folder in (package, *package.rglob("*")):
        folder.chmod(0o555 if folder.is_dir() else 0o444)
    code = f"""
import sys
# An editable installation finds its modules by a hook: without it only the path counts.
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__.lower()]
sys.path.insert(0, {str(package.parent)!r})
import fastgen
assert fastgen.__file__.startswith({str(package)!r}), fastgen.__file__
assert fastgen._kernels._gaussian.__file__.startswith({str(package)!r}), fastgen._kernels._gaussian.__file__
g = fastgen.Gaussian().fit([[0.0, 1.0], [2.0, 0.5], [1.0, 7.0]])
print(g.mean_[0])
"""
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-W", "error", "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "1.0"
        if os.geteuid():  # the superuser writes anywhere
            assert not list(package.rglob("__pycache__"))
    finally:
        for folder in (package, *package.rglob("*")):
            if folder.is_dir():
                folder.chmod(0o755)
