"""Print the polynomial coefficients of exp and log in ``src/fastgen/_kernels/simd.h``.

Remez exchange in 60 digits (W. Cheney, *Introduction to Approximation Theory*, ch. 3), minimising the
error relative to exp(r) and to log(1 + f). The leading coefficients are fixed, so that they are exact.
Needs mpmath. Run: ``python tools/minimax.py``.
"""

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 60
Function = Callable[[mp.mpf], mp.mpf]


def remez(f: Function, weight: Function, degree: int, a: mp.mpf, b: mp.mpf) -> tuple[list[mp.mpf], mp.mpf]:
    """Minimax polynomial of f on [a, b] under ``weight(x) * |f(x) - p(x)|``; and that error."""
    m = degree + 2
    nodes = [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * m)) for i in range(m)]
    grid = [a + (b - a) * mp.mpf(i) / 4000 for i in range(4001)]
    for _ in range(12):
        system = mp.matrix(m, m)
        for i, x in enumerate(nodes):
            for j in range(degree + 1):
                system[i, j] = x**j
            system[i, degree + 1] = (-1) ** i / weight(x)
        solution = mp.lu_solve(system, mp.matrix([f(x) for x in nodes]))
        coefficients = [solution[j] for j in range(degree + 1)]
        errors = [weight(x) * (f(x) - mp.polyval(coefficients[::-1], x)) for x in grid]
        extrema: list[tuple[mp.mpf, mp.mpf]] = []  # the largest error of each run of equal sign
        for x, e in zip(grid, errors, strict=True):
            if extrema and (e > 0) == (extrema[-1][1] > 0):
                if abs(e) > abs(extrema[-1][1]):
                    extrema[-1] = (x, e)
            else:
                extrema.append((x, e))
        if len(extrema) < m:
            break
        nodes = [x for x, _ in extrema[:m]]
    return coefficients, max(abs(e) for e in errors)


def show(name: str, coefficients: list[mp.mpf], error: mp.mpf) -> None:
    """Print the coefficients as C hexadecimal doubles, lowest degree first."""
    print(f"{name}: relative error 2^{float(mp.log(error, 2)):.1f}")
    print("  " + ", ".join(float(c).hex() for c in coefficients))


if __name__ == "__main__":
    half_ln2 = mp.log(2) / 2
    # exp(r) = 1 + r + r^2 q(r), |r| <= ln(2) / 2
    tiny = mp.mpf(10) ** -18
    show(
        "exp q",
        *remez(
            lambda r: (mp.exp(r) - 1 - r) / r**2 if abs(r) > tiny else mp.mpf(1) / 2,
            lambda r: r**2 / mp.exp(r) + tiny,
            9,
            -half_ln2,
            half_ln2,
        ),
    )
    # log(1 + f) = 2 atanh(s) = 2 s + s z p(z), s = f / (2 + f), z = s^2
    top = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
    show(
        "log p",
        *remez(
            lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z if z > tiny else mp.mpf(2) / 3,
            lambda z: z / 2 + tiny,
            6,
            mp.mpf(0),
            top,
        ),
    )
