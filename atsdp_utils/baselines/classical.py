"""What the paper leaves out: classical models on the same rows and folds (it argues "PCA+SVM" away without a test)."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from atsdp_utils.baselines.rows import check_rows


class SklearnBaseline:
    """fit and predict_proba around a scikit-learn estimator: `_estimator(X, y)` of a subclass."""

    #: Argument of the estimator's fit that takes sample weights; None where it takes none.
    weight_argument: str | None = "sample_weight"

    def __init__(self, *, seed: int = 0, **hyperparameters) -> None:
        self.seed = seed
        self.hyperparameters = hyperparameters

    def fit(self, X, y, *, weight=None, source=None):
        X, y, weight = check_rows(X, y, weight)
        self.model_ = self._estimator(X, y)
        self.model_.fit(self._transform(X), y, **({self.weight_argument: weight} if self.weight_argument else {}))
        return self

    def _transform(self, X: np.ndarray) -> np.ndarray:
        return X

    def predict_proba(self, X) -> np.ndarray:
        return self.model_.predict_proba(self._transform(np.asarray(X, np.float32)))[:, 1].astype(np.float64)


class Majority(SklearnBaseline):
    """The share of sensitive training rows, for every cell: the constant predictor. Fit it on unbalanced rows."""

    def _estimator(self, X, y):
        return DummyClassifier(strategy="prior")


class Logistic(SklearnBaseline):
    """L2-penalised logistic regression."""

    def _estimator(self, X, y):
        return LogisticRegression(max_iter=500, **self.hyperparameters)

    @property
    def n_parameters(self) -> int:
        return self.model_.coef_.size + 1


class LibrarySize(Logistic):
    """Logistic regression on one number a cell, the logarithm of its library size: a check for a technical shortcut."""

    def fit(self, X, y, *, weight=None, source=None):
        if np.shape(X)[1:] != (1,):
            raise ValueError(f"X: got shape {np.shape(X)}, expected (n, 1), the log library size")
        return super().fit(X, y, weight=weight)


class PC1Sign(Logistic):
    """First principal component of the unlabelled cells, signed by a logistic regression on bulk lines.

    `predict_proba` turns the component of the cells it is given so that it correlates positively with the regression's
    decision on them. No cell label is read; scores of two sets of cells cannot be put together.
    """

    def predict_proba(self, X) -> np.ndarray:
        """P(sensitive), (n,): the logistic function of the component in units of its standard deviation.

        AUC and AP are the component's; 0.5 is the mean of the cells. Cells that do not differ, or a decision that is
        uncorrelated with the component, give 0.5.
        """
        X = np.asarray(X, np.float64)
        left, size, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
        if size[0] <= np.finfo(np.float32).eps * np.abs(X).max(initial=1.0) * np.sqrt(X.size):
            return np.full(len(X), 0.5)
        component = left[:, 0] * np.sqrt(len(X))
        decision = self.model_.decision_function(self._transform(np.asarray(X, np.float32)))
        return expit(component * np.sign(component @ (decision - decision.mean())))


class PcaSvm(SklearnBaseline):
    """Principal components, then a support vector machine with RBF kernel; probabilities by Platt's sigmoid."""

    def _estimator(self, X, y):
        folds = min(3, np.bincount(y).min())
        if folds < 2:
            raise ValueError("y: PCA + SVM needs two rows of each class to calibrate its probabilities")
        n_components = min(self.hyperparameters["components"], *X.shape, len(X) * (folds - 1) // folds)
        pca = PCA(n_components, random_state=self.seed)
        svm = CalibratedClassifierCV(SVC(C=self.hyperparameters["C"]), method="sigmoid", cv=folds, ensemble=False)
        return make_pipeline(pca, svm)

    weight_argument = "calibratedclassifiercv__sample_weight"


class Forest(SklearnBaseline):
    """Random forest (Breiman, Machine Learning 2001)."""

    def _estimator(self, X, y):
        return RandomForestClassifier(random_state=self.seed, **self.hyperparameters)


class Boosting(SklearnBaseline):
    """Gradient boosting on histograms; each split looks at a random tenth of the genes.

    Values are rounded to a quarter of a standard deviation: with sample weights scikit-learn otherwise takes weighted
    percentiles of every gene, ten times the time of the boosting itself.
    """

    def _transform(self, X):
        return np.round(4 * X).clip(-16, 16) / 4

    def _estimator(self, X, y):
        return HistGradientBoostingClassifier(early_stopping=False, random_state=self.seed, **self.hyperparameters)


class Neighbours(SklearnBaseline):
    """Share of sensitive cells among the nearest training cells; sample weights have no place in it."""

    weight_argument = None

    def _estimator(self, X, y):
        k = min(self.hyperparameters["neighbours"], len(X))
        return KNeighborsClassifier(k, metric=self.hyperparameters["metric"])
