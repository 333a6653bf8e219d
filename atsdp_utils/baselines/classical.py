"""What the paper leaves out: classical models on the same rows and folds (it argues "PCA+SVM" away without a test)."""

import numpy as np
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from atsdp_utils.baselines.rows import check_rows
from atsdp_utils.data import preprocess


class SklearnBaseline:
    """fit and predict_proba around a scikit-learn estimator: `_estimator(X, y)` of a subclass."""

    def __init__(self, *, seed: int = 0, **hyperparameters) -> None:
        self.seed = seed
        self.hyperparameters = hyperparameters

    def fit(self, X, y, *, balance="none", source=None):
        X, y = check_rows(X, y)
        self.model_ = self._fitted(X, y, balance)
        return self

    def _fitted(self, X, y, balance):
        """The estimator, fitted on balanced rows."""
        X, y, weight = preprocess.balance(X, y, balance, self.seed)
        return self._estimator(X, y).fit(self._transform(X), y, sample_weight=weight)

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

    def fit(self, X, y, *, balance="none", source=None):
        if np.shape(X)[1:] != (1,):
            raise ValueError(f"X: got shape {np.shape(X)}, expected (n, 1), the log library size")
        return super().fit(X, y, balance=balance)


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
    """Principal components, then a support vector machine with RBF kernel; probabilities by Platt's sigmoid.

    The sigmoid is fitted on rows that the machine did not learn from (three folds), each fold balanced by itself; if
    rows are balanced, both classes weigh the same in it.
    """

    def _fitted(self, X, y, balance):
        folds = min(3, np.bincount(y).min())
        if folds < 2:
            raise ValueError("y: PCA + SVM needs two rows of each class to calibrate its probabilities")
        decision = np.empty(len(y))
        for rows, held in StratifiedKFold(folds, shuffle=True, random_state=self.seed).split(X, y):
            decision[held] = self._machine(X[rows], y[rows], balance).decision_function(X[held])
        self.sigmoid_ = LogisticRegression(class_weight=None if balance == "none" else "balanced")
        self.sigmoid_.fit(decision[:, None], y)
        return self._machine(X, y, balance)

    def _machine(self, X, y, balance):
        X, y, weight = preprocess.balance(X, y, balance, self.seed)
        pca = PCA(min(self.hyperparameters["components"], *X.shape), random_state=self.seed)
        return make_pipeline(pca, SVC(C=self.hyperparameters["C"])).fit(X, y, svc__sample_weight=weight)

    def predict_proba(self, X) -> np.ndarray:
        decision = self.model_.decision_function(np.asarray(X, np.float32))
        return self.sigmoid_.predict_proba(decision[:, None])[:, 1]


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
    """Share of sensitive cells among the nearest training cells, each vote with the weight of its class."""

    def _fitted(self, X, y, balance):
        self.votes_ = np.ones(2) if balance == "none" else 1 / np.bincount(y)
        return self._estimator(X, y).fit(X, y)

    def predict_proba(self, X) -> np.ndarray:
        resistant, sensitive = self.model_.predict_proba(np.asarray(X, np.float32)).T * self.votes_[:, None]
        return sensitive / (resistant + sensitive)

    def _estimator(self, X, y):
        k = min(self.hyperparameters["neighbours"], len(X))
        return KNeighborsClassifier(k, metric=self.hyperparameters["metric"])
