"""The benchmark: rows of a tiny run, counted operations, and a page that shows what the committed table holds."""

import pandas as pd
import pytest
import torch

from atsdp_utils.experiments import plan
from atsdp_utils.foundation import config, paths
from tests.bench import bench


def test_operations_of_an_epoch_counted_by_hand():
    arch = config.Architecture(bottleneck=2, encoder=(3,))
    # products a layer and sample: 5x3, 3x2, 2x3, 3x5; forward, weights, inputs (no inputs for the first layer)
    assert bench.autoencoder_flops(5, arch, rows=7) == 7 * 2 * (3 * (15 + 6 + 6 + 15) - 15)


def test_rows_of_the_bulk_stage():
    size = bench.replace(bench.SHORT, reference_epochs=2)
    table = pd.DataFrame([*bench.bulk(size), *bench.reference(size)], columns=plan.COLUMNS)
    stages = table[(table.section == "bulk") & (table.measure == "held-out AUC")]
    assert stages.case.tolist() == ["smoke profile", "paper profile", "2 epochs, never stopped"]
    assert stages.value.between(0.3, 1).all()
    assert table[table.measure == "lines"].value.tolist() == [803]
    share = table[table.measure == "share of the matrix-multiply peak"].value.item()
    assert 0 < share < 1


def test_a_missing_gpu_is_a_row():
    table = pd.DataFrame([*bench.gpu(bench.SHORT)], columns=plan.COLUMNS)
    if not torch.cuda.is_available():
        assert table[table.measure == "skipped"].value.tolist() == ["no CUDA device here"]


@pytest.mark.parametrize(("auc", "seconds", "held"), [(0.80, 20, "met"), (0.80, 36, "not met"), (0.79, 20, "not met")])
def test_target_needs_both_the_score_and_the_time(auc, seconds, held):
    rows = [("bulk", "500 epochs, never stopped", "held-out AUC", "0.803", ""),
            ("bulk", "500 epochs, never stopped", "cpu_seconds", "200", "s"),
            ("bulk", "quick profile", "held-out AUC", str(auc), ""),
            ("bulk", "quick profile", "cpu_seconds", str(seconds), "s")]  # fmt: skip
    first = bench.target(pd.DataFrame(rows, columns=plan.COLUMNS)).splitlines()[0]
    assert f"Target **{held}**" in first and f"{auc:.3f}" in first


def test_the_page_shows_the_committed_table():
    table = plan.read(paths.ROOT / "figures" / "bench.csv")
    assert bench.PAGE.read_text() == bench.page(table)


def test_without_a_benchmark_the_page_says_so(tmp_path):
    assert "make bench" in bench.page(plan.read(tmp_path / "none.csv"))


def test_sections_that_run_again_replace_their_rows():
    row = ("own cells", "60 x 200", "seconds")
    old = pd.DataFrame([(*row, "1", "s"), ("cells", "300", "seconds", "2", "s")], columns=plan.COLUMNS)
    new = pd.DataFrame([(*row, "3", "s"), (*row[:2], "cpu_seconds", "4", "s")], columns=plan.COLUMNS)
    assert bench.replaced(old, new).value.tolist() == ["2", "3", "4"]
