"""A reference of protocol U: the largest axis of the cells, its end chosen by a bulk model (one sign bit)."""

from __future__ import annotations

import numpy as np

from atsdp_utils.baselines.classical import Logistic


class PC1Sign(Logistic):
    """First principal component of the unlabelled cells, signed by a logistic regression on bulk lines.

    `fit` is the logistic regression's. `predict_proba` takes the cells it is given as one set and computes their first
    principal component, turned so that it correlates positively with the regression's decision on the same cells. No
    cell label is read; where two groups of cells are the largest difference between them, all that is left to the bulk
    lines is which group is which. The values of a cell depend on the cells beside it, so scores of two sets cannot be
    put together.
    """

    def predict_proba(self, X) -> np.ndarray:
        """P(sensitive), (n,): the logistic function of the component in units of its standard deviation.

        The map is increasing, so AUC and AP are the component's; 0.5 is the mean of the cells and no calibrated
        probability. Cells that do not differ, or a decision that is uncorrelated with the component, give 0.5.
        """
        from scipy.special import expit

        X = np.asarray(X, np.float64)
        centred = X - X.mean(axis=0)
        left, size, _ = np.linalg.svd(centred, full_matrices=False)
        if size[0] <= np.finfo(np.float32).eps * np.abs(X).max(initial=1.0) * np.sqrt(X.size):
            return np.full(len(X), 0.5)
        component = left[:, 0] * np.sqrt(len(X))
        decision = self.model_.decision_function(self._transform(np.asarray(X, np.float32)))
        return expit(component * np.sign(component @ (decision - decision.mean())))
