"""What one generative classifier can do, shown on scikit-learn's digits: ``python -m fastgen demo``.

A model of p(x, y) classifies by Bayes' rule, and beyond that tells how likely an image is, draws new ones, and fills
in hidden pixels. Everything that is printed is measured in the run that prints it; nothing is tuned on test data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import threadpoolctl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from fastgen import Gaussian, GenerativeClassifier, __version__, _kernels, get_num_threads

Array = NDArray[np.float64]
Labels = NDArray[Any]
Report = Callable[[str], None]

SIDE = 8  # the digits are 8 x 8 pixels
HIDDEN = slice(SIDE * SIDE // 2, None)  # the lower half of an image, row by row
SPLITS = 3


@dataclass(frozen=True)
class Contender:
    """A classifier, and its one parameter that is chosen on the training data."""

    name: str
    model: Any
    parameter: str
    values: tuple[float, ...]
    style: str


@dataclass(frozen=True)
class Curve:
    """What one contender reached: arrays (splits, sizes)."""

    contender: Contender
    accuracy: Array
    loss: Array


def contenders() -> list[Contender]:
    """The models that are compared: generative, discriminative, and the generative one of scikit-learn."""
    reg_covar = (0.01, 0.04, 0.16, 0.64)
    result = [
        Contender("fastgen, full", GenerativeClassifier(Gaussian()), "density__reg_covar", reg_covar, "C0o-"),
        Contender("fastgen, tied", GenerativeClassifier(Gaussian("tied")), "density__reg_covar", reg_covar, "C0s--"),
        Contender("LogisticRegression", LogisticRegression(max_iter=5000), "C", (0.1, 1.0, 10.0, 100.0), "C1^-"),
    ]
    if "solver" in QuadraticDiscriminantAnalysis().get_params():  # older ones need d samples in every class
        qda = QuadraticDiscriminantAnalysis(solver="eigen")
        result.append(Contender("sklearn QDA", qda, "shrinkage", (0.2, 0.4, 0.6, 0.8), "C2v-"))
    return result


def tuned(contender: Contender, scaler: Any, seed: int) -> Any:
    """The contender with its parameter chosen by log-loss on a held-out third of what it is fitted to."""
    return GridSearchCV(
        Pipeline([("scale", scaler), ("model", contender.model)]),
        {f"model__{contender.parameter}": contender.values},
        scoring="neg_log_loss",
        cv=StratifiedShuffleSplit(1, test_size=1 / 3, random_state=seed),
    )


def learning_curves(X: Array, y: Labels, sizes: tuple[int, ...], scaler: Any, seed: int) -> list[Curve]:
    """Accuracy and log-loss on the samples that the largest training set leaves over."""
    curves = [Curve(c, np.empty((SPLITS, len(sizes))), np.empty((SPLITS, len(sizes)))) for c in contenders()]
    for i in range(SPLITS):
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, train_size=sizes[-1], stratify=y, random_state=seed + i
        )
        for j, n in enumerate(sizes):
            part, labels = X_train, y_train
            if n < len(X_train):
                part, _, labels, _ = train_test_split(
                    X_train, y_train, train_size=n, stratify=y_train, random_state=seed + i
                )
            for curve in curves:
                model = tuned(curve.contender, scaler, seed + i).fit(part, labels)
                proba = model.predict_proba(X_test)
                curve.accuracy[i, j] = (model.classes_[proba.argmax(axis=1)] == y_test).mean()
                curve.loss[i, j] = log_loss(y_test, proba)
    return curves


def table(curves: list[Curve], sizes: tuple[int, ...]) -> str:
    """Means over the splits, one line per contender; a star marks the best of each column."""
    accuracy = np.array([curve.accuracy.mean(axis=0) for curve in curves])
    loss = np.array([curve.loss.mean(axis=0) for curve in curves])
    lines = []
    for title, values, best in (("accuracy", accuracy, accuracy.max(axis=0)), ("log-loss", loss, loss.min(axis=0))):
        lines.append(f"   {title:<19}" + "".join(f"{f'n = {n}':>10} " for n in sizes))
        for curve, row in zip(curves, values, strict=True):
            cells = (f"{v:>10.3f}{'*' if v == b else ' '}" for v, b in zip(row, best, strict=True))
            lines.append(f"   {curve.contender.name:<19}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def verdict(curves: list[Curve], sizes: tuple[int, ...]) -> str:
    """Where the generative model with a covariance per class beats logistic regression, on average."""
    full, logistic = curves[0], curves[2]

    def where(wins: NDArray[np.bool_]) -> str:
        if wins.all() or not wins.any():
            return "every n" if wins.all() else "no n"
        return "n = " + ", ".join(str(n) for n, win in zip(sizes, wins, strict=True) if win)

    accuracy = where(full.accuracy.mean(axis=0) > logistic.accuracy.mean(axis=0))
    loss = where(full.loss.mean(axis=0) < logistic.loss.mean(axis=0))
    return f"   fastgen, full, beats logistic regression in accuracy at {accuracy}, in log-loss at {loss}."


def draw_curves(curves: list[Curve], sizes: tuple[int, ...]) -> Figure:
    """Accuracy and log-loss against the size of the training set, with the range over the splits as a band."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, label in zip(axes, ("accuracy", "log-loss"), strict=True):
        for curve in curves:
            values = curve.accuracy if label == "accuracy" else curve.loss
            ax.plot(sizes, values.mean(axis=0), curve.contender.style, label=curve.contender.name, markersize=5)
            ax.fill_between(sizes, values.min(axis=0), values.max(axis=0), color=curve.contender.style[:2], alpha=0.12)
        ax.set_xscale("log")
        ax.set_xticks(sizes, [str(n) for n in sizes])
        ax.minorticks_off()
        ax.set_xlabel("training images")
        ax.set_ylabel(f"test {label}" + (" (nats)" if label == "log-loss" else ""))
        ax.grid(alpha=0.3)
    axes[1].set_yscale("log")
    axes[0].legend(loc="lower right")
    figure.suptitle(f"Digits: mean of {SPLITS} splits, band from worst to best")
    return figure


