"""Calibration and conformal sets from held-out cell lines, for any score. They hold for lines, not under shift."""

import numpy as np


def fewest(alpha: float) -> int:
    """Lines of a class from which on a set can leave its label out; with fewer, no conformal p is at most `alpha`."""
    return int(np.ceil(1 / alpha)) - 1


class Calibration:
    """What scores mean: isotonic probabilities and split-conformal sets, from lines that no training saw.

    Parameters
    ----------
    z : (n,)
        Scores of held-out lines on any scale, higher for sensitive ones.
    y : (n,)
        Their labels: 0 resistant, 1 sensitive.

    Raises
    ------
    ValueError
        If the labels are not of both classes, or others than 0 and 1 are among them.
    """

    def __init__(self, z: np.ndarray, y: np.ndarray) -> None:
        from sklearn.isotonic import IsotonicRegression

        if set(np.unique(y).tolist()) != {0, 1}:
            raise ValueError(f"y: got labels {np.unique(y).tolist()}, expected held-out lines of both classes, 0 and 1")
        self.isotonic_ = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(z, y)
        # Nonconformity to a label is how far the score lies on the other side.
        self.scores_ = {0: np.sort(z[y == 0]), 1: np.sort(-z[y == 1])}

    def proba(self, z: np.ndarray) -> np.ndarray:
        """P(sensitive) among lines with such a score, (n,)."""
        return self.isotonic_.predict(z)

    def sets(self, z: np.ndarray, alpha: float = 0.1) -> np.ndarray:
        """Class-conditional split-conformal sets, (n, 2) bool: resistant, sensitive.

        A label is in the set if its conformal p-value, (1 + lines of that class at least as strange) / (lines + 1),
        exceeds `alpha`. For a new row exchangeable with the lines, each class is covered with probability
        >= 1 - alpha; cells are not exchangeable with lines, so nothing is guaranteed for them.

        Parameters
        ----------
        z : (n,)
            Scores of new rows, on the scale of the lines' scores.
        alpha : float
            Miss rate: the share of rows of a class whose label may be missing from their set.

        Returns
        -------
        ndarray
            (n, 2) bool: whether the set holds resistant, and whether it holds sensitive. It may hold both or none.

        Raises
        ------
        ValueError
            If `alpha` is not between 0 and 1.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: got {alpha}, expected a miss rate in (0, 1)")
        strange = {0: z, 1: -z}
        p = [(1 + len(s) - np.searchsorted(s, strange[c], side="left")) / (len(s) + 1) for c, s in self.scores_.items()]
        return np.column_stack(p) > alpha
