"""The numbers of the paper's Tables 1 and 2, as printed there, and what is odd about them.

The paper calls the root of the mean squared error MSE (its Section 4 gives the formula).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of a table.

    Attributes:
        method: as the paper names it; [n] is the number in its list of references.
        numbers: (MAE, RMSE), people per picture, by column.
        notes: what one has to know to read them.
    """

    method: str
    numbers: dict[str, tuple[float, float]]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PublishedTable:
    """A table of the paper.

    Attributes:
        title: its number and subject.
        columns: key of the data set, as `protocol` of metrics.json names it -> column head.
        num_images: test pictures of each column.
        rows: in the paper's order.
        notes: of the whole table.
    """

    title: str
    columns: dict[str, str]
    num_images: dict[str, int]
    rows: tuple[Published, ...]
    notes: tuple[str, ...]


PART_A, PART_B, UCF_CC_50 = "shanghaitech-part_a", "shanghaitech-part_b", "ucf_cc_50"

_SOURCE = (
    "Published: V. A. Sindagi, V. M. Patel, CNN-based cascaded multi-task learning of high-level "
    "prior and density estimation for crowd counting, AVSS 2017, Table {}; [n] is its reference n."
)
_RMSE = (
    "MAE and MSE are in people per picture. What the paper calls MSE is the root of the mean "
    "squared error (its Section 4), an RMSE, and is never below the MAE."
)
_IMPOSSIBLE = (
    "MSE below MAE, which no RMSE of the same errors can be: another quantity must be printed, "
    "presumably a standard deviation; not comparable with the other rows"
)

TABLE_1 = PublishedTable(
    title="Table 1: Errors on the ShanghaiTech data set",
    columns={PART_A: "Part A", PART_B: "Part B"},
    num_images={PART_A: 182, PART_B: 316},
    rows=(
        Published("Zhang et al. [31]", {PART_A: (181.8, 277.7), PART_B: (32.0, 49.8)}),
        Published(
            "MCNN [32]",
            {PART_A: (110.2, 173.2), PART_B: (26.4, 41.3)},
            ("the later PyTorch release of MCNN by the cascade's first author says 110 / 169 on "
             "part A and 25 / 44 on part B",),
        ),
        Published("Single stage CNN", {PART_A: (130.4, 190.9), PART_B: (29.3, 40.5)}),
        Published(
            "Proposed method (cascaded CNN)",
            {PART_A: (101.3, 152.4), PART_B: (20.0, 31.1)},
            ("the authors' later PyTorch release says 101 / 148 on part A and 17 / 29 on part B",),
        ),
    ),
    notes=(_RMSE, _SOURCE.format(1)),
)  # fmt: skip

TABLE_2 = PublishedTable(
    title="Table 2: Errors on the UCF_CC_50 data set, 5-fold cross-validation",
    columns={UCF_CC_50: ""},
    num_images={UCF_CC_50: 50},
    rows=(
        Published(
            "Idrees et al. [10]",
            {UCF_CC_50: (419.5, 541.6)},
            ("two pairs of numbers for this method stand in the literature: 419.5 / 541.6, as in "
             "the paper, and 468.0 / 590.3",),
        ),
        Published("Zhang et al. [31]", {UCF_CC_50: (467.0, 498.5)}),
        Published("MCNN [32]", {UCF_CC_50: (377.6, 509.1)}),
        Published(
            "Onoro et al. [17]",
            {UCF_CC_50: (465.7, 371.8)},
            (f"{_IMPOSSIBLE}. It is the network with three scales; the one with two is listed "
             "elsewhere with 333.7 / 425.3",),
        ),
        Published("Walach et al. [27]", {UCF_CC_50: (364.4, 341.4)}, (_IMPOSSIBLE,)),
        Published("Proposed method (cascaded CNN)", {UCF_CC_50: (322.8, 397.9)}),
    ),
    notes=(
        _RMSE,
        "The data set has no official folds, and the paper does not say which it took, nor whether "
        "its MSE is that of all 50 pictures or the mean of the folds'.",
        _SOURCE.format(2),
    ),
)  # fmt: skip

TABLES = {"1": TABLE_1, "2": TABLE_2}
