"""The command: scores, report and messages; what it must never do (use labels, change the input, write half a file)."""

import inspect
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from atsdp_utils.data import gdsc, preprocess
from atsdp_utils.foundation import config, paths
from atsdp_utils.interpretation import embedding
from atsdp_utils.models import plus
from atsdp_utils.models.calibration import Calibration
from atsdp_utils.own_cells import cell_values, cli, drugs, output, page, predict, prediction
from atsdp_utils.own_cells.cellfile import InputError

TINY = predict.Settings(
    members=2, max_genes=110, sample=60, chunk=16, jobs=1,
    arch=config.Architecture(bottleneck=32, encoder=(16,), predictor=(8,), heads=2, tokens=4, token_dim=8),
    training=replace(config.PROFILES["smoke"].training, balance="oversampling"),
)  # fmt: skip
N = 40


@pytest.fixture(scope="module")
def counts():
    """Counts of 40 cells of two kinds on 130 bulk genes and one unknown gene; the last cell is empty."""
    rng = np.random.default_rng(0)
    bulk = gdsc.load_bulk()
    genes = [*bulk.genes[np.argsort(-bulk.X.var(0))[:130]], "NOVEL1"]
    kind = np.arange(N) % 2
    X = rng.poisson(1 + 2 * kind[:, None] * (np.arange(len(genes)) % 3 == 0)).astype(np.float32)
    X[-1] = 0
    obs = pd.DataFrame(
        {"response": np.where(kind == 1, "sensitive", "resistant"), "batch": "b"}, [f"c{i}" for i in range(N)]
    )
    return anndata.AnnData(sparse.csr_matrix(X), obs, pd.DataFrame(index=genes))


@pytest.fixture
def atsdp(run_folders, monkeypatch):
    """Run the command with tiny trainings."""
    monkeypatch.setattr(predict, "SETTINGS", TINY)
    # The command may set it; it is restored after. Compiled code of other packages is kept there.
    monkeypatch.setenv("ATSDP_BUILD", os.environ.get("ATSDP_BUILD", str(run_folders / "unused")))

    def run(*arguments):
        given = [str(a) for a in arguments]
        return CliRunner().invoke(cli.app, [*given, *(["--members", "2"] if given[0] == "predict" else [])])

    return run


def save(adata, path, **changes):
    adata = adata.copy()
    for name, value in changes.items():
        setattr(adata, name, value)
    adata.write_h5ad(path)
    return path


