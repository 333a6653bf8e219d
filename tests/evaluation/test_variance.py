"""Components of variance: a Latin square by hand, planted parts found again, and the tasks behind it."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from atsdp_utils.data import datasets
from atsdp_utils.evaluation import variance
from atsdp_utils.experiments import keys, tables
from atsdp_utils.experiments.task import SEEDED, Result, Task


@pytest.fixture
def prepared():
    """A key is that of the prepared cells, which a checkout that ran nothing has not."""
    datasets.prepare("A375-PLX4720")


def latin(n, lines=0.0, weights=0.0, batches=0.0, rest=0.0, seed=0):
    rng = np.random.default_rng(seed)
    a, b, c = (sd * rng.normal(size=n) for sd in (lines, weights, batches))
    rows = [(i, j, (i + j) % n, 0.7 + a[i] + b[j] + c[(i + j) % n] + rest * rng.normal())
            for i, j in itertools.product(range(n), repeat=2)]  # fmt: skip
    return pd.DataFrame(rows, columns=["lines", "weights", "batches", "auc"])


def test_mean_squares_by_hand():
    table = latin(3, seed=1).assign(auc=[0.1, 0.4, 0.4, 0.5, 0.6, 0.4, 0.9, 0.5, 1.0])
    found = variance.square(table)
    by_lines = np.array([0.3, 0.5, 0.8])
    total = ((table["auc"] - table["auc"].mean()) ** 2).sum()
    parts = {c: 3 * ((table.groupby(c)["auc"].mean() - table["auc"].mean()) ** 2).sum() for c in list(table)[:3]}
    rest = (total - sum(parts.values())) / 2
    mean_square = 3 * ((by_lines - by_lines.mean()) ** 2).sum() / 2
    assert found.loc["lines", "variance"] == pytest.approx((mean_square - rest) / 3)
    assert found.loc["rest", ["variance", "df"]].tolist() == pytest.approx([rest, 2])


def test_planted_parts_are_found_and_their_intervals_hold_them():
    truth = {"lines": 0.15, "weights": 0.05, "batches": 0.0, "rest": 0.04}
    found = [variance.square(latin(5, *truth.values(), seed=s)) for s in range(300)]
    for part, sd in truth.items():
        mean = np.mean([f.loc[part, "variance"] for f in found])
        assert mean == pytest.approx(sd**2, abs=0.0015 if part == "lines" else 0.0006)
        held = np.mean([f.loc[part, "low"] <= sd**2 <= f.loc[part, "high"] for f in found])
        assert 0.92 <= held <= 0.995, part


def test_every_level_meets_every_other_once_and_is_a_seed_of_its_own(prepared):
    tasks = [t for t in tables.variance("embedded", "quick") if t.dataset == "A375-PLX4720"]
    for a, b in itertools.combinations(SEEDED, 2):
        pairs = {(t.seed_of(a), t.seed_of(b)) for t in tasks}
        assert len(pairs) == len(tasks) == 25
    assert len({keys.key(t) for t in tasks}) == 25


def test_parts_that_have_the_seed_of_the_task_are_no_other_task(prepared):
    one = Task("A375-PLX4720", "U", "ATSDP-NET", "smoke", seed=3)
    same = Task("A375-PLX4720", "U", "ATSDP-NET", "smoke", seed=3, seeds=(("weights", 3), ("batches", 3)))
    other = Task("A375-PLX4720", "U", "ATSDP-NET", "smoke", seed=3, seeds=(("weights", 4),))
    assert keys.key(one) == keys.key(same) != keys.key(other)
    assert [other.seed_of(part) for part in SEEDED] == [3, 4, 3]
    with pytest.raises(ValueError, match="seeds: got .'noise'"):
        Task("A375-PLX4720", "U", "ATSDP-NET", "smoke", seeds=(("noise", 1),)).seed_of("lines")


def test_shares_of_the_variance_add_up_and_the_cells_have_theirs():
    y, rng = np.tile([0, 1], 30), np.random.default_rng(0)
    tasks, common = tables.variance("embedded", "smoke"), rng.normal(size=60)
    results = []
    for t in tasks:
        strength = {0: 0.2, 1: 1.0, 2: 2.0}[t.seed_of("lines")]
        p = 1 / (1 + np.exp(-(strength * y + common + 0.05 * rng.normal(size=60))))
        results.append(Result(t, np.arange(60), y, p, np.zeros(60, int), 0.0, 0))
    table = variance.components(results)
    assert table.groupby("dataset")["share"].sum().tolist() == pytest.approx([1, 1, 1])
    sd = table[table["dataset"] == "A375-PLX4720"].set_index("part")["sd"]
    assert sd[variance.WORDS["lines"]] > 4 * sd[variance.WORDS["weights"]] and sd[variance.WORDS["cells"]] > 0.02
    assert (table["sd_low"] <= table["sd"] + 1e-9).all() and (table["sd"] <= table["sd_high"] + 1e-9).all()
