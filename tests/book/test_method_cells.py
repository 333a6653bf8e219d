"""Cells that write the method out say that the package does the same: a fault planted in the package makes them fail.

Cells with the tag ``method`` and the cell ``setup`` of a chapter run here in order, without its other cells.
"""

import json
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

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


INTERPRETED = "atsdp_utils.interpretation."


def gradients_alone(f: Callable) -> Callable:
    """Integrated gradients without the factor x - b."""

    def wrong(net, X, baseline):
        found = f(net, X, baseline)
        return found._replace(values=found.values / (X - baseline).numpy())

    return wrong


#: Each replaces ``module.name`` by ``wrong(original)``; a row a fault, in the order of chapters.
FAULTS: list[Fault] = [
    Fault("08", INTERPRETED + "gene_scores", "score_sets", lambda f: lambda X, on, bins: X @ (on / on.sum(axis=0))),
    Fault("08", INTERPRETED + "gene_scores", "expression_bins", lambda f: lambda X: 0 * f(X)),
    Fault("08", INTERPRETED + "gene_lists", "rank_sum", lambda f: lambda *given: tuple(-v for v in f(*given))),
    Fault("08", INTERPRETED + "gene_lists", "DIRECTIONS", lambda f: f[::-1]),
    Fault("08", INTERPRETED + "embedding", "signal_components", lambda f: lambda X: f(np.expm1(X))),  # of raw values
    Fault("09", INTERPRETED + "attribution", "log_odds", lambda f: lambda logits: logits[:, 0] - logits[:, 1]),
    Fault("09", INTERPRETED + "attribution", "integrated_gradients", lambda f: lambda net, X, b: f(net, X, 0 * b)),
    Fault("09", INTERPRETED + "attribution", "integrated_gradients", gradients_alone),
]
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
