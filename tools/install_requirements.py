"""Install into this environment what the project and its `dev` extra require, but not the project itself."""

import subprocess
import sys
import tomllib
from pathlib import Path

metadata = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
project = metadata["project"]


def expand(extra: str) -> list[str]:
    """Requirements of an extra, with those of the extras it names."""
    found: list[str] = []
    for requirement in project["optional-dependencies"][extra]:
        if requirement.startswith(project["name"] + "["):
            for name in requirement.split("[")[1].rstrip("]").split(","):
                found += expand(name)
        else:
            found.append(requirement)
    return found


requirements = {*metadata["build-system"]["requires"], *project["dependencies"], *expand("dev")}
subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--upgrade", "pip"], check=True)
subprocess.run([sys.executable, "-m", "pip", "install", "-q", *sorted(requirements)], check=True)