@pytest.mark.slow
def test_scores_report_and_untouched_input(atsdp, counts, tmp_path):
    path = save(counts, tmp_path / "mine.h5ad")
    before = path.read_bytes()
    result = atsdp("predict", path, "--drug", "plx4720", "--labels", "response")
    assert result.exit_code == 0, result.output
    n = int((counts.obs.response.iloc[:-1] == "sensitive").sum())
    assert f"labels: response, {n} scored cells sensitive (1, True), {N - 1 - n} resistant" in words(result.output)
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.glob("mine*")} == {
        "mine.h5ad",
        "mine.PLX.4720.atsdp.h5ad",
        "mine.PLX.4720.atsdp.html",
    }
    out = anndata.read_h5ad(tmp_path / "mine.PLX.4720.atsdp.h5ad")
    np.testing.assert_array_equal(out.X.toarray(), counts.X.toarray())
    p, label, facts = out.obs.atsdp_p_sensitive, out.obs.atsdp_label, out.uns["atsdp"]
    assert np.isnan(p.iloc[-1]) and label.iloc[-1] == "not scored" and np.isnan(out.obs.atsdp_p_sd.iloc[-1])
    assert ((p.iloc[:-1] >= 0.5) == (label.iloc[:-1] == "sensitive")).all()
    assert p.iloc[:-1].between(0, 1).all() and (out.obs.atsdp_p_sd.iloc[:-1] > 0).all()
    assert (facts["drug"], facts["values"], facts["genes_shared"], facts["genes_used"]) == (
        "PLX.4720",
        "counts",
        130,
        110,
    )
    assert (facts["cells"], facts["cells_scored"], facts["members"]) == (N, N - 1, 2)
    assert any("not scored (atsdp_label): 1; atsdp_reason: zero" in w for w in facts["warnings"])
    calibrated, sets = out.obs.atsdp_p_calibrated, out.obs.atsdp_conformal
    assert np.isnan(calibrated.iloc[-1]) and sets.iloc[-1] == "not scored"
    order = np.argsort(p.iloc[:-1])
    assert (np.diff(calibrated.iloc[:-1].iloc[order]) >= 0).all() and calibrated.iloc[:-1].between(0, 1).all()
    assert set(sets.iloc[:-1]) <= {"sensitive", "resistant", "both", "neither"} and facts["conformal_alpha"] == 0.1
    assert facts["held_out_sensitive"] + facts["held_out_resistant"] == 161
    held = [s in (label, "both") for s, label in zip(sets, out.obs.response, strict=True)][:-1]
    assert facts["metrics"]["conformal_coverage"] == pytest.approx(np.mean(held))
    assert facts["metrics"]["cells"] == N - 1 and set(config.METRICS) < set(facts["metrics"])
    text = words((tmp_path / "mine.PLX.4720.atsdp.html").read_text())
    assert text.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|@import|url\(", text)
    assert "PLX.4720" in text and "zero on every gene" in text and "Against your labels" in text
    assert "130 as written" in text and not re.search(r"[.>]\.?Mean AUC", text)
    assert "Promised for cell lines, not for cells" in text and "In your labelled cells the sets hold" in text


def words(page_text):
    """A page without its breaks of lines."""
    return " ".join(page_text.split())


def predicted(resistant, sensitive, z):
    """A finished prediction of cells with mean logits z (nan: not scored) by a model with such held-out lines."""
    held, p = np.array([len(resistant), len(sensitive)]), plus.expit(np.array(z))
    lines, y = np.array([*resistant, *sensitive], float), np.repeat([0, 1], held)
    model = SimpleNamespace(calibration_=Calibration(lines, y)) if held.all() else None
    calibrated, sets = prediction.calibrate(model, held, p)
    facts = dict.fromkeys(("genes_in_file", "genes_shared", "genes_in_bulk", "genes_used"), 100) | {
        "drug": "D", "input": "mine", "gene_names": "", "gene_names_in": "", "gene_overlap": 1.0, "cells": len(p),
        "held_out_auc": 0.8, "held_out_resistant": held[0], "held_out_sensitive": held[1],
        "conformal_alpha": prediction.ALPHA, "cells_scored": 99, "genes_zero": 0, "warnings": [], "company": {},
        "model": "network",
    }  # fmt: skip
    unlike = dict.fromkeys(("mmd2", "mmd2_lines", "auc"), 0.5)
    layout = np.flatnonzero(~np.isnan(p)), np.zeros(((~np.isnan(p)).sum(), 2))
    reason = np.where(np.isnan(p), cell_values.ZERO, cell_values.SCORED)
    given = reason, np.array([90, 90]), facts, unlike, layout
    return prediction.Prediction(np.stack([p, p]), p, calibrated, sets, *given)


@pytest.mark.slow
def test_calibration_and_sets_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(page.paths, "REFERENCE", tmp_path)
    # alpha 0.1: a set holds resistant if 1 + #{resistant lines >= z} > 13 / 10, sensitive if 1 + #{<= z} > 1.
    apart = predicted(range(-12, 0), range(1, 10), [-5, -0.5, 0, 5, np.nan])
    assert list(apart.columns.atsdp_conformal) == ["resistant", "neither", "neither", "sensitive", "not scored"]
    np.testing.assert_allclose(apart.columns.atsdp_p_calibrated, [0, 0.25, 0.5, 1, np.nan])
    mixed = predicted(range(-8, 4), range(1, 10), [-5, 2, 3.5, np.nan])
    assert list(mixed.columns.atsdp_conformal) == ["resistant", "both", "sensitive", "not scored"]
    np.testing.assert_allclose(mixed.columns.atsdp_p_calibrated, [0, 0.5, 0.75, np.nan])
    mixed.metrics = prediction.score(np.array([1, 0, 1, -1]), mixed)
    asked = {k: v for k, v in mixed.metrics.items() if "conformal" in k}
    assert list(asked.values()) == pytest.approx([2 / 3, 1 / 2, 1])
    text = words(page.render(mixed, np.array([1, 0, 1, -1])))
    assert "true label of 67% (50% of the sensitive, 100% of the resistant cells), where lines are promised 90%" in text
    assert "33.3% both" in text and not any("held-out" in w for w in prediction.warnings(mixed))
    assert "Notebook 12 of the book measures both" in text
    mixed.facts["model"] = "regression"
    text = words(page.render(mixed, None))
    assert "Notebook 13 of the book measures both" in text and "Mean AUC on clusters" not in text
    names = ["logistic regression, all genes", "ATSDP-NET", "ATSDP-NET+"]
    means = pd.DataFrame({"model": names, "mean": [0.63, 0.58, 0.6], "ci_low": 0.5, "ci_high": 0.7})
    means.assign(on="tasks of the networks").to_csv(tmp_path / "clusters_mean.csv", index=False)
    assert "regression, all genes 0.63 (0.50 to 0.70), ATSDP-NET 0.58 (0.50 to 0.70)" in words(page.render(mixed, None))


@pytest.mark.parametrize(("lines", "calibrated"), [(8, True), (0, False)])
def test_too_few_held_out_lines_give_no_sets(lines, calibrated):
    found = predicted(range(-12, 0), range(1, lines + 1), [-5, 5, np.nan])
    assert found.columns.atsdp_conformal.tolist() == ["no set", "no set", "not scored"]
    assert found.columns.atsdp_p_calibrated.notna().tolist() == [calibrated, calibrated, False]
    said = [w for w in prediction.warnings(found) if w.startswith(f"only {lines} held-out lines are sensitive")]
    assert len(said) == 1 and "need 9" in said[0] and "no " in said[0]
    assert "conformal" not in "".join(prediction.score(np.array([0, 1, -1]), found))
    text = words(page.render(found, None))
    assert ("too few for conformal sets" if calibrated else "Not possible: there are 0 sensitive") in text


def scores(folder, name="mine"):
    return anndata.read_h5ad(folder / f"{name}.CISPLATIN.atsdp.h5ad").obs.atsdp_p_sensitive.to_numpy()


@pytest.mark.slow
def test_labels_touch_no_score_and_a_run_repeats_exactly(atsdp, counts, tmp_path):
    path = save(counts, tmp_path / "mine.h5ad")
    assert atsdp("predict", path, "--drug", "cisplatin").exit_code == 0
    files = {p.name: p.read_bytes() for p in tmp_path.glob("mine.CISPLATIN.atsdp*")}
    assert atsdp("predict", path, "--drug", "cisplatin").exit_code == 0
    assert files == {p.name: p.read_bytes() for p in tmp_path.glob("mine.CISPLATIN.atsdp*")}
    first = scores(tmp_path)
    shuffled = counts.obs.assign(response=np.random.default_rng(1).permutation(counts.obs.response))
    for obs in (counts.obs, shuffled):
        result = atsdp("predict", save(counts, path, obs=obs), "--drug", "cisplatin", "--labels", "response")
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(scores(tmp_path), first)
    assert atsdp("predict", path, "--drug", "cisplatin", "--seed", "1").exit_code == 0
    assert not np.array_equal(scores(tmp_path), first, equal_nan=True)


@pytest.mark.slow
def test_a_table_gives_the_scores_of_the_h5ad(atsdp, counts, tmp_path):
    counts.to_df().T.to_csv(tmp_path / "table.tsv.gz", sep="\t")
    assert atsdp("predict", save(counts, tmp_path / "mine.h5ad"), "--drug", "cisplatin").exit_code == 0
    result = atsdp("predict", tmp_path / "table.tsv.gz", "--drug", "cisplatin")
    assert "genes in rows" in result.output
    np.testing.assert_allclose(scores(tmp_path, "table"), scores(tmp_path), atol=1e-6)
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "table.CISPLATIN.atsdp.h5ad").to_df(), counts.to_df())


