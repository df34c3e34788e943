"""Pictures of a map and of its explanations: arrays or an `Explanation` in, matplotlib `Axes` out.

Every function takes an optional `ax` and returns the `Axes` it drew on, or an array of them where a
picture has panels. Colours are safe for colour-blind readers; red means +, blue means -, in every
picture.
"""

from ptsne.plots.census import region_census
from ptsne.plots.chain import chain
from ptsne.plots.contrast import contrast, waterfall
from ptsne.plots.curve import training_curve
from ptsne.plots.displacement import contribution_grid, contributions
from ptsne.plots.field import feature_field
from ptsne.plots.live import LiveMap
from ptsne.plots.loadings import loadings
from ptsne.plots.overlay import overlay
from ptsne.plots.scatter import map
from ptsne.plots.stretch import local_stretch
from ptsne.plots.trust import trust

__all__ = [
    "LiveMap",
    "chain",
    "contrast",
    "contribution_grid",
    "contributions",
    "feature_field",
    "loadings",
    "local_stretch",
    "map",
    "overlay",
    "region_census",
    "training_curve",
    "trust",
    "waterfall",
]
