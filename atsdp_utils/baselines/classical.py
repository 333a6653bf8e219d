"""What the paper leaves out: classical models on the same rows and the same folds.

The paper argues "PCA+SVM" away without a test. scikit-learn is imported when a model is made.
"""

from __future__ import annotations

import numpy as np

from atsdp_utils.baselines._rows import check_rows


class SklearnBaseline:
    """fit/predict_proba around a scikit-learn estimator. Subclasses define `_estimator`."""

    #: Argument of the estimator's fit that takes sample weights; None where it takes none.
    weight_argument: str | None = "sample_weight"

    def __init__(self, *, seed: int = 0, **hyperparameters) -> None:
        self.seed = seed
        self.hyperparameters = hyperparameters

    def _estimator(self, X: np.ndarray, y: np.ndarray):
        """Make the estimator; its sizes may depend on the training rows'."""
        raise NotImplementedError

    def fit(self, X, y, *, weight=None, source=None):
        """Train on rows X (n, genes), labels y in {0, 1}; see the package docstring."""
        X, y, weight = check_rows(X, y, weight)
        self.model_ = self._estimator(X, y)
        self.model_.fit(self._transform(X), y, **({self.weight_argument: weight} if self.weight_argument else {}))
        return self

    def _transform(self, X: np.ndarray) -> np.ndarray:
        """Change the values before the estimator sees them; nothing by default."""
        return X

    def predict_proba(self, X) -> np.ndarray:
        """P(sensitive), (n,)."""
        return self.model_.predict_proba(self._transform(np.asarray(X, np.float32)))[:, 1].astype(np.float64)


class Majority(SklearnBaseline):
    """The share of sensitive training rows, for every cell: the constant predictor. Fit it on unbalanced rows."""

    def _estimator(self, X, y):
        from sklearn.dummy import DummyClassifier

        return DummyClassifier(strategy="prior")


class Logistic(SklearnBaseline):
    """L2-penalised logistic regression."""

    def _estimator(self, X, y):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=500, **self.hyperparameters)

    @property
    def n_parameters(self) -> int:
        """Coefficients and intercept."""
        return self.model_.coef_.size + 1


class LibrarySize(Logistic):
    """Logistic regression on one number a cell, the logarithm of its library size: a check for a technical shortcut."""

    def fit(self, X, y, *, weight=None, source=None):
        """Train on X (n, 1)."""
        if np.shape(X)[1:] != (1,):
            raise ValueError(f"X: got shape {np.shape(X)}, expected (n, 1), the log library size")
        return super().fit(X, y, weight=weight)


class PcaSvm(SklearnBaseline):
    """Principal components, then a support vector machine with RBF kernel; probabilities by Platt's sigmoid."""

    def _estimator(self, X, y):
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import SVC

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
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(random_state=self.seed, **self.hyperparameters)


class Boosting(SklearnBaseline):
    """Gradient boosting on histograms; each split looks at a random tenth of the genes.

    Values are rounded to a quarter of a standard deviation, at most 33 levels: with sample weights scikit-learn
    otherwise takes weighted percentiles of every gene, ten times the time of the boosting itself.
    """

    def _transform(self, X):
        return np.round(4 * X).clip(-16, 16) / 4

    def _estimator(self, X, y):
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(early_stopping=False, random_state=self.seed, **self.hyperparameters)


class Neighbours(SklearnBaseline):
    """Share of sensitive cells among the nearest training cells; sample weights have no place in it."""

    weight_argument = None

    def _estimator(self, X, y):
        from sklearn.neighbors import KNeighborsClassifier

        k = min(self.hyperparameters["neighbours"], len(X))
        return KNeighborsClassifier(k, metric=self.hyperparameters["metric"])