def draw_images(images: Array, title: str, captions: list[str], row_names: list[str] | None = None) -> Figure:
    """Images (rows, columns, pixels) as one mosaic, with captions above the first of them; NaN is blue."""
    n_rows, n_columns = images.shape[:2]
    above = 3 if len(captions) > n_columns else 1  # room for captions, in pixels of the digits
    height, width = above + SIDE + 1, SIDE + 2
    grey = 1 - images.clip(0, 1).reshape(n_rows, n_columns, SIDE, SIDE, 1)
    tiles = np.ones((n_rows, n_columns, height, width, 3))
    tiles[:, :, above:-1, 1:-1] = np.where(np.isnan(grey), (0.69, 0.77, 0.87), grey)
    mosaic = tiles.swapaxes(1, 2).reshape(n_rows * height, n_columns * width, 3)
    figure = Figure(figsize=(0.08 * mosaic.shape[1] + bool(row_names), 0.08 * len(mosaic) + 0.5), layout="constrained")
    ax = figure.subplots()
    ax.imshow(mosaic, interpolation="bicubic")  # helps the eye to read 8 x 8 pixels
    for i, caption in enumerate(captions):
        row, column = divmod(i, n_columns)
        ax.text((column + 0.5) * width, row * height + above - 1, caption, ha="center", va="bottom", fontsize=9)
    ax.set_xticks([])
    ax.set_yticks(np.arange(len(row_names or ())) * height + above + SIDE / 2, row_names or ())
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.suptitle(title)
    return figure


def reading(label: int, predicted: int) -> str:
    """Caption of an image: its label, and what the model took it for if that is something else."""
    return str(label) if label == predicted else f"{label} read as {predicted}"


