"""How far two sides agree, beyond what chance would give, and how far any relabelling could bring them.

A constant prediction agrees with much of a street and knows nothing: agreement is judged by Cohen's kappa
(J. Cohen, A coefficient of agreement for nominal scales, 1960), which is 0 for it under every relabelling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """Of a joint count of classes.

    `miou` is the mean IoU of the classes that occur, which is what people know; `kappa` is the agreement of
    the labelled pixels (gt is a class) beyond chance. `labelled` of all pixels have a class in gt. Of the
    classes of which gt has a share of at least `SEEN`, `classes` have an IoU of at least `ENOUGH`; there are
    `present` of them.
    """

    miou: float
    kappa: float
    labelled: float
    classes: int
    present: int

    @property
    def weight(self) -> float:
        """What readings are compared by: agreement beyond chance, of all pixels that could be labelled."""
        return max(self.kappa, 0.0) * self.labelled


# An IoU that shows a class to be recognised, and the share of pixels below which a class shows nothing.
ENOUGH, SEEN = 0.1, 0.002


def agreement(joint: Counts) -> Agreement:
    """Of a joint count (n + 2, n + 2), rows gt, columns prediction, the last two void and outside."""
    n = joint.shape[0] - 2
    of_classes = joint[:n]
    labelled, pixels = int(of_classes.sum()), int(joint.sum())
    if labelled == 0:
        return Agreement(0.0, 0.0, 0.0, 0, 0)
    right = np.diagonal(of_classes).astype(np.float64)
    rows, columns = of_classes.sum(axis=1), of_classes[:, :n].sum(axis=0)
    share = float(right.sum() / labelled)
    chance = float(rows.astype(np.float64) @ columns / float(labelled) ** 2)
    kappa = (share - chance) / (1 - chance) if chance < 1 else 0.0
    union = rows + columns - right
    miou = float(np.mean(right[union > 0] / union[union > 0]))
    known = (rows >= SEEN * labelled) & (union > 0)
    classes = int(np.count_nonzero(right[known] >= ENOUGH * union[known]))
    return Agreement(miou, kappa, labelled / pixels, classes, int(known.sum()))


def best_relabelling(joint: Counts) -> npt.NDArray[np.int64]:
    """For each row the column that one-to-one gives the largest sum, int64 (rows,); rows <= columns.

    The Hungarian method with potentials, one row after the other (H. W. Kuhn 1955, in the O(n^2 m) form of
    R. Jonker and A. Volgenant 1987).
    """
    rows, columns = joint.shape
    assert rows <= columns
    cost = -joint.astype(np.float64)
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, np.int64)  # of each column the row, from 1; column 0 is the row in hand
    for row in range(1, rows + 1):
        owner[0] = row
        column = 0
        slack = np.full(columns + 1, np.inf)
        came_from = np.zeros(columns + 1, np.int64)
        done = np.zeros(columns + 1, np.bool_)
        while True:
            done[column] = True
            here = owner[column]
            reduced = cost[here - 1] - row_price[here] - column_price[1:]
            nearer = ~done[1:] & (reduced < slack[1:])
            slack[1:][nearer] = reduced[nearer]
            came_from[1:][nearer] = column
            step_to = 1 + int(np.argmin(np.where(done[1:], np.inf, slack[1:])))
            step = slack[step_to]
            row_price[owner[done]] += step
            column_price[done] -= step
            slack[~done] -= step
            column = step_to
            if owner[column] == 0:
                break
        while column:
            owner[column] = owner[came_from[column]]
            column = int(came_from[column])
    chosen = np.zeros(rows, np.int64)
    taken = np.flatnonzero(owner[1:])
    chosen[owner[1:][taken] - 1] = taken
    return chosen
