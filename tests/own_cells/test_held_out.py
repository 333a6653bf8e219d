"""What the command says of held-out clusters of lines."""

import numpy as np
import pytest

from atsdp_utils.data import gdsc
from atsdp_utils.experiments import pseudo
from atsdp_utils.own_cells import held_out, predict, ranking

SETTINGS = predict.Settings(max_genes=200, members=2, jobs=1)


@pytest.fixture(scope="module")
def task():
    return pseudo.held_out_tasks("smoke")[0]


def test_labels_of_the_cluster_decide_the_auc_and_nothing_else(task, monkeypatch):
    drug, cluster = task
    found = held_out._rows(cluster, [drug], SETTINGS).iloc[0]
    own, original = pseudo.clusters() == cluster, gdsc.load_bulk

    def turned(drug=None, exclude=()):
        bulk = original(drug, exclude)
        of_cluster = np.isin(bulk.lines, original().lines[own]) & (bulk.y >= 0)
        bulk.y[of_cluster] = 1 - bulk.y[of_cluster]
        return bulk

    monkeypatch.setattr(gdsc, "load_bulk", turned)
    other = held_out._rows(cluster, [drug], SETTINGS).iloc[0]
    assert other["auc"] == pytest.approx(1 - found["auc"]) and found["auc"] != 0.5
    assert found.drop("auc").equals(other.drop("auc"))
    assert set(found.index) == {*ranking.COLUMNS, "cluster", "auc"} - {"clusters_auc"}


def test_no_line_of_the_cluster_trains_or_is_held_out(task, monkeypatch):
    drug, cluster = task
    learned, original = [], predict.learn

    def spy(drug, source, given, say):
        learned.append((source, given))
        return original(drug, source, given, say)

    monkeypatch.setattr(predict, "learn", spy)
    held_out._rows(cluster, [drug], SETTINGS)
    ((source, given),) = learned
    own = pseudo.clusters() == cluster
    assert len(source.y) == (~own).sum() and len(given.where) == own.sum()
    assert source.y[source.y >= 0].size == (gdsc.load_bulk(drug).y[~own] >= 0).sum()


def test_rows_are_kept_and_read_again(task, run_folders, monkeypatch):
    _, cluster = task
    first = held_out.held_out_rows(cluster, "smoke")
    monkeypatch.setattr(held_out, "_rows", None)
    assert held_out.held_out_rows(cluster, "smoke").equals(first)
    assert first["cluster"].eq(cluster).all() and first["auc"].between(0, 1).all()
