"""Fits the polynomial of `gelu` in crates/encoder/src/kernels/math.rs (needs numpy and scipy).

GELU(x) = x * Phi(x). For |x| <= X, Phi(x) = 1/2 + x * p(u) with u = 2 x^2 / X^2 - 1; p is fitted by
least squares reweighted towards the largest error (Lawson), on Chebyshev points.
"""

import numpy as np
from numpy.polynomial import chebyshev
from scipy.special import ndtr

X, DEGREE, N = 5.3, 13, 4000

u = np.cos((np.arange(N) + 0.5) * np.pi / N)
x = np.sqrt((u + 1) / 2) * X
wanted = (ndtr(x) - 0.5) / np.maximum(x, 1e-9)
basis, scale, weight = chebyshev.chebvander(u, DEGREE), np.maximum(x, 0.05), np.ones(N)
for _ in range(60):
    rows = scale * np.sqrt(weight)
    fit = np.linalg.lstsq(basis * rows[:, None], wanted * rows, rcond=None)[0]
    error = np.abs((basis @ fit - wanted) * scale)
    weight *= error / error.mean() + 1e-3
    weight /= weight.mean()
print("largest error of Phi:", error.max())
for power, value in enumerate(chebyshev.cheb2poly(fit)):
    print(f"u^{power}: {np.float32(value)!r}")
