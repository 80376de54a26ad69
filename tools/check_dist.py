"""Check what sdist and wheel hold, and that the wheel works in an empty environment.

usage: python tools/check_dist.py DIST_FOLDER
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL_LIMIT = 2_250_000  # kernels are 1.6 MB: three instruction sets of each; the rest grows with the Python sources
SDIST_LIMIT = 1_000_000  # no data, nothing generated: this is to grow with the sources alone
SDIST_FOLDERS = {"src", "tests", "benchmarks", "examples", "tools"}
SDIST_FILES = {
    ".clang-format",
    "CHANGELOG.md",
    "CITATION.cff",
    "CMakeLists.txt",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
}
TRIAL = """
import sys, numpy, fastgen
loaded = {"numba", "sklearn", "scipy"} & set(sys.modules)
assert not loaded, loaded
fastgen.show_config()
g = fastgen.Gaussian().fit(numpy.random.default_rng(0).normal(size=(100, 3)))
assert g.impute([[numpy.nan, 0.0, 0.0]]).shape == (1, 3)
"""


def check_wheel(path: Path) -> None:
    """Small, with everything a user needs and no source of the kernels."""
    names = zipfile.ZipFile(path).namelist()
    print(f"{path.name}: {path.stat().st_size:,} bytes, {len(names)} files")
    assert path.stat().st_size < WHEEL_LIMIT
    for name in ("py.typed", "__init__.pxd", "_kernels/_gaussian.pxd", "_kernels/_gaussian.pyi"):
        assert f"fastgen/{name}" in names, name
    for name in names:
        assert name.startswith(("fastgen/", "fastgen_models-")), name
        assert not name.endswith((".pyx", ".h", ".c", ".pyc")), name


def check_sdist(path: Path) -> None:
    """Only what belongs to the project."""
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    print(f"{path.name}: {path.stat().st_size:,} bytes, {len(names)} files")
    assert path.stat().st_size < SDIST_LIMIT
    for name in filter(None, names):
        folder, slash, _ = name.partition("/")
        assert folder in (SDIST_FOLDERS if slash else SDIST_FILES | SDIST_FOLDERS), name
        assert not name.endswith((".so", ".c", ".pyc")), name


def try_wheel(path: Path) -> None:
    """Install into an empty environment and use it from another folder."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", path.resolve()], check=True)
        subprocess.run([python, "-W", "error", "-c", TRIAL], check=True, cwd=folder)
        subprocess.run([python, "-m", "fastgen", "info"], check=True, cwd=folder, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    dist = Path(sys.argv[1])
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    try_wheel(wheel)
    print("sdist and wheel are as they should be")