CASES = {
    "unknown drug": (["--drug", "erlotinb"], {}, "Did you mean ERLOTINIB"),
    "no such labels": (["--labels", "reponse"], {}, "Columns there: response, batch"),
    "labels of another kind": (["--labels", "batch"], {}, "found b. Expected 1/0"),
    "layer": (["--layer", "x"], {}, "no layer 'x'"),
    "report suffix": (["--report", "r.txt"], {}, "ends in .html"),
    "missing folder": (["--out", "nowhere/o.h5ad"], {}, "Make the folder first"),
    "mouse asked for human": (["--species", "mouse"], {}, "--species human"),
    "one cell": ([], {"cells": 1}, "1 cells with values"),
    "few genes": ([], {"genes": 60}, "60 of 60 genes"),
    "one class": (["--labels", "response"], {"response": "sensitive"}, "leave --labels out"),
    "negative counts": ([], {"value": -1}, "no negative counts"),
    "missing value": ([], {"value": np.nan}, "missing (NaN)"),
    "infinite value": ([], {"value": np.inf}, "infinite, first inf"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_explained_and_leaves_nothing(case, atsdp, counts, tmp_path):
    options, change, message = CASES[case]
    adata = counts[: change.get("cells"), : change.get("genes")].copy()
    if "value" in change:
        adata.X[0, 3] = change["value"]
    if "response" in change:
        adata.obs["response"] = change["response"]
    path = save(adata, tmp_path / "mine.h5ad")
    options = options if "--drug" in options else ["--drug", "cisplatin", *options]
    result = atsdp("predict", path, *options)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.startswith("atsdp: ")
    assert "Traceback" not in result.output
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["mine.h5ad"]


def test_the_input_is_no_output(atsdp, counts, tmp_path):
    path = save(counts, tmp_path / "mine.h5ad")
    result = atsdp("predict", path, "--drug", "cisplatin", "--out", path)
    assert result.exit_code == 2 and "never changed" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("reader", "said"), [("| head -c 1", ""), ("> /dev/full", "stdout takes no more")])
def test_files_are_written_though_nobody_reads_what_is_said(reader, said, counts, tmp_path):
    save(counts, tmp_path / "mine.h5ad")
    command = (
        f"set -o pipefail; {sys.executable} -m atsdp_utils.own_cells.cli predict mine.h5ad --drug cisplatin {reader}"
    )
    place = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(paths.ROOT), "ATSDP_BUILD": str(tmp_path)}}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, **place)
    assert done.returncode == 0 and (said in done.stderr if said else not done.stderr), done.stderr
    assert (tmp_path / "mine.CISPLATIN.atsdp.h5ad").exists() and (tmp_path / "mine.CISPLATIN.atsdp.html").exists()


