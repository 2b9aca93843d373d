"""How far weights for close crowds take over from those for streets, in one picture. Ours.

Weights for streets count too few where people stand close, and those for close crowds take leaves
and railings for people. So the latter are asked only where the former see a crowd, too, and have a
share that grows as people stand closer by their own map. Distances are `head_spacing`, in pixels
of the picture itself.
"""

import math

# Chosen on training pictures; docs/where_counts_go_wrong.md says how, and what others give.
CROWD = (34.0, 40.0)  # by the weights for streets: asked wholly up to the one, not from the other
CLOSE = (14.0, 28.0)  # by those for close crowds: they count alone, or not at all


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
