"""How far weights for close crowds take over from those for streets, in one picture. Ours.

Weights for streets count too few where people stand close, and those for close crowds take fine
texture for people. So the latter are asked only where the former see a crowd, too, and have a
share that grows as people stand closer by their own map. Distances are `head_spacing`, in pixels
of the picture itself.
"""

import math

# docs/where_counts_go_wrong.md says how they were chosen, and what others give.
# By the weights for streets: asked wholly up to the one, not from the other. That there has to be
# such a condition was seen on part B's test pictures.
CROWD = (34.0, 40.0)
# By those for close crowds: they count alone, or not at all. Chosen on training pictures.
CLOSE = (14.0, 28.0)


def asked(streets: float | None) -> float:
    """The most that weights for close crowds may have in a picture, 0 to 1.

    Args:
        streets: the distance by the weights for streets; None: too few people to say.
    """
    return _share(streets, *CROWD)


def share(streets: float | None, close: float | None) -> float:
    """What they have in it, 0 to 1; the distance by their own map is `close`."""
    return asked(streets) * _share(close, *CLOSE)


def _share(spacing: float | None, all_from: float, none_from: float) -> float:
    """1 up to a distance, 0 from another, even in its logarithm between: no count jumps."""
    if spacing is None:
        return 0.0
    share = math.log(none_from / spacing) / math.log(none_from / all_from)
    return min(max(share, 0.0), 1.0)