@pytest.mark.slow
def test_a_failure_inside_is_status_1_and_leaves_nothing(atsdp, counts, tmp_path, monkeypatch):
    def broken(found, y):
        raise KeyError("lost")

    monkeypatch.setattr(page, "render", broken)  # fails after the scores were written to their temporary file
    path = save(counts, tmp_path / "mine.h5ad")
    result = atsdp("predict", path, "--drug", "cisplatin")
    assert result.exit_code == 1 and "KeyError" in result.stderr and "Traceback" not in result.output
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["mine.h5ad"]


@pytest.mark.parametrize(
    ("yes", "no"),
    [(1, 0), (1.0, 0.0), (True, False), ("Sensitive ", "Resistant"), ("S", "R"), ("Responder", "Non-responder")],
)
def test_spellings_of_labels(yes, no):
    for column in ([yes, no, None], pd.Categorical([yes, no, None])):
        file = predict.CellFile("x", "h5ad", np.ones((3, 1)), {}, pd.DataFrame({"response": column}))
        assert predict.read_labels(file, "response", np.ones(3, bool)).tolist() == [1, 0, -1]
    file.obs = file.obs.rename(columns={"response": "drug_response"})  # which `output.writable` makes of drug/response
    assert predict.read_labels(file, "drug/response", np.ones(3, bool)).tolist() == [1, 0, -1]


