"""Cells that write the method out say that the package does the same: a fault planted in the package makes them fail.

Cells with the tag ``method`` and the cell ``setup`` of a chapter run here in order, without its other cells.
"""

import json
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from torch.nn.functional import normalize

from atsdp_utils.data import preprocess
from atsdp_utils.experiments.task import build as build_model
from atsdp_utils.foundation import paths
from book import build


def method_of(number: str) -> list[tuple[str, str]]:
    """Names and code of the cells that write out the method of a chapter, after its parameters and its setup."""
    (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    wanted = [c for c in cells if c["id"] == "setup" or "method" in c["metadata"].get("tags", [])]
    smoke = build.PARAMETERS.replace('"quick"', '"smoke"')
    return [("parameters", smoke), *((c["id"], "".join(c["source"])) for c in wanted)]


def run_method(number: str) -> dict:
    """Run them as one program."""
    space = {"__name__": f"method_of_{number}", "display": lambda *shown: None}
    for name, code in method_of(number):
        exec(compile(code, f"{number}:{name}", "exec"), space)
    return space


class Fault(NamedTuple):
    """A wrong version of a name of the package, which the method cells of a chapter must notice."""

    chapter: str
    module: str
    name: str
    wrong: Callable


# --- chapter 7: a fold by hand, a network, the corrected test; chapter 18: what a baseline sees -----------------------


def scaled_on_all_rows(real):
    """The scaler of a fold sees its test rows."""

    def fit_fold(task, X, y, train, test, source):
        X = preprocess.Standardizer().fit_transform(X)
        model = build_model(task).fit(X[train], y[train], balance=task.balance, source=source)
        return model.predict_proba(X[test]), model

    return fit_fold


def balanced_before_held_out(real):
    """Rows are held out after copies of them were made."""
    return lambda X, y, how, share, seed: real(*preprocess.balance(X, y, how, seed)[:2], "none", share, seed)


def not_centred(real):
    """The cosine in place of the correlation."""
    return lambda A, B: normalize(A, dim=1) @ normalize(B, dim=1).T


def _gradients_alone(attributed):
    """Of chapter 9: integrated gradients without the factor x - b."""

    def wrong(net, X, baseline):
        found = attributed(net, X, baseline)
        return found._replace(values=found.values / (X - baseline).numpy())

    return wrong


def _macro_f1(scores):
    """Of chapter 11: the F1 called weighted is the mean of both classes."""

    def wrong(sensitive, resistant):
        right, averaged, balanced = scores(sensitive, resistant)
        averaged[2, 1] = averaged[2, -1]
        return right, averaged, balanced

    return wrong


def _accuracy(scores):
    """Of chapter 11: the share of all cells called right stands for the balanced accuracy."""

    def wrong(sensitive, resistant):
        right, averaged, _ = scores(sensitive, resistant)
        return right, averaged, right.sum(axis=0) / (sensitive + resistant)

    return wrong


def _without_the_new_one(sets):
    """Of chapter 12: the new sample does not count itself in its conformal p-value."""

    def wrong(self, z, alpha=0.1):
        strange = {0: z, 1: -z}
        p = [(len(s) - np.searchsorted(s, strange[c])) / (len(s) + 1) for c, s in self.scores_.items()]
        return np.column_stack(p) > alpha

    return wrong


def _added(to_parts):
    """Of chapter 12: the variance of each part of a square, and that of the rest, changed by `to_parts`."""

    def wrong_of(square):
        def wrong(table):
            found = square(table)
            part = found.index != "rest"
            rest = found.loc["rest", "variance"]
            found.loc[part, "variance"] = to_parts(found.loc[part, "variance"], rest, table["lines"].nunique())
            return found

        return wrong

    return wrong_of


SCORES, LISTS, MAPS, SHARES = (
    f"atsdp_utils.interpretation.{name}" for name in ("gene_scores", "gene_lists", "embedding", "attribution")
)
AUDIT, VERDICT = "atsdp_utils.reporting.audit", "atsdp_utils.reporting.verdict"
CALIBRATION, VARIANCE = "atsdp_utils.models.calibration", "atsdp_utils.evaluation.variance"
#: Each replaces ``module.name`` by ``wrong(original)``; a row a fault, in the order of chapters.
FAULTS: list[Fault] = [
    Fault("07", "atsdp_utils.experiments.protocols", "fit_fold", scaled_on_all_rows),
    Fault("07", "atsdp_utils.data.preprocess", "Standardizer.transform", lambda real: lambda self, X: X),
    Fault("07", "atsdp_utils.baselines.classical", "SklearnBaseline._fitted",
          lambda real: lambda self, X, y, balance: real(self, X, y, "none")),
    Fault("07", "atsdp_utils.baselines.rows", "split", balanced_before_held_out),
    Fault("07", "atsdp_utils.baselines.wrapper", "TorchBaseline.predict_proba",
          lambda real: lambda self, X: 1 - real(self, X)),
    Fault("07", "atsdp_utils.baselines.wrapper", "Logit.forward", lambda real: lambda self, X: 2 * real(self, X)),
    Fault("07", "atsdp_utils.evaluation.stats", "mean_test",
          lambda real: lambda values, folds=1, *args, **more: real(values, 1, *args, **more)),
    Fault("08", SCORES, "score_sets", lambda f: lambda X, on, bins: X @ (on / on.sum(axis=0))),  # no control genes
    Fault("08", SCORES, "expression_bins", lambda f: lambda X: 0 * f(X)),
    Fault("08", LISTS, "rank_sum", lambda f: lambda *given: tuple(-v for v in f(*given))),
    Fault("08", LISTS, "DIRECTIONS", lambda f: f[::-1]),
    Fault("08", MAPS, "signal_components", lambda f: lambda X: f(np.expm1(X))),  # of raw values
    Fault("09", SHARES, "integrated_gradients", lambda f: lambda net, X, b: f(net, X, 0 * b)),
    Fault("09", SHARES, "integrated_gradients", _gradients_alone),
    Fault("09", SHARES, "log_odds", lambda f: lambda logits: logits[:, 0] - logits[:, 1]),
    Fault("11", AUDIT, "confusion_scores", _macro_f1),
    Fault("11", AUDIT, "confusion_scores", _accuracy),
    Fault("11", VERDICT, "decide", lambda f: lambda effects, **sides: f([e.negated() for e in effects], **sides)),
    Fault("11", VERDICT, "decide", lambda f: lambda effects, above, below: f(effects, below, below)),
    Fault("11", VERDICT, "reproduces", lambda f: lambda e, **about: f(e._replace(low=e.value, high=e.value), **about)),
    Fault("12", CALIBRATION, "Calibration.sets", _without_the_new_one),
    Fault("12", CALIBRATION, "Calibration.sets", lambda f: lambda self, z, alpha=0.1: f(self, -z, alpha)),
    Fault("12", VARIANCE, "square", _added(lambda part, rest, levels: part * levels)),
    Fault("12", VARIANCE, "square", _added(lambda part, rest, levels: part + rest / levels)),
    Fault("18", "atsdp_utils.baselines.networks", "GeneTransformer.__init__",
          lambda real: lambda self, *args, identity=True: real(self, *args, identity=False)),
    Fault("18", "atsdp_utils.baselines.graph", "similarity", not_centred),
    Fault("18", "atsdp_utils.baselines.graph", "nearest", lambda real: lambda S, neighbours: real(S, neighbours - 1)),
    Fault("19", "atsdp_utils.experiments.cluster_study", "auc", lambda auc: lambda y, score: auc(1 - y, score)),
]  # fmt: skip
CHAPTERS = [p.stem[:2] for p in build.numbered() if len(method_of(p.stem[:2])) > 2]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_method_on_the_page_is_that_of_the_package(chapter, run_folders):
    run_method(chapter)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.chapter}-{f.name}")
def test_a_planted_fault_makes_the_chapter_fail(fault, run_folders, monkeypatch):
    import importlib

    module = importlib.import_module(fault.module)
    owner, _, attribute = fault.name.rpartition(".")
    place = getattr(module, owner) if owner else module
    original = getattr(place, attribute)
    wrong = fault.wrong(original)
    for name, loaded in list(sys.modules.items()):  # also where it was imported by its name
        if name.startswith("atsdp_utils") and not owner and getattr(loaded, attribute, None) is original:
            monkeypatch.setattr(loaded, attribute, wrong)
    monkeypatch.setattr(place, attribute, wrong)
    with pytest.raises(AssertionError):
        run_method(fault.chapter)


def test_chapters_that_show_the_method_have_a_fault_each():
    assert set(CHAPTERS) == {f.chapter for f in FAULTS}