def numpy_classifier(X: Array, y: Labels, reg_covar: float) -> Callable[[Array], Array]:
    """Fit full-covariance Gaussians with NumPy alone; return the function from samples to posteriors."""
    d = X.shape[1]
    parts = [X[y == label] for label in np.unique(y)]
    means = [part.mean(axis=0) for part in parts]
    roots = []  # U, with inverse(covariance) = U U^T
    for part, mean in zip(parts, means, strict=True):
        part -= mean
        covariance = part.T @ part / len(part) + reg_covar * np.eye(d)
        roots.append(np.linalg.inv(np.linalg.cholesky(covariance)).T)
    log_prior = np.log([len(part) / len(X) for part in parts])
    log_norm = log_prior + [np.log(root.diagonal()).sum() for root in roots]
    white_means = np.concatenate([mean @ root for mean, root in zip(means, roots, strict=True)])
    all_roots = np.hstack(roots)

    def predict_proba(X: Array) -> Array:
        joint = np.empty((len(X), len(parts)))
        white = np.empty((1000, len(parts), d))  # blocks that stay in the cache, one matrix product for all classes
        for start in range(0, len(X), len(white)):
            block = X[start : start + len(white)]
            part = white[: len(block)]
            flat = part.reshape(len(block), -1)
            np.matmul(block, all_roots, out=flat)
            flat -= white_means
            np.vecdot(part, part, out=joint[start : start + len(block)])
        joint *= -0.5
        joint += log_norm
        joint -= joint.max(axis=1, keepdims=True)
        np.exp(joint, out=joint)
        joint /= joint.sum(axis=1, keepdims=True)
        return joint

    return predict_proba


def race(X: Array, y: Labels, reg_covar: float, repetitions: int = 5) -> Array:
    """Seconds of (fastgen, NumPy) x (fit, posterior) in alternating repetitions: (repetitions, 2, 2)."""
    model = GenerativeClassifier(Gaussian(reg_covar=reg_covar))
    seconds = np.empty((repetitions, 2, 2))
    for repetition in seconds:
        sleep(0.1)  # BLAS threads spin for a while after their work, and would slow down what runs next
        start = perf_counter()
        model.fit(X, y)
        fitted = perf_counter()
        ours = model.predict_proba(X)
        repetition[0] = fitted - start, perf_counter() - fitted
        start = perf_counter()
        predict_proba = numpy_classifier(X, y, reg_covar)
        fitted = perf_counter()
        theirs = predict_proba(X)
        repetition[1] = fitted - start, perf_counter() - fitted
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    return seconds


