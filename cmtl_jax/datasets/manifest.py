"""Published numbers of the data sets, to hold a copy against."""

from typing import NamedTuple


class Expected(NamedTuple):
    """Pictures and annotated heads as released; heads in the mirrored variant, if there is one.

    The mirrored variant of ShanghaiTech (folder `ground-truth`) lacks the points outside the
    pictures.
    """

    pictures: int
    heads: int
    mirrored: int | None = None


MANIFEST: dict[str, dict[str, Expected]] = {
    "shanghaitech/part_a": {
        "train": Expected(300, 162_707, 162_413),
        "test": Expected(182, 78_970, 78_862),
    },
    "shanghaitech/part_b": {
        "train": Expected(400, 49_280, 49_151),
        "test": Expected(316, 39_208, 39_121),
    },
    "ucf_cc_50": {"all folds": Expected(50, 63_974)},
}


class Report(NamedTuple):
    """One plain line for people, and whether it is good news."""

    line: str
    good: bool


def check(dataset: str, split: str, pictures: int, heads: int) -> Report | None:
    """Compares a split with the published numbers.

    Args:
      dataset: a key of `MANIFEST`.
      split: a split of it.
      pictures: pictures found.
      heads: head points found in the annotation files.

    Returns:
      The report; None where nothing is published.
    """
    expected = MANIFEST.get(dataset, {}).get(split)
    if expected is None:
        return None
    found = f"{dataset} {split}: {pictures:,} pictures, {heads:,} heads"
    if (pictures, heads) == (expected.pictures, expected.heads):
        return Report(f"{found}; matches the published numbers", True)
    if (pictures, heads) == (expected.pictures, expected.mirrored):
        return Report(
            f"{found}; this is the mirrored variant without the points outside the pictures "
            f"(as released: {expected.heads:,} heads)",
            True,
        )
    return Report(
        f"{found}; deviates from the published {expected.pictures:,} pictures, "
        f"{expected.heads:,} heads: check the raw folder",
        False,
    )