@pytest.mark.parametrize("values", [[1, 0, None], [True, False, True], ["0", "1", "nan"]])
def test_numbers_in_a_column_called_resistant_are_asked_about(values):
    file = predict.CellFile("x", "h5ad", np.ones((3, 1)), {}, pd.DataFrame({"is_resistant": values}))
    with pytest.raises(InputError, match="--labels is_resistant: 1 and True mean sensitive"):
        predict.read_labels(file, "is_resistant", np.ones(3, bool))
    file.obs["is_resistant"] = ["resistant", "sensitive", None]
    assert predict.read_labels(file, "is_resistant", np.ones(3, bool)).tolist() == [0, 1, -1]


@pytest.mark.parametrize("asked", [True, False])
def test_numbers_in_columns_that_tell_of_the_resistant_are_asked_about(asked):
    of_resistant = ["nonresponder", "non_responder", "un-responsive", "insensitive", "NR", "is_NR", "Res", "survived",
                    "DTP", "tolerant", "persister", "viable", "refractory", "relapse", "progression", "non_sens",
                    "live", "living", "IsRes", "isR", "recurrence", "MRD", "no_response", "NoResponse", "nonresp",
                    "not_sensitive", "insens", "poor_responder", "low_response", "treatment_failure",
                    "residual_disease", "RD", "non_pCR", "DTEP", "drug_tol", "IC50_high", "IsNonResponder",
                    "CisplatinNonResponder", "drugUnresponsive", "isUnsensitive"]  # fmt: skip
    of_sensitive = ["response", "responder", "sensitive", "killed", "dead", "cisplatin_response", "PDX_response",
                    "cisplatin.sensitive", "drug_R1", "outcome", "untreated", "parental", "delivered",
                    "PFS_short", "pCR", "good_response", "normal_sensitivity"]  # fmt: skip
    for column in of_resistant if asked else of_sensitive:
        for values in ([True, False], [1, 0], ["1.0", "0.0"]):
            file = predict.CellFile("x", "h5ad", np.ones((2, 1)), {}, pd.DataFrame({column: values}))
            if asked:
                with pytest.raises(InputError, match=f"--labels {column}: 1 and True mean sensitive"):
                    predict.read_labels(file, column, np.ones(2, bool))
            else:
                assert predict.read_labels(file, column, np.ones(2, bool)).tolist() == [1, 0], column


def test_a_label_whose_name_the_output_gives_to_another_column_is_not_mistaken_for_it():
    obs = pd.DataFrame({"drug_response": ["S", "R"], "drug_response_1": ["R", "S"]})  # drug/response is the second
    file = predict.CellFile("x", "h5ad", np.ones((2, 1)), {}, obs)
    with pytest.raises(InputError, match="--labels drug/response: no such column"):
        predict.read_labels(file, "drug/response", np.ones(2, bool))


def test_an_input_that_is_not_there_is_told_first(tmp_path):
    with pytest.raises(InputError, match=r"nodir/cells\.h5ad: no such file or folder"):
        output.destinations(tmp_path / "nodir" / "cells.h5ad", "ERLOTINIB", None, None)


def test_the_page_says_how_the_regression_for_its_drug_did_on_held_out_clusters():
    found = predicted(range(-6, 6), range(1, 13), [-5, 5, 1])
    found.facts |= {"model": "regression", "drug": "CISPLATIN"}
    assert f"alone, over its clusters: {page.of_drugs()[found.facts['drug']]:.2f}" in words(page.render(found, None))


