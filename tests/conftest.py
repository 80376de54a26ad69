"""What all tests share: the hypothesis profiles, a random generator, subprocesses."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def rng():
    """A generator with a fixed seed: a new one for each test, so that the order of tests does not matter."""
    return np.random.default_rng(20240229)


def run_python(code, *flags, check=True, **environment):
    """Run code in a new interpreter, warnings being errors; a variable set to None is taken out of the environment."""
    env = {name: text for name, text in os.environ.items() if name not in environment and name != "PYTHONWARNINGS"}
    env.update({name: text for name, text in environment.items() if text is not None})
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", code], env=env, capture_output=True, text=True, timeout=120
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def python():
    """`run_python`: python(code, NAME=value) -> CompletedProcess."""
    return run_python
