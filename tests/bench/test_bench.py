"""The benchmark: rows of a tiny run, counted operations, and a page that shows what the committed table holds."""

import numpy as np
import pandas as pd
import pytest
import torch

from atsdp_utils.foundation import config, paths
from tests.bench import bench, plain, plan


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


def test_methods_side_by_side_end_by_themselves_and_are_told_to_one_auc(tmp_path, monkeypatch):
    size = bench.replace(bench.SHORT, reference_epochs=3)
    monkeypatch.setattr(bench, "LEVELS", (0.0, 0.1, 1.01))
    rows = [row for which in bench.BESIDE for row in bench.beside(size, which)]
    rows += [("memory", f"beside, {which}", "peak", "500", "MiB") for which in bench.BESIDE]
    rows += [("main loop", "autoencoder epoch", "share of the matrix-multiply peak", "0.5", "")]
    rows += [("cells", f"{n}", "prediction, cpu_seconds", f"{n**2 / 1e6}", "s") for n in (10_000, 100_000, 1000)]
    rows += [("workers", f"JOBS={j}, {n} seeds", "seconds", str(n), "s") for j, n in ((1, 1), (1, 4), (2, 4))]
    table = pd.DataFrame(rows, columns=plan.COLUMNS).astype({"value": str})
    passes = table[table.measure == "autoencoder passes"].set_index("case").value
    assert passes[bench.BESIDE["scdeal"]] == "3" and passes[bench.BESIDE["ours-quick"]] == "2"
    assert bench.level(table) == 0.1
    slopes = {words: slope for words, (_, _, slope) in bench.growth(table).items()}
    assert slopes == pytest.approx({"prediction with cells": 2, "bulk stages and transfers with seeds": 1})
    assert bench.growth(table)["prediction with cells"][0].tolist() == [1000, 10_000, 100_000]
    assert "To a held-out AUC of 0.10" in bench.page(table) and "power" in bench.page(table)
    bench.picture(table, tmp_path / "bench.svg")
    assert "processor seconds" in (tmp_path / "bench.svg").read_text()


def test_what_passes_of_the_autoencoder_buy_is_said_in_their_order():
    rows = [("passes, autoencoder", f"{g} genes, {n} passes", "held-out AUC", f"{v}", "")
            for g, n, v in ((6163, 10, 0.2), (6163, 0, 0.1), (100, 10, 0.4), (100, 0, 0.3))]  # fmt: skip
    said = bench.bought(pd.DataFrame(rows, columns=plan.COLUMNS))
    assert "after 0, 10 passes" in said and "on 100 genes 0.300, 0.400; on 6,163 genes 0.100, 0.200." in said
    assert bench.bought(pd.DataFrame(columns=plan.COLUMNS)) == ""


def test_the_plain_program_learns_and_moves_cells_towards_lines():
    torch.manual_seed(0)
    y = torch.arange(80) % 2
    x = torch.randn(80, 20) + 2.0 * y[:, None]
    net = plain.predictor(plain.encoder(20), (x, y), (x, y), 20, lambda net: None).eval()
    assert (net(x).argmax(1) == y).float().mean() > 0.9
    a_width_apart = plain.mmd2(torch.zeros(1, 1), torch.full((1, 1), plain.WIDTH))
    assert plain.mmd2(x, x).item() == pytest.approx(0, abs=1e-6)
    assert a_width_apart.item() == pytest.approx(2 - 2 * np.exp(-0.5), abs=1e-6)
    before = net[0][0].weight.clone()
    plain.transfer(net.train(), (x, y), x + 1, 1)
    assert not torch.equal(before, net[0][0].weight)


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


def test_an_interrupted_benchmark_keeps_the_sections_that_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES", tmp_path)
    bench.store(bench.as_table([("genes", "200 genes", "seconds", 1.0, "s"), ("gone", "a", "b", "c", "")]),
                tmp_path / "bench.csv")  # fmt: skip

    def one_section_then_stopped(size, jobs, names):
        yield bench.as_table([("genes", "200 genes", "seconds", 2.0, "s")])
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measured", one_section_then_stopped)
    with pytest.raises(KeyboardInterrupt):
        bench.main(["2"])
    assert plan.read(tmp_path / "bench.csv").value.tolist() == ["c", "2"]


def test_a_whole_benchmark_drops_the_rows_of_sections_that_are_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES", tmp_path)
    bench.store(bench.as_table([("gone", "a", "b", "c", "")]), tmp_path / "bench.csv")
    rows = bench.as_table([("genes", "200 genes", "failed", "killed", "")])
    monkeypatch.setattr(bench, "measured", lambda size, jobs, names: iter([rows]))
    monkeypatch.setattr(bench, "quick_stages", lambda: iter(()))
    assert bench.main(["2"]) == 1
    assert plan.read(tmp_path / "bench.csv").section.tolist() == ["genes"]
