"""Irises of which a map knows two kinds, for the tests of `update`."""

import copy

import numpy as np
from sklearn.datasets import load_iris

from ptsne import ParametricTSNE

IRIS = load_iris()
OLD, NEW = IRIS.data[50:], IRIS.data[:50]  # versicolor and virginica are known, setosa is not
ELSEWHERE = NEW[:40] + np.array([0, 9, 0, 9])


def quick(**parameters):
    return ParametricTSNE(perplexity=10, max_iter=40, random_state=0, **parameters)


def as_it_is(fitted):
    again = copy.copy(fitted)
    again.__dict__.update(vars(fitted))
    return again
