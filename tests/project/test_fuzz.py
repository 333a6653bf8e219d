"""Damaged and random input: every loader, cache and command answers with a message of its own and leaves nothing.

A few hundred cases run each time; ``ATSDP_FUZZ_CASES=2000 pytest tests/project/test_fuzz.py`` runs more, and
``ATSDP_WRITE_PAGES=1`` writes the table of messages that the book shows.
"""

import gzip
import io
import os
import shutil
import warnings
from pathlib import Path

import geo_fixtures as mini
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from atsdp_utils.data import datasets, gdsc, geo, preprocess
from atsdp_utils.data.geo_files import GeoError
from atsdp_utils.experiments import grid, inputs, protocols
from atsdp_utils.experiments.task import Result, Task, build
from atsdp_utils.foundation import cache, config, paths
from atsdp_utils.own_cells import cell_values, cellfile, drugs, prediction, readers

CASES = int(os.environ.get("ATSDP_FUZZ_CASES", 300))
PAGE = paths.BOOK / "_messages.md"
SETS = ("DATA1", "DATA3", "DATA4")

pytestmark = pytest.mark.filterwarnings("ignore")


def cases(share: float):
    """Settings of a test that gets `share` of all cases."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=max(5, round(share * CASES)), deadline=None, derandomize=True, database=None,
        suppress_health_check=checks, phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip


#: One damage: what is done, where (share of the length), and the bytes that it uses.
DAMAGE = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "replace", "repeat"]), st.floats(0, 1), st.binary(min_size=1, max_size=12)
)
WORDS = st.sampled_from([b"\t", b"\n", b",", b"nan", b"-1", b"1e400", b"inf", b'"', b"\x00", b"\xff\xfe", b"TP53"])
DAMAGES = st.lists(DAMAGE | st.tuples(st.just("insert"), st.floats(0, 1), WORDS), min_size=1, max_size=3)


def damage(content: bytes, changes) -> bytes:
    for how, where, extra in changes:
        at = int(where * max(0, len(content) - 1))
        content = {
            "flip": content[:at] + bytes([content[at] ^ (extra[0] or 1)]) + content[at + 1 :] if content else extra,
            "cut": content[:at],
            "insert": content[:at] + extra + content[at:],
            "replace": content[:at] + extra + content[at + len(extra) :],
            "repeat": content[:at] + content[max(0, at - 20) : at] + content[at:],
        }[how]
    return content


def damaged(content: bytes, name: str, inside: bool, changes) -> bytes:
    """Damage a file, or (gzip) what it holds."""
    if inside and name.endswith(".gz"):
        return gzip.compress(damage(gzip.decompress(content), changes), mtime=0)
    return damage(content, changes)


# --- GEO --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    """Files and expectation of a miniature of each layout."""
    found = {}
    for name in SETS:
        folder = tmp_path_factory.mktemp(name)
        expected = mini.WRITERS[name](folder)
        found[name] = ({p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}, expected)
    return found


@cases(0.3)
@given(st.sampled_from(SETS), st.integers(0, 5), st.booleans(), DAMAGES)
def test_geo_files(miniatures, tmp_path_factory, name, which, inside, changes):
    files, expected = miniatures[name]
    target = sorted(f for f in files if f in geo.SERIES[name].files)
    target = target[which % len(target)]
    folder = tmp_path_factory.mktemp("geo")
    for file, content in files.items():
        (folder / file).write_bytes(damaged(content, file, inside, changes) if file == target else content)
    try:
        mini.load(name, folder, expected)
    except GeoError as error:
        assert str(error).strip()
    finally:
        assert not list(folder.glob("*.part"))
        shutil.rmtree(folder)


# --- a person's cells -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """A small valid file of each format that readers know, by name."""
    import anndata
    import h5py
    from scipy import sparse

    folder, genes = tmp_path_factory.mktemp("formats"), gdsc.load_bulk().genes[:130]
    X = np.random.default_rng(0).poisson(2, (12, len(genes))).astype(np.float32)
    cells = [f"c{i}" for i in range(12)]
    anndata.AnnData(sparse.csr_matrix(X), pd.DataFrame(index=cells), pd.DataFrame(index=genes)).write_h5ad(
        folder / "cells.h5ad"
    )
    S = sparse.csc_matrix(X.T)
    with h5py.File(folder / "tenx.h5", "w") as f:
        g = f.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            g[key] = getattr(S, key)
        g["shape"], g["barcodes"] = np.array(S.shape), np.array(cells, "S")
        for key in ("id", "name"):
            g[f"features/{key}"] = np.array(genes, "S")
    table = pd.DataFrame(X, index=cells, columns=genes)
    table.to_csv(folder / "cells.csv")
    table.T.to_csv(folder / "genes.tsv.gz", sep="\t")
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def understood(path: Path) -> None:
    """Everything that happens to a file before training."""
    from atsdp_utils.own_cells import output

    file = readers.read(path)
    genes = cellfile.recognise(file, None)
    cellfile.left_out(file, genes)
    known = file.only(genes.symbol != "")
    kind, _ = cell_values.detect_values(known, "auto")
    assert kind == "counts"  # as the file was before it was damaged
    obs, _ = output.writable(file.obs)
    prediction.origins(obs)
    X, _ = cell_values.counts(known.X, file.X, kind, 100)
    counted, X = X is not None, known.X if X is None else X
    reason = cell_values.not_cells(file, X, genes, counted, np.zeros(len(obs)))[0]
    symbol = genes.symbol[genes.symbol != ""]
    Z, _ = cell_values.shared_matrix(X, symbol, np.unique(symbol), counted)
    Z = Z[reason == cell_values.SCORED]
    assert sorted(cell_values.canonical(Z, 100)) == list(range(Z.shape[0]))
    assert np.isfinite(readers.dense(Z)).all()


@cases(0.3)
@given(st.integers(0, 3), st.booleans(), DAMAGES)
def test_damaged_cells(formats, tmp_path_factory, which, inside, changes):
    name = sorted(formats)[which]
    folder = tmp_path_factory.mktemp("cells")
    (folder / name).write_bytes(damaged(formats[name], name, inside, changes))
    try:
        understood(folder / name)
    except readers.InputError as error:
        assert name in str(error)
    finally:
        assert [p.name for p in folder.iterdir()] == [name]
        shutil.rmtree(folder)


SUFFIXES = ("h5ad", "h5", "csv", "tsv.gz", "txt", "mtx", "rds", "")


@cases(0.15)
@given(st.sampled_from(SUFFIXES), st.binary(max_size=300) | st.text(max_size=200).map(str.encode), st.text(max_size=12))
def test_command_with_random_files_and_drugs(tmp_path_factory, suffix, content, drug):
    from typer.testing import CliRunner

    from atsdp_utils.own_cells.cli import app

    folder = tmp_path_factory.mktemp("cli")
    path = folder / f"cells.{suffix}"
    path.write_bytes(content)
    for name in ("CISPLATIN", drug):
        done = CliRunner().invoke(app, ["predict", str(path), f"--drug={name}"])
        assert done.exit_code == 2, (done.output, done.exception)
        assert "Traceback" not in done.output and "failed inside" not in done.output
    assert [p.name for p in folder.iterdir()] == [path.name]
    shutil.rmtree(folder)


# --- caches -----------------------------------------------------------------------------------------------------------


def _written(write) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


@cases(0.15)
@given(DAMAGES)
def test_damaged_result(run_folders, changes):
    task = Task("SCC47-afatinib", "S", "Logistic", "smoke", folds=2)
    result = Result(task, np.arange(9), np.ones(9, int), np.linspace(0, 1, 9), np.zeros(9, int), 1.0, 3)
    grid.save(result, "aa" * 10)
    path = grid.result_path("aa" * 10)
    path.write_bytes(damage(path.read_bytes(), changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = grid.load(task, "aa" * 10)
    if found is None:
        assert not path.exists()
    else:
        for field in ("row", "y", "p", "fold"):
            np.testing.assert_array_equal(getattr(found, field), getattr(result, field))
    assert not list(path.parent.glob(".part-*"))


@cases(0.05)
@given(DAMAGES)
def test_damaged_network(tmp_path_factory, changes):
    import torch

    from atsdp_utils.models import stages

    state = {"weights": {"a": torch.arange(2000.0)}, "history": [{"loss": 1.0}]}
    path = tmp_path_factory.mktemp("net") / "dae.pt"
    path.write_bytes(damage(_written(lambda f: torch.save(state, f)), changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cache.kept(path, stages.read_network, lambda part: torch.save({"trained": "again"}, part))
    if found != {"trained": "again"}:
        assert torch.equal(found["weights"]["a"].cpu(), state["weights"]["a"]) and found["history"] == state["history"]


@cases(0.05)
@given(DAMAGES)
def test_damaged_splits_are_drawn_again(run_folders, changes):
    y = np.repeat(np.array([0, 1, -1], np.int8), 12)
    fields = {f: "" for f in preprocess.Cells.__dataclass_fields__} | {"name": "tiny", "y": y}
    cells = preprocess.Cells(**fields)
    drawn = inputs.splits(cells, 3, 0)
    (path,) = paths.SPLITS.glob("tiny-*")
    path.write_bytes(damage(path.read_bytes(), changes))
    np.testing.assert_array_equal(inputs.splits(cells, 3, 0), drawn)
    np.testing.assert_array_equal(inputs.splits(cells, 3, 0), drawn)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "needed"), [("F", "k"), ("P", "kind")])
def test_a_task_without_what_its_protocol_needs_is_told_so(protocol, needed):
    with pytest.raises(ValueError, match=f"setting: got .*expected a pair '{needed}' under protocol {protocol}"):
        protocols.run_task(Task("DATA1-sim", protocol, "Logistic", "smoke"))


@cases(0.1)
@given(st.text(max_size=15), st.integers(-3, 3))
def test_unknown_names(name, number):
    X, y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1], np.int8)
    for lookup in (
        config.profile, config.datasets, datasets.load_cells, gdsc.load_bulk,
        drugs.find_drug, geo.load, lambda n: preprocess.balance(X, y, n, 0),
        lambda n: build(Task("DATA1-sim", "S", n, "smoke")),
        lambda n: protocols.run_task(Task("DATA1-sim", n, "Logistic", "smoke")),
    ):  # fmt: skip
        try:
            lookup(name)
        except (ValueError, KeyError, readers.InputError) as error:
            assert "got" in str(error) or "drug" in str(error)
    from atsdp_utils.models.network import MultiHeadAttention

    if number < 1:
        with pytest.raises(ValueError, match="heads: got"):
            MultiHeadAttention(32, number)


# --- the page of messages ---------------------------------------------------------------------------------------------


def _said(work, *hidden: Path) -> str:
    """The message that `work` ends with, without temporary folders."""
    with pytest.raises((readers.InputError, GeoError, ValueError, KeyError, RuntimeError)) as found:
        work()
    text = str(found.value.args[0] if isinstance(found.value, KeyError) else found.value)
    for folder in hidden:
        text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), "…")
    return " ".join(text.split())


def messages(folder: Path, formats: dict[str, bytes], miniatures: dict) -> list[tuple[str, str]]:
    """(what was given, what was said) of typical bad input."""
    found = []

    def cells(what: str, name: str, content: bytes | None) -> None:
        path = folder / name
        if content is not None:
            path.write_bytes(content)
        found.append((what, _said(lambda: understood(path), folder)))

    cells("no such file", "nothing.h5ad", None)
    cells("an empty file", "empty.h5ad", b"")
    cells("an h5ad cut short", "half.h5ad", formats["cells.h5ad"][:3000])
    cells("a file of another kind", "cells.rds", b"\x1f\x8b")
    cells("text that calls itself h5ad", "text.h5ad", b"a,b\n1,2\n")
    cells("a table with words for numbers", "words.csv", b"cell,TP53,EGFR\nc0,1,high\nc1,2,low\n")
    cells("a table without known genes", "other.csv", b"cell,foo,bar\nc0,1,2\nc1,2,3\n")
    cells("a table with a header only", "header.csv", b"cell,TP53\n")
    cells("few genes in common", "few.csv", b"cell,TP53,EGFR\nc0,1,2\nc1,2,3\n")
    found.append(("a drug with a typing error", _said(lambda: drugs.find_drug("cisplatinn"))))
    found.append(("an unknown profile", _said(lambda: config.profile("fast"))))
    found.append(("an unknown data set", _said(lambda: datasets.load_cells("DATA9"))))
    found.append(("an unknown backend", _said(lambda: grid.run([], backend="x"))))
    files, expected = miniatures["DATA1"]
    target = next(f for f in files if "TPM" in f)
    for what, content in (
        ("a GEO file cut short", files[target][:40]),
        ("a web page in place of a GEO file", b"<!DOCTYPE html><html></html>"),
    ):
        other = folder / what.replace(" ", "-")
        other.mkdir()
        for file, whole in files.items():
            (other / file).write_bytes(content if file == target else whole)
        found.append((what, _said(lambda: mini.load("DATA1", other, expected), other)))  # noqa: B023
    return found


def test_page_of_messages_is_what_is_said(tmp_path, formats, miniatures):
    rows = [(a, b.replace("|", "\\|")) for a, b in messages(tmp_path, formats, miniatures)]
    text = "| given | said |\n|---|---|\n" + "".join(f"| {a} | `{b}` |\n" for a, b in rows)
    if os.environ.get("ATSDP_WRITE_PAGES") == "1":
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "write it again with ATSDP_WRITE_PAGES=1 pytest tests/project/test_fuzz.py"
