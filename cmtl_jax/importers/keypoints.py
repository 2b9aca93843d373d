"""Where the head is among the named key points of a person."""

from collections.abc import Mapping

_HEADS = ("head", "head_center", "head_centre", "head_top", "top_head", "head_bottom")
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")


def head(points: Mapping[str, tuple[float, float]]) -> tuple[float, float] | None:
    """The head of a person (ours).

    Args:
        points: (x, y) of the key points that are marked, by name.

    Returns:
        The key point of the head; else the mean of those of the face (nose, eyes, ears); else the
        only one there is; None where none of them tells.
    """
    named = {name.lower().replace(" ", "_").replace("-", "_"): xy for name, xy in points.items()}
    head = next((named[name] for name in _HEADS if name in named), None)
    face = [named[name] for name in _FACE if name in named]
    if head is None and len(named) == 1:
        face = list(named.values())
    if head is not None or not face:
        return head
    return sum(x for x, _ in face) / len(face), sum(y for _, y in face) / len(face)