def test_drug_names():
    for name in ("PLX-4720", "plx4720", "PLX.4720", "plx 4720"):
        assert drugs.find_drug(name) == "PLX.4720"
    for name in ("5-fluorouracil", "X5.FLUOROURACIL", "5 Fluorouracil"):
        assert drugs.find_drug(name) == "X5.FLUOROURACIL"
    assert all(drugs.find_drug(d) == d for d in gdsc.drugs())
    common = {"Taxotere": "DOCETAXEL", "5-FU": "X5.FLUOROURACIL", "saha": "VORINOSTAT", "GW-572016": "LAPATINIB"}
    assert {name: drugs.find_drug(name) for name in common} == common


def test_synonyms_are_of_drugs_and_name_one_each():
    assert set(drugs.synonyms()) <= set(gdsc.drugs())
    names = [name for others in drugs.synonyms().values() for name in others.split(",")]
    bare = [drugs.bare(name) for name in [*names, *gdsc.drugs()]]
    assert len(set(bare)) == len(bare)


@pytest.mark.parametrize("name", ["vemurafenib", "JQ1", "cetuximab", "etoposide", "NVP-TAE684"])
def test_a_drug_of_no_column_is_refused(name):
    with pytest.raises(predict.InputError, match=f"--drug {name}: not among the 83 drugs"):
        drugs.find_drug(name)


@pytest.mark.slow
def test_the_command_offers_the_models_that_there_are_and_the_default_of_the_package():
    assert [*get_args(cli.Model)] == list(predict.MODELS)
    assert inspect.signature(cli.predict).parameters["model"].default == predict.Settings().model


def test_drugs_lists_all_with_their_lines(atsdp):
    said, y = atsdp("drugs").output, gdsc.load_bulk("CISPLATIN").y
    assert len(said.splitlines()) == 84
    assert re.search(rf" CISPLATIN +{(y == 1).sum()} +{(y == 0).sum()}\n", said)


@pytest.mark.parametrize("make", [sparse.csr_matrix, np.asarray])
def test_doubled_genes_are_summed_or_chosen(make):
    raw = np.array([[1, 2, 5, 2], [0, 4, 1, 5], [3, 3, 3, 1]], dtype=np.float32)
    symbol = np.array(["A", "B", "A", ""])

    def matrix(values, kind):
        X, _ = cell_values.counts(make(values[:, :3]), make(values), kind, 2)  # the last column is no gene of the bulk
        counted, X = X is not None, make(values[:, :3]) if X is None else X
        Z, remarks = cell_values.shared_matrix(X, symbol[:3], np.array(["A", "B"]), counted)
        assert "1 of the genes" in remarks[0]
        return Z.toarray() if sparse.issparse(Z) else Z

    total = raw[:, :3].sum(1, keepdims=True)
    expected = np.log1p(np.c_[raw[:, 0] + raw[:, 2], raw[:, 1]] / total * 1e4).astype(np.float16)
    np.testing.assert_array_equal(matrix(raw, "counts"), expected)
    np.testing.assert_array_equal(matrix(raw, "zscored"), raw[:, [2, 1]])  # the third column varies more than the first
    scaled = raw / raw.sum(1, keepdims=True) * 77  # to whatever depth, over whatever genes: undone
    np.testing.assert_array_equal(matrix(scaled, "counts"), expected)
    np.testing.assert_array_equal(matrix(np.log1p(scaled), "lognorm"), expected)


