"""How much the score of a cell depends on the other cells of its file, since genes are standardised over all of them.

Parts of a file, standardised by themselves and scored by the same trained networks, show by how much for that file.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from atsdp_utils.data.preprocess import Standardizer

#: Names of columns that say where or from whom a cell comes.
ORIGIN = re.compile(r"(?i)(orig[._ ]ident|batch|sample|patient|donor|library|lane|plate|culture)([._ ]?id)?s?")
#: Random divisions of a file into halves.
SPLITS = 5
#: Fewer cells are no part.
MIN_PART = 10
RANDOM, UNLIKE = "random halves", "most unlike halves"


def origins(obs: pd.DataFrame) -> dict[str, np.ndarray]:
    """What divides a file into patients, batches or cultures: name of a column or of the barcodes, (cells,) codes."""
    found = {str(c): pd.factorize(obs[c])[0] for c in obs if ORIGIN.fullmatch(str(c))}
    lane = obs.index.astype(str).str.extract(r"^[ACGT]{10,}-(\d+)$")[0]
    if lane.notna().all():
        found["the suffix of the barcodes"] = pd.factorize(lane)[0]
    return {name: codes for name, codes in found.items() if 1 < len(set(codes[codes >= 0])) < len(obs) / 2}


def said_of(parts: dict[str, np.ndarray]) -> list[str]:
    """What is said of a file of several patients, batches or cultures."""
    return [
        f"{len(set(codes[codes >= 0]))} values of {name}: genes are standardised over all of them together, so "
        "differences between them count as differences between cells; for an order within one, score it in a file of "
        "its own"
        for name, codes in parts.items()
    ]


def measure(
    score: Callable[[np.ndarray], np.ndarray], X: np.ndarray, p: np.ndarray, parts: dict[str, np.ndarray], seed: int
) -> dict[str, dict[str, float]]:
    """Score parts of a file standardised by themselves, with networks as they are, and compare with the whole file.

    `score` gives P(sensitive), (n,), of standardised cells (n, genes); X (cells, genes) is not yet standardised; p
    (cells,) is P(sensitive) in the whole file. For random halves, the halves on either side of the median of the first
    principal component, and each of `parts` (:func:`origins`): ``labels_changed``, the share of labels that change
    (mean over divisions), ``most`` in one division, and the mean ``rank_correlation`` of part and whole.
    """
    rng, n = np.random.default_rng([seed, 97]), len(X)
    ways: dict[str, list[np.ndarray]] = {RANDOM: [rng.permutation(n) < n // 2 for _ in range(SPLITS)]}
    ways |= {UNLIKE: [_unlike(X)]} | {f"parts by {name}": [codes] for name, codes in parts.items()}
    found = {}
    for way, divisions in ways.items():
        compared = [_compared(score, X, p, codes) for codes in divisions]
        if compared := [values for values in compared if values is not None]:
            changed, order = np.array(compared).T
            values = {"labels_changed": changed.mean(), "most": changed.max(), "rank_correlation": order.mean()}
            found[way] = {k: float(v) for k, v in values.items()}
    return found


def _alone(X: np.ndarray) -> np.ndarray:
    return Standardizer().fit_transform(X)


def _unlike(X: np.ndarray) -> np.ndarray:
    """Whether a cell is in the upper half by the first principal component of the standardised cells, (cells,) bool."""
    from sklearn.decomposition import PCA

    first = PCA(1, svd_solver="randomized", random_state=0).fit_transform(_alone(X))[:, 0]
    return np.argsort(np.argsort(first, kind="stable"), kind="stable") < len(X) // 2


def _compared(score: Callable, X: np.ndarray, p: np.ndarray, codes: np.ndarray) -> tuple[float, float] | None:
    """Share of labels that change and mean rank correlation over the parts of one division; None without two parts."""
    rows = [np.flatnonzero(codes == code) for code in np.unique(codes[codes >= 0])]
    rows = [part for part in rows if len(part) >= MIN_PART]
    if len(rows) < 2:
        return None
    both = [(score(_alone(X[part])), p[part]) for part in rows]
    changed = np.concatenate([(q >= 0.5) != (whole >= 0.5) for q, whole in both])
    order = [pd.Series(q).corr(pd.Series(whole), "spearman") for q, whole in both]
    return float(changed.mean()), float(np.mean(order))


def sentence(found: dict[str, dict[str, float]]) -> str:
    """What is said before the scores are read."""
    said = []
    for way, v in found.items():
        most = f" (at most {v['most']:.1%})" if v["most"] > v["labels_changed"] else ""
        order = f"rank correlation {v['rank_correlation']:.2f} within a part"
        said.append(f"standardised as {way}, {v['labels_changed']:.1%} of the labels change{most}, {order}")
    return (f"how much the scores of this file depend on which cells are in it: {'; '.join(said)}. The networks were "
            "the same; in files of their own the parts would also be aligned anew")  # fmt: skip
