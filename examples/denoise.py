"""Denoise a binarised photograph with an Ising model: the exact optimum beside what approximations find.

Usage: python examples/denoise.py picture.png
"""

import sys
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from fastgen.graphical import MarkovRandomField

NOISE = 0.2  # share of pixels that are flipped
COUPLING = 0.5  # how much neighbours like to agree


def main(path: str) -> None:
    """Add noise, remove it in three ways, print what that took, and draw the results."""
    grey = load_sample_image("china.jpg").mean(axis=2)
    clean = (grey > np.median(grey)).astype(int)
    noisy = clean ^ (np.random.default_rng(0).random(clean.shape) < NOISE)

    # log p(noisy | clean) is, up to a constant, field * spin, where the spin of an observed 1 is +1
    field = 0.5 * np.log((1 - NOISE) / NOISE) * (2 * noisy - 1)
    start = time.perf_counter()
    model = MarkovRandomField.grid(clean.shape, coupling=COUPLING, field=field)
    seconds = time.perf_counter() - start
    print(f"{model.n_variables} pixels, {len(model.edges)} edges, built in {seconds:.2f} s")

    pictures = {"original": clean, "noisy": noisy}
    print(f"{'':22s} {'energy':>12s} {'above the least':>16s} {'wrong pixels':>13s} {'seconds':>8s}")
    print(f"{'noisy':22s} {model.energy(noisy.reshape(1, -1))[0]:12.1f} {'':16s} {np.mean(noisy != clean):13.2%}")
    least = -np.inf
    for name, method, options in (
        ("graph cut (exact)", "graph_cut", {}),
        ("ICM", "icm", {}),
        ("max-product BP", "max_product", {"damping": 0.5, "max_iter": 100}),
    ):
        start = time.perf_counter()
        result = model.map(method=method, **options)
        seconds = time.perf_counter() - start
        least = max(least, result.lower_bound)
        pictures[name] = result.states.reshape(clean.shape)
        wrong = np.mean(pictures[name] != clean)
        print(f"{name:22s} {result.energy:12.1f} {result.energy - least:16.1f} {wrong:13.2%} {seconds:8.2f}")

    figure, axes = plt.subplots(1, len(pictures), figsize=(4 * len(pictures), 3.2), layout="constrained")
    for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture, cmap="gray", interpolation="nearest")
        axis.set_title(f"{name}: {np.mean(picture != clean):.1%} wrong")
        axis.axis("off")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