def test_counts_come_back_from_what_was_made_of_them_or_stay_in_units_of_a_low_value():
    rng = np.random.default_rng(0)
    raw = rng.poisson(rng.gamma(0.3, 12, 400), (50, 400)).astype(float)
    raw[7] = 0
    raw[8:10][raw[8:10] == 1], raw[9][raw[9] == 2] = 0, 0  # the smallest value of a cell is that of two or three counts
    scaled = raw / np.maximum(raw.sum(1, keepdims=True), 1) * 1e4
    for base, of in ((np.e, np.log1p), (2, lambda x: np.log2(1 + x)), (10, lambda x: np.log10(1 + x))):
        logs = of(scaled).astype(np.float32)
        found, notes = cell_values.counts(logs, logs, "lognorm", 16)
        np.testing.assert_array_equal(found.toarray(), raw)
        assert notes == ([] if base == np.e else [f"logarithms to base {base}"])
        tpm = of(scaled[:7] * rng.lognormal(0, 1, 400) / 99)  # no multiples, but of one total
        every = of(np.expm1(tpm * np.log(base)) / np.expm1(tpm * np.log(base)).sum(1, keepdims=True) * 1e6)
        assert cell_values.counts(tpm, every, "lognorm", 16)[1] == notes
    assert cell_values.counts(tpm, tpm, "lognorm", 16)[1] == [cell_values.UNKNOWN]
    logs = np.log1p(scaled).astype(np.float16)
    lost = cell_values.counts(logs, logs, "lognorm", 16)[0].toarray()
    lost *= 1e4 / np.maximum(lost.sum(1, keepdims=True), 1)
    assert (np.abs(lost - scaled) <= 0.004 * (1 + scaled)).all()  # what half precision takes from a large count
    tpm = scaled * rng.lognormal(0, 1, 400)
    found, _ = cell_values.counts(tpm, tpm, "counts", 16)
    share = np.divide(found.toarray(), tpm, where=tpm > 0, out=np.zeros_like(tpm))
    assert all(len(set(row[row > 0].round(9))) == 1 for row in np.delete(share, 7, 0))  # scaled by cell, nothing else


def test_corrected_counts_keep_the_depth_of_their_cells():
    rng = np.random.default_rng(0)
    raw = rng.poisson(rng.gamma(0.5, 20, 300), (60, 300)).astype(float)
    shared = raw + (rng.random(raw.shape) < 0.1) * rng.random(raw.shape).round(3)  # as salmon, RSEM and SoupX write
    np.testing.assert_array_equal(cell_values.counts(shared, shared, "counts", 16)[0].toarray(), shared)


def test_a_value_that_is_rounded_elsewhere_moves_a_cell_little():
    Z = np.random.default_rng(0).gamma(1, 1, (200, 50)).astype(np.float32)
    before = np.argsort(cell_values.canonical(Z, 64))
    after = np.argsort(cell_values.canonical(Z * np.float32(1 + 1e-4), 64))
    np.testing.assert_array_equal(np.sort(before), np.arange(200))
    assert np.abs(before - after).max() <= 2
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(np.argsort(cell_values.canonical(Z[order], 64)), before[order])


def test_values_beyond_half_precision_stay_finite():
    symbol = np.array(["A", "B"])
    Z, _ = cell_values.shared_matrix(np.array([[1e6, -1e6], [0, 1]]), symbol, symbol, False)
    assert np.isfinite(Z).all() and Z[0, 0] > 60_000 > -60_000 > Z[0, 1]


def test_cells_that_do_not_differ_are_refused(atsdp, counts, tmp_path):
    same = save(
        anndata.AnnData(np.ones((20, 131), np.float32) * np.arange(1, 132), var=counts.var), tmp_path / "a.h5ad"
    )
    result = atsdp("predict", same, "--drug", "cisplatin")
    assert result.exit_code == 2 and "all 20 cells have the same values" in result.stderr


def test_doubts_are_those_of_the_numbers():
    members = np.array([[0.2, 0.6, 0.9, 0.3], [0.1, 0.7, 0.8, 0.4]])
    assert prediction.doubts(np.array([100, 60]), 0.8, members, members.mean(0)) == []
    for said, changed in {
        "only 39 of 139 training lines are sensitive (28%)": {"lines": np.array([100, 39])},
        "only 50 of 350 training lines are resistant (14%)": {"lines": np.array([50, 300])},
        "AUC on held-out bulk lines is 0.60": {"auc": 0.6},
        "the models disagree (mean rank correlation -": {"members": np.array([members[0], 1 - members[0]])},
        "nearly all cells get one label": {"p": np.full(4, 0.9)},
    }.items():
        given = {"lines": np.array([100, 60]), "auc": 0.8, "members": members, "p": members.mean(0)} | changed
        (line,) = prediction.doubts(**given)
        assert line.startswith(said)


