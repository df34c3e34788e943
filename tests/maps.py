"""Small trained maps that the tests of pictures share."""

from functools import cache

from sklearn.datasets import load_iris

from ptsne import ParametricTSNE


@cache
def iris_map():
    """A quick map of the irises."""
    iris = load_iris(as_frame=True)
    return ParametricTSNE(max_iter=80, random_state=0).fit(iris.data)


@cache
def iris_explanation():
    """All irises explained on it."""
    return iris_map().explain(load_iris(as_frame=True).data)


def with_fields(explanation, **fields):
    """The same explanation with some fields replaced."""
    names = explanation.__dataclass_fields__
    return type(explanation)(**{n: getattr(explanation, n) for n in names} | fields)
