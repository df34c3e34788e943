"""A map that learns new rows and leaves the old ones where they are.

``new rows -> novel ones -> new landmarks -> a free place -> places and charts -> veto -> Drift``

Everything that the map knew is frozen: encoder, landmarks, places, charts, temperature. Only
landmarks are added, where groups of new rows are unlike anything known. The place of an old row can
change only if a new landmark enters the support of its sparsemax, so that the tolerance is kept by
construction: new landmarks that would move a known row farther are taken out again.
"""

from ptsne.updating.drift import Drift, Movement, Qualities, Quality
from ptsne.updating.stream import Stream
from ptsne.updating.updating import update_map

__all__ = ["Drift", "Movement", "Qualities", "Quality", "Stream", "update_map"]