def test_streamed_moments_are_those_of_the_whole():
    X = np.random.default_rng(0).normal(3, 2, (37, 5)).astype(np.float32)
    X[:, 2] = 1
    whole, streamed = preprocess.Standardizer().fit(X), cell_values.streaming_standardizer(sparse.csr_matrix(X), 10)
    np.testing.assert_allclose(streamed.mean_, whole.mean_)
    np.testing.assert_allclose(streamed.scale_, whole.scale_)


def test_the_layout_keeps_two_groups_apart_and_repeats():
    X = np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32)
    X[30:] += 4
    xy = embedding.umap(X, seed=0)
    within = [np.linalg.norm(part - part.mean(0), axis=1).mean() for part in (xy[:30], xy[30:])]
    assert np.linalg.norm(xy[:30].mean(0) - xy[30:].mean(0)) > 2 * max(within)
    np.testing.assert_array_equal(xy, embedding.umap(X, seed=0))
    X = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    X[0] += 300  # a cell far from all is drawn near them
    away = np.linalg.norm(embedding.umap(X) - np.median(embedding.umap(X), axis=0), axis=1)
    assert away[0] < 2 * away[1:].max()


@pytest.mark.parametrize("name", [".", "/"])
def test_a_folder_is_no_place_for_scores(atsdp, counts, tmp_path, name):
    result = atsdp("predict", save(counts, tmp_path / "mine.h5ad"), "--drug", "plx4720", "--out", name)
    assert result.exit_code == 2 and f"--out {name}: is a folder" in result.output


def test_a_panel_filled_up_with_zeros_has_too_few_genes(atsdp, counts, tmp_path):
    X = counts.X.tolil()
    X[:, 60:] = 0
    path = save(counts, tmp_path / "padded.h5ad", X=sparse.csr_matrix(X))
    result = atsdp("predict", path, "--drug", "plx4720")
    assert result.exit_code == 2 and "a panel filled up with zeros?" in result.output
    zero = predicted(range(-12, 0), range(1, 10), [-5, 5])
    zero.facts["genes_zero"] = 51
    assert any("51 of 100 genes used are zero in every cell" in w for w in prediction.warnings(zero))


def test_a_perfect_order_of_few_labelled_cells_has_a_wide_interval():
    found = predicted(range(-12, 0), range(1, 10), [-5, -4, -3, -2, 2, 3, 4, 5])
    y = np.repeat([0, 1], 4)
    scored = prediction.score(y, found)
    assert (scored["sensitive"], scored["resistant"], scored["auc"], scored["auc_high"]) == (4, 4, 1, 1)
    assert scored["auc_low"] == pytest.approx(0.025 ** (1 / 4))
    found.metrics = scored
    text = words(page.render(found, y))
    assert "1.000 (0.398 to 1.000)" in text and "So few cells of a class can give any AUC by chance" in text


def test_letters_that_a_terminal_or_a_name_lacks_stop_nothing(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", newline="\n")
    monkeypatch.setenv("ATSDP_BUILD", "build")
    monkeypatch.setattr(sys, "stdout", terminal)
    cli.surroundings()
    print("genes\u2026")
    terminal.flush()
    assert terminal.buffer.getvalue() == b"genes\\u2026\n"
    assert output.plain_name(Path(os.fsdecode(b"M\xfcnchen.h5ad"))) == "M\\xfcnchen.h5ad"


def test_room_is_asked_for_what_is_written(tmp_path):
    (tmp_path / "mine.h5").write_bytes(b"short")
    file = predict.CellFile(tmp_path / "mine.h5", "10x h5", sparse.csr_matrix(np.ones((100, 50), np.float32)), {}, None)
    assert output._size(file, tmp_path / "a.h5ad") > 100 * 50 * 8
    assert output._size(file, tmp_path / "a.csv") == 0
    assert output._size(replace(file, kind="h5ad", X=None), tmp_path / "a.h5ad") == 5