class Demo:
    """The digits, one model of them, and where the pictures go."""

    def __init__(self, output: Path, seed: int, report: Report) -> None:
        self.output, self.seed, self.report = output, seed, report
        X, self.y = load_digits(return_X_y=True)
        self.X = X / X.max()  # 0 to 1
        self.rng = np.random.default_rng(seed)
        self.X_train, self.X_test, self.y_train, self.y_test = train_test_split(
            self.X, self.y, train_size=1200, stratify=self.y, random_state=seed
        )

    def save(self, figure: Figure, name: str) -> None:
        """Write a picture and say where it is."""
        path = self.output / name
        figure.savefig(path, dpi=110)
        self.report(f"   -> {path}")

    def compare(self) -> None:
        """Classify digits and tumours after training on more and more of them."""
        sizes: tuple[int, ...] = (50, 100, 200, 400, 1200)
        rest = len(self.X) - sizes[-1]
        self.report(
            f"1. Classify digits: 10 classes, 64 pixels, tested on {rest} images, mean of {SPLITS} splits, * = best\n"
            "   Regularisation of every model: by log-loss on a held-out third of its n training images."
        )
        with threadpoolctl.threadpool_limits(1, "blas"):  # these matrices are too small for threads
            curves = learning_curves(self.X, self.y, sizes, "passthrough", self.seed)
        self.report(f"{table(curves, sizes)}\n{verdict(curves, sizes)}")
        self.save(draw_curves(curves, sizes), "learning-curves.png")
        X, y = load_breast_cancer(return_X_y=True)
        sizes = (30, 100, 400)
        self.report("   The same for breast tumours: 2 classes, 30 measurements (standardised).")
        with threadpoolctl.threadpool_limits(1, "blas"):
            curves = learning_curves(X, y, sizes, StandardScaler(), self.seed)
        self.report(f"{table(curves, sizes)}\n{verdict(curves, sizes)}\n")

    def score(self, model: GenerativeClassifier) -> None:
        """Find the least likely images, and how many of the mistakes are among them."""
        log_prob = model.log_prob(self.X_test)
        predicted = model.predict(self.X_test)
        order = np.argsort(log_prob)
        tenth = order[: len(order) // 10]
        wrong = predicted != self.y_test
        self.report(
            f"2. Score images by log p(x): the least likely tenth of the {len(order)} test images holds"
            f" {wrong[tenth].sum()} of all {wrong.sum()} mistakes."
        )
        shown = order[:20]
        captions = [reading(self.y_test[i], predicted[i]) for i in shown]
        images = self.X_test[shown].reshape(2, 10, -1)
        self.save(draw_images(images, "The least likely test images, with their labels", captions), "least-likely.png")

    def generate(self, reg_covar: float = 0.001, copies: int = 8) -> None:
        """Draw new digits of every class, from a model with little noise of its own."""
        self.report(f"3. Generate digits: each column is drawn from the density of one class (reg_covar {reg_covar}).")
        model = GenerativeClassifier(Gaussian(reg_covar=reg_covar)).fit(self.X_train, self.y_train)
        images, _ = model.sample(y=np.tile(model.classes_, copies), random_state=self.rng)
        grid = images.reshape(copies, len(model.classes_), -1)
        self.save(draw_images(grid, "Generated digits", [str(k) for k in model.classes_]), "generated.png")

    def complete(self, model: GenerativeClassifier) -> None:
        """Fill in the lower half of test images, their class unknown."""
        hidden = self.X_test.copy()
        hidden[:, HIDDEN] = np.nan
        completed = model.impute(hidden)
        predicted = model.predict(hidden)
        mean = self.X_train.mean(axis=0)
        error, error_of_mean = (np.sqrt(np.mean((self.X_test - z)[:, HIDDEN] ** 2)) for z in (completed, mean))
        self.report(
            f"4. Complete digits from their upper half, class unknown: the hidden pixels are off by {error:.3f}\n"
            f"   (root mean square of ink from 0 to 1; the mean image: {error_of_mean:.3f}). That half alone tells the"
            f" digit in {(predicted == self.y_test).mean():.1%}."
        )
        shown = [int(np.flatnonzero(self.y_test == k)[0]) for k in model.classes_]
        figure = draw_images(
            np.stack([self.X_test[shown], hidden[shown], completed[shown]]),
            "Lower half hidden, then completed by its expectation",
            [reading(self.y_test[i], predicted[i]) for i in shown],
            ["original", "hidden", "completed"],
        )
        self.save(figure, "completed.png")

    def time(self, n: int = 30_000, reg_covar: float = 0.01) -> None:
        """Time fit and posterior against NumPy."""
        rows = np.resize(np.arange(len(self.X)), n)
        X = self.X[rows] + self.rng.normal(scale=0.05, size=(n, SIDE * SIDE))
        seconds = race(X, self.y[rows], reg_covar)
        self.report(
            f"5. Time: fit of {n:,} digits (repeated, with noise; 10 full covariances) and posterior of all of them,\n"
            f"   the same result to 1e-9; median of {len(seconds)} alternating runs, and the best\n"
            f"   {'':<19}{'fit':>10} {'posterior':>10} {'together':>10} {'best':>10}"
        )
        for k, name in enumerate(("fastgen", "NumPy")):
            together = seconds[:, k].sum(axis=1)
            cells = (*np.median(seconds[:, k], axis=0), np.median(together), together.min())
            self.report(f"   {name:<18}" + "".join(f"{1e3 * cell:>8.0f} ms" for cell in cells))


def run(output: Path, seed: int, report: Report) -> None:
    """Do everything: text goes to ``report``, pictures to the folder ``output``."""
    start = perf_counter()
    report(f"fastgen {__version__} ({_kernels.isa}, threads: {get_num_threads()})\n")
    demo = Demo(output, seed, report)
    demo.compare()
    model = GenerativeClassifier(Gaussian(reg_covar=0.01)).fit(demo.X_train, demo.y_train)
    report(f"   From here on: full covariances of {len(demo.X_train)} images, reg_covar 0.01 (fixed; ink is 0 to 1).\n")
    demo.score(model)
    demo.generate()
    demo.complete(model)
    demo.time()
    report(f"\nDone in {perf_counter() - start:.1f} s.")
