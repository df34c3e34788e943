"""Rules of the paired map: each operation's exact difference ``y - y0 = A (z - z0)``.

z and z0 are what entered the operation at the row and at its reference. Linear operations keep
their derivative. A scalar function gets the slope of its chord, a product the mean of each factor,
a maximum the mixture of its two winners whose sum is exact, and softmax the logarithmic mean of
its two results.
"""

from .table import hold_difference, keep

__all__ = ["hold_difference", "keep"]
