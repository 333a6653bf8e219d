"""Tier geo on files of the true layouts: what loaders read, report and refuse, how downloads go on, and a whole run."""

import gzip
import json
import re
import time
import zipfile
from contextlib import nullcontext
from dataclasses import replace

import geo_fixtures as mini
import numpy as np
import openpyxl
import pandas as pd
import pytest
from scipy import sparse

from atsdp_utils.data import geo, geo_files, preprocess
from atsdp_utils.data.geo_files import GeoError
from atsdp_utils.foundation import config, paths


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    running = mini.Server()
    monkeypatch.setattr(geo, "BASE", running.url)
    yield running
    running.close()


def load(name, folder, change=None, **expected):
    """Write a miniature, change it, load it with what is expected of it."""
    found = mini.WRITERS[name](folder)
    if change:
        change(folder)
    return mini.load(name, folder, replace(found, **expected))


def refused(name, folder, change=None, **expected) -> str:
    with pytest.raises(GeoError) as error:
        load(name, folder, change, **expected)
    return str(error.value)


# --- the layouts ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_missing_and_infinite_values_of_a_linear_matrix_are_told(odd):
    X = sparse.csr_matrix(np.array([[900.0, odd], [800.0, 3.0]]))
    with pytest.raises(GeoError, match=r"tpm\.txt: found values that are missing or infinite, expected linear TPM"):
        geo_files.check_linear(X, "tpm.txt")


@pytest.mark.parametrize("name", mini.WRITERS)
def test_fixtures_at_full_size_expect_what_the_loaders_expect(name, tmp_path):
    of_layout, of_loader = mini.WRITERS[name](tmp_path, scale=1), geo.SERIES[name].expected
    tables = {"labels": of_loader.labels, "listed": of_loader.listed}
    assert replace(of_layout, genes=mini.LAYOUTS[geo.SERIES[name].accession].get("genes", 0), **tables) == of_loader
    for column, key in (("labels", "cell"), ("listed", "Cell id")):  # the fixture's cells are those of the tables
        if tables[column]:
            files = (paths.DATA / getattr(e, column) for e in (of_layout, of_loader))
            written, embedded = (pd.read_csv(file).set_index(key) for file in files)
            assert set(written.index) == set(embedded.index)


def test_layouts_quote_the_numbers_that_they_hold():
    for layout in (mini.HEAD_AND_NECK, mini.PROSTATE, mini.LEUKAEMIA):
        quote = layout["quote"].replace(",", "")
        numbers = [layout[key] for key in ("genes", "cells", "filtered") if key in layout]
        numbers += [n for patient in ("HN120", "HN137") for n in layout.get(patient, {}).values()]
        numbers += [block["cells"] for block in layout.get("blocks", [])]
        numbers += [group["cells"] for group in layout.get("groups", {}).values()]
        assert [n for n in numbers if not re.search(rf"(?<!\d){n}(?!\d)", quote)] == []
        files = [layout[key] for key in ("matrix", "tar", "annotation") if key in layout]
        named = [word for word in [*files, *layout.get("columns", []), *layout.get("corners", [])] if word]
        assert [word for word in named if word not in quote] == []
    assert sum(map(sum, (mini.HEAD_AND_NECK[p].values() for p in ("HN120", "HN137", "HN148")))) == 1302
    assert sum(block["cells"] for block in mini.PROSTATE["blocks"]) == 324
    assert sum(group["cells"] for group in mini.LEUKAEMIA["groups"].values()) == mini.LEUKAEMIA["filtered"]


# --- what is read ---------------------------------------------------------------------------------------------------
def in_file(path, sep):
    """A matrix as pandas reads it: genes x cells."""
    return pd.read_csv(path, sep=sep, index_col=0)


@pytest.mark.parametrize(("name", "patient"), [("DATA1", "HN120"), ("DATA2", "HN137")])
def test_head_and_neck(name, patient, tmp_path):
    a = load(name, tmp_path)
    raw = in_file(tmp_path / mini.TPM, "\t")
    assert raw.shape[1] > a.n_obs and raw.shape[0] == a.n_vars == mini.GENES
    assert np.array_equal(a.X.toarray(), raw[a.obs_names].T.to_numpy(np.float32))  # linear, as they stand in the file
    assert a.X.toarray().sum(1) == pytest.approx(1e6, rel=1e-3)
    assert set(a.obs["origin"]) == {patient} and a.uns["tier"] == "geo" and patient in a.uns["origin"]
    assert not any(c.startswith("Unnamed") or not c for c in a.obs)
    assert a.var["ortholog"].tolist() == a.var_names.tolist() == list(mini.symbols(mini.GENES))
    labels = a.obs.groupby("culture", observed=True)[["sensitive", "sensitive_paper"]].agg(["sum", "count"])
    strict, paper = labels["sensitive"], labels["sensitive_paper"]
    assert (strict.loc[patient + "P", "sum"], strict.loc[patient + "PCR", "sum"]) == (
        strict.loc[patient + "P", "count"],
        0,
    )
    assert strict.loc[patient + "PCRDH", "count"] == 0  # on holiday: no strict label, sensitive in the paper's counting
    assert paper.loc[patient + "PCRDH", "sum"] == paper.loc[patient + "PCRDH", "count"] > 0
    assert a.uns["reported"] == []


def test_rows_of_one_gene_are_added_up(tmp_path):
    a = load("DATA1", tmp_path, edit(mini.TPM, "\nNEK6\t", "\nUCHL1\t"))
    raw = in_file(tmp_path / mini.TPM, "\t")
    cell = a.obs_names[0]
    assert a.uns["repeated_gene_rows"] == 1
    assert a[cell, "UCHL1"].X.sum() == pytest.approx(raw.loc["UCHL1", cell].sum()) and len(raw.loc["UCHL1"]) == 2


def test_prostate(tmp_path):
    a = load("DATA3", tmp_path)
    assert list(dict.fromkeys(a.obs["culture"])) == [
        "DU-145", "DU-145 docetaxel-resistant", "PC-3", "PC-3 docetaxel-resistant",
    ]  # fmt: skip
    assert a.obs["sensitive"].tolist() == [not c.endswith("resistant") for c in a.obs["culture"]]
    assert a.var_names.tolist() == a.var["ortholog"].tolist() == list(mini.symbols(mini.GENES))  # no __no_feature
    assert a.var["id"].str.fullmatch(r"ENSG\d+\.7").all()
    name, content = list(mini.read_tar(tmp_path / mini.TAR).items())[3]
    lines = gzip.decompress(content).decode().split("\n")
    assert a[name.split("_")[0]].X.toarray().ravel().tolist() == [int(x.split("\t")[1]) for x in lines[: a.n_vars]]


def test_ids_that_no_table_knows_keep_their_name_and_have_no_ortholog(tmp_path):
    rows = gzip.compress(b"ENSG00000141510.17\t5\nENSG00000198888.1\t3\nENSG99999999999.1\t1\n")
    a = load("DATA3", tmp_path, each_member(lambda content: rows))
    assert a.var_names.tolist() == ["TP53", "MT-ND1", "ENSG99999999999"]
    assert a.var["ortholog"].tolist() == ["TP53", "MT-ND1", ""]
    assert a.var["id"].tolist()[0] == "ENSG00000141510.17"


def test_leukaemia(tmp_path):
    a = load("DATA4", tmp_path)
    raw = in_file(tmp_path / mini.COUNTS, ",")
    assert raw.index.name == "gene_id" and raw.columns.tolist() == a.obs_names.tolist()[: raw.shape[1]]
    assert np.array_equal(a.X.toarray(), raw[a.obs_names].T.to_numpy(np.float32))
    assert a.var["id"].tolist() == raw.index.tolist() and a.var["id"].str.fullmatch(r"ENSMUSG\d{11}").all()
    assert a.var["ortholog"].tolist() == list(mini.symbols(mini.GENES)) and a.var_names[0] == "Nek6"
    assert not a.obs_names.str.endswith(tuple("_" + c for c in mini.LEUKAEMIA["corners"])).any()
    assert re.match(r"32 rows of .*xlsx without well index: RPI1_A1, RPI1_A2, RPI1_A23", a.uns["reported"][0])
    sheet = pd.read_excel(tmp_path / mini.WELLS, header=3)
    assert sheet["Sample name"].isna().sum() > len(sheet) / 2  # merged cells hold their value at the top
    assert a.obs["Sample name"].ne("").all() and set(a.obs["Plate#"]) == set(mini.LEUKAEMIA["plates"])


def test_wells_without_cells_count_as_sensitive_in_the_literal_counting_only(tmp_path):
    a = load("DATA4", tmp_path)
    odd = a.obs["condition"].isin(["EMPTY", "101 CELL CONTROL"])
    assert odd.any() and a.obs["sensitive"][odd].isna().all() and a.obs["sensitive_paper"][odd].all()
    assert a.obs["sensitive"][~odd].equals(a.obs["sensitive_paper"][~odd].rename("sensitive"))
    expected = geo.SERIES["DATA4"].expected
    assert (expected.strict, expected.paper, sum(expected.paper)) == ([715, 685], [734, 685], expected.filtered)


@pytest.mark.slow
def test_counts_of_the_leukaemia_hold_after_the_filter_only(tmp_path):
    a = load("DATA4", tmp_path)
    filtered, _ = preprocess.quality_control(a)
    expected = mini.WRITERS["DATA4"](tmp_path)
    assert a.n_obs == expected.cells > expected.filtered == sum(expected.groups["culture"].values())
    assert filtered.obs["culture"].value_counts().to_dict() == expected.groups["culture"]
    cells = preprocess.to_cells(a, config.DATASETS["DATA4"])  # by default without control and empty wells
    assert [(cells.y == 1).sum(), (cells.y == 0).sum()] == expected.strict and (cells.y < 0).sum() > 0


def test_a_corner_well_of_the_matrix_is_left_out_and_reported(tmp_path):
    a = load("DATA4", tmp_path, edit(mini.COUNTS, "gene_id,", "gene_id,RPI1_A1,", each=("\nENS", ",", ",5,")))
    assert "RPI1_A1" not in a.obs_names
    assert f"1 columns of {mini.COUNTS} without annotation: RPI1_A1" in a.uns["reported"]


#: What is read all the same, because no cell and no label depends on it, and how it is reported.
REPORTED = {
    "ids without version": (
        "DATA3", lambda f: each_member(without_version)(f), r"260 ids of .*tar such as ENSG\d+, exp"),
    "ids with version": ("DATA4", lambda f: edit(mini.COUNTS, "ENSMUSG00000026749", "ENSMUSG00000026749.8")(f),
                         r"1 ids of .*csv.gz such as ENSMUSG00000026749.8, expected without version"),
    "file of another kind in the tar": (
        "DATA3", lambda f: mini.write_tar(f / mini.TAR, mini.read_tar(f / mini.TAR) | {"readme.txt": b"x"}),
        r"1 members of .*tar that are no counts: readme.txt"),
    "cell that the annotation does not name": (
        "DATA1", lambda f: edit(mini.CELLINFO, "HN148_3\t", "HN148_x\t")(f),
        r"1 columns .* without annotation: HN148_3"),
    "another number of genes": (
        "DATA1", lambda f: edit(mini.TPM, "\nNEK6\t", "\nNEW" + "\t1" * 69 + "\nNEK6\t")(f),
        r"261 genes in .*TPM.txt.gz, expected 260"),
}  # fmt: skip


@pytest.mark.parametrize("case", REPORTED)
def test_reported(case, tmp_path):
    name, change, words = REPORTED[case]
    assert [line for line in load(name, tmp_path, change).uns["reported"] if re.search(words, line)]


def test_loaded_sets_can_be_written(tmp_path):
    import anndata

    for name in mini.WRITERS:
        folder = tmp_path / name
        folder.mkdir()
        a = load(name, folder)
        a.write_h5ad(folder / "x.h5ad")
        b = anndata.read_h5ad(folder / "x.h5ad")
        assert b.obs["sensitive"].isna().sum() == a.obs["sensitive"].isna().sum()
        assert np.array_equal(a.X.toarray(), b.X.toarray())


def test_addresses(monkeypatch):
    monkeypatch.setattr(geo, "fetch", lambda url, folder: url)
    assert geo.download("DATA3") == [
        "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE140nnn/GSE140440/suppl/GSE140440_RAW.tar",
        "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE140nnn/GSE140440/matrix/GSE140440_series_matrix.txt.gz",
    ]


# --- what is refused, and with which words --------------------------------------------------------------------------
def truncate(file, n=12):
    def change(folder):
        raw = (folder / file).read_bytes()
        (folder / file).write_bytes(raw[: len(raw) - n])

    return change


def edit(file, old, new, each=()):
    """Replace text in a gzipped file; `each` (start of a line, old, new) replaces once in every such line too."""

    def change(folder):
        mini.edit_gz(folder / file, old, new)
        if each:
            start, one, other = each
            text = gzip.decompress((folder / file).read_bytes()).decode()
            parts = [part.replace(one, other, 1) for part in text.split(start)[1:]]
            mini.write_gz(folder / file, start.join([text.split(start)[0], *parts]))

    return change


def rewrite(file, change_text):
    """Change the whole text of a gzipped file."""
    return lambda folder: mini.write_gz(
        folder / file, change_text(gzip.decompress((folder / file).read_bytes()).decode())
    )


def logarithms(text):
    head, *rows = [line.split("\t") for line in text.splitlines()]
    lines = [[gene, *(f"{np.log2(float(value) + 1):.4f}" for value in values)] for gene, *values in rows]
    return "\n".join("\t".join(line) for line in [head, *lines])


def turned(sep):
    return lambda text: "\n".join(
        sep.join(row) for row in zip(*(line.split(sep) for line in text.splitlines()), strict=True)
    )


def without_version(content):
    return gzip.compress(re.sub(rb"(ENSG\d+)\.7", rb"\1", gzip.decompress(content)))


def each_member(change_content):
    """Change every count file of the tar."""

    def change(folder):
        members = mini.read_tar(folder / mini.TAR)
        mini.write_tar(folder / mini.TAR, {name: change_content(content) for name, content in members.items()})

    return change


def members(change_members):
    """Change the list of members of the tar, a dictionary, in place."""

    def change(folder):
        found = mini.read_tar(folder / mini.TAR)
        change_members(found, list(found))
        mini.write_tar(folder / mini.TAR, found)

    return change


def add_member(name, content=None):
    return members(lambda found, names: found.update({name: found[names[0]] if content is None else content}))


def both(first, second):
    return lambda folder: (first(folder), second(folder))


def cell_of_sheet(address, value):
    def change(folder):
        book = openpyxl.load_workbook(folder / mini.WELLS)
        book.active[address] = value
        book.save(folder / mini.WELLS)

    return change


def clear_block(folder, name):
    """Empty every cell of the sheet that holds a sample name."""
    book = openpyxl.load_workbook(folder / mini.WELLS)
    for row in book.active.iter_rows(min_row=5, min_col=3, max_col=3):
        if row[0].value == name:
            row[0].value = None
    book.save(folder / mini.WELLS)


def without_row(number):
    def change(folder):
        book = openpyxl.load_workbook(folder / mini.WELLS)
        book.active.delete_rows(number)
        book.save(folder / mini.WELLS)

    return change


def silence(text, column):
    """Set the counts of one well to 0."""
    rows = [line.split(",") for line in text.strip().split("\n")]
    return "\n".join([",".join(rows[0]), *(",".join([*r[:column], "0", *r[column + 1 :]]) for r in rows[1:]), ""])


def web_page(file):
    return lambda folder: (folder / file).write_bytes(b"<!DOCTYPE html><html>Service unavailable</html>")


REFUSED = {
    # what arrived
    "truncated gzip": ("DATA1", truncate(mini.TPM), [mini.TPM, "cut short", "Delete"]),
    "truncated count file in the tar": (
        "DATA3", members(lambda m, names: m.update({names[3]: m[names[3]][:-12]})), ["GSM4161455_", "cut short"]),
    "truncated tar": ("DATA3", truncate(mini.TAR, 12_000), [mini.TAR]),
    "web page instead of gzip": ("DATA1", web_page(mini.CELLINFO), [mini.CELLINFO, "web page", "expected .gz data"]),
    "web page instead of a spreadsheet": ("DATA4", web_page(mini.WELLS), [mini.WELLS, "web page"]),
    # GSE117872
    "comma instead of tab": (
        "DATA1", rewrite(mini.TPM, lambda text: text.replace("\t", ",")), [mini.TPM, "found no tabs", "expected tabs"]),
    "annotation with commas": (
        "DATA1", rewrite(mini.CELLINFO, lambda text: text.replace("\t", ",")),
        [mini.CELLINFO, "tab-separated", "found ,groups,cell_color", "expected groups, cell_color, origin, cluster"]),
    "missing column": (
        "DATA1", edit(mini.CELLINFO, "cell_color", "colour"),
        ["cell_color is missing", "groups, colour, patient_id", "expected groups, cell_color"]),
    "log values": ("DATA1", rewrite(mini.TPM, logarithms), [mini.TPM, "found values from 0", "expected linear TPM"]),
    "negative values": ("DATA1", edit(mini.TPM, "\nNEK6\t", "\nNEK6\t-"), [mini.TPM, "found values from -", "linear"]),
    "transposed matrix": (
        "DATA1", rewrite(mini.TPM, lambda text: turned("\t")("gene" + text)),
        [mini.TPM, "29 of 29 annotated cells", "found columns NEK6", "expected one column a cell", "transposed"]),
    "unknown culture": (
        "DATA1", edit(mini.CELLINFO, "\tHN120M\t", "\tHN120X\t"),
        [mini.CELLINFO, "'HN120X' (5 cells)", "expected one of HN120P, HN120M, HN120PCR, HN120MCR"]),
    "unknown condition": ("DATA1", edit(mini.CELLINFO, "Holiday", "Vacation"), ["'Vacation' (9 cells)", "Holiday"]),
    "patient is absent": (
        "DATA1", edit(mini.CELLINFO, "HN120\t", "HN999\t"),
        ["no cell has origin HN120", "found HN137, HN148, HN999", "expected HN120, HN137"]),
    "duplicate cell, annotation": (
        "DATA1", edit(mini.CELLINFO, "RHH2178", "RHH2177"), [mini.CELLINFO, "RHH2177 (2 times)"]),
    "duplicate cell, matrix": ("DATA1", edit(mini.TPM, "RHH2178", "RHH2177"), [mini.TPM, "RHH2177 (2 times)"]),
    "cell not in the matrix": ("DATA1", edit(mini.TPM, "RHH2180", "RHH9"), ["1 of 29 annotated cells", "RHH2180"]),
    "wrong count": (
        "DATA1", edit(mini.CELLINFO, "RHH2177\tHN120P\t1\tHN120", "RHH2177\tHN120P\t1\tHN148"),
        ["cells: found 28, expected 29", "culture 'HN120P': found 4, expected 5",
         "RHH2177 only in labels.csv", mini.TPM]),
    "no number": ("DATA1", edit(mini.TPM, "\nNEK6\t", "\nNEK6\tn/a"), [mini.TPM, "no number"]),
    "genes mangled by a spreadsheet": (
        "DATA1", both(edit(mini.TPM, "UCHL1", "1-Mar"), edit(mini.TPM, "EDIL3", "2-Sep")),
        ["2 gene names", "1-Mar, 2-Sep", geo.MANGLED_VARIABLE]),
    # GSE140440
    "unknown condition, series matrix": (
        "DATA3", edit(mini.SERIES, "DU145_Res_2", "DU145_5nM_2"),
        [mini.SERIES, "'DU145_5nM_2 | prostate' (1 cells)", "expected one of Resistant, Sensitive"]),
    "ragged series matrix": (
        "DATA3", edit(mini.SERIES, "DU145_Res_1", 'x"\t"y'), ["lines that describe the 18 samples"]),
    "unknown cell line": ("DATA3", edit(mini.SERIES, "PC3_Sen_1", "LNCaP_Sen_1"), ["(1 cells)", "one of DU-145, PC-3"]),
    "sample not described": (
        "DATA3", edit(mini.SERIES, "GSM4161686", "GSM1"),
        [mini.SERIES, "GSM4161686", "1 of 18 cells", "expected one for each count file"]),
    "wrong order of blocks": (
        "DATA3", both(edit(mini.SERIES, "DU145_Res_1", "PC3_Res_9"), edit(mini.SERIES, "PC3_Res_4", "DU145_Res_9")),
        ["blocks of one culture", "found (4, 1, 3, 5, 3, 1, 1), expected (4, 4, 5, 5)"]),
    "labels exchanged": (
        "DATA3", both(edit(mini.SERIES, "DU145_Res_1", "DU145_Sen_9"), edit(mini.SERIES, "DU145_Sen_4", "DU145_Res_9")),
        ["labels: 2 cells differ from labels.csv: GSM4161455, GSM4161524", "blocks"]),
    "missing file in the tar": (
        "DATA3", members(lambda m, names: m.pop(names[5])),
        [mini.TAR, "cells: found 17, expected 18", "GSM4161525 only in labels.csv",
         "without a count file: GSM4161525"]),
    "other genes in one count file": (
        "DATA3", members(lambda m, names: m.update({names[-1]: gzip.compress(b"ENSG00000141510.1\t1\n")})),
        ["GSM4161690_", "other genes: found 1, expected the 260"]),
    "duplicate cell in the tar": ("DATA3", add_member("GSM4161452_again.counts.txt.gz"), ["GSM4161452 (2 times)"]),
    "values that are no counts": (
        "DATA3", members(lambda m, names: m.update({names[0]: gzip.compress(
            gzip.decompress(m[names[0]]).replace(b"\t", b"\t0.5"))})), [mini.TAR, "expected counts (whole numbers"]),
    "values without an end": (
        "DATA3", members(lambda m, names: m.update({names[0]: gzip.compress(
            gzip.decompress(m[names[0]]).replace(b"\t1\n", b"\tinf\n"))})), [mini.TAR, "found values such as inf"]),
    "path traversal": ("DATA3", add_member("../GSM4161700_c.counts.txt.gz"), [mini.TAR, "unsafe", "../GSM"]),
    "absolute path": ("DATA3", add_member("/GSM4161700_c.counts.txt.gz"), ["unsafe"]),
    "link": ("DATA3", add_member("GSM4161700_c.counts.txt.gz", "/etc/hostname"), ["unsafe"]),
    "member that unpacks without end": (
        "DATA3", add_member("GSM4161700_c.counts.txt.gz", gzip.compress(bytes(geo_files.MAX_COUNT_FILE + 1), 1)),
        ["GSM4161700_c", "more than 67,108,864 bytes", "expected gene, tab, count"]),
    "tar without counts": (
        "DATA3", lambda f: mini.write_tar(f / mini.TAR, {"readme.txt": b"x"}), ["readme.txt", "GSM"]),
    # GSE110894
    "renamed column of the spreadsheet": (
        "DATA4", cell_of_sheet("B4", "Well"),
        ["Well position is missing", "fourth row", "found Plate#, Well,", "expected Plate#, Sample name"]),
    "column of the spreadsheet dropped": ("DATA4", cell_of_sheet("E4", None), ["Well index is missing", mini.WELLS]),
    "header on another row": ("DATA4", without_row(1), [mini.WELLS, "fourth row", "Plate#, Sample name"]),
    "merged cell without its value": (
        "DATA4", cell_of_sheet("C5", None), [mini.WELLS, "Sample name is empty in the first",
         "at the top of each block"]),
    "merged block without its value": (
        "DATA4", lambda f: clear_block(f, "DMSO"), ["cells with culture 'DMSO': found 0, expected 19", "withdrawal'"]),
    "unknown well": (
        "DATA4", cell_of_sheet("C5", "SOMETHING NEW"), [mini.WELLS, "'SOMETHING NEW'", "I-BET withdrawal"]),
    "duplicate well": ("DATA4", cell_of_sheet("B6", "A1=AGAIN"), [mini.WELLS, "RPI1_A1 (2 times)"]),
    "tab instead of comma": (
        "DATA4", rewrite(mini.COUNTS, lambda text: text.replace(",", "\t")), [mini.COUNTS, "expected commas"]),
    "log counts": (
        "DATA4", edit(mini.COUNTS, "\nENSMUSG00000026749,", "\nENSMUSG00000026749,1.5"), [mini.COUNTS, "1.5", "whole"]),
    "transposed counts": (
        "DATA4", rewrite(mini.COUNTS, turned(",")), [mini.COUNTS, "found columns ENSMUSG", "transposed"]),
    "well not in the matrix": (
        "DATA4", edit(mini.COUNTS, "RPI1_A3,", "RPI1_A99,"),
        ["cells: found", "1 wells of GSE110894_SingleCellInfo.xlsx that GSE110894_gene_count.csv.gz lacks: RPI1_A3",
         "without annotation: RPI1_A99"]),
    "filter leaves another number": (
        "DATA4", rewrite(mini.COUNTS, lambda text: silence(text, 4)),
        ["cells with at least 200 genes: found 73, expected 74"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    name, change, words = REFUSED[case]
    message = refused(name, tmp_path, change)
    assert [word for word in words if word not in message] == [], message
    assert re.search("Delete|run again|set ATSDP", message) and any(f in message for f in geo.SERIES[name].files)


def test_a_repaired_file_is_accepted_after_a_refusal(tmp_path):
    refused("DATA1", tmp_path, truncate(mini.TPM))
    assert load("DATA1", tmp_path).n_obs == 29


def test_mangled_genes_can_be_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv(geo.MANGLED_VARIABLE, "drop")
    a = load("DATA1", tmp_path, edit(mini.TPM, "UCHL1", "1-Mar"))
    assert a.var_names.tolist() == [g for g in mini.symbols(mini.GENES) if g != "UCHL1"]
    assert a.uns["mangled_genes"] == ["1-Mar"]


@pytest.mark.parametrize("gene", ["1-Mar", "2-Sep", "MAR-01", "Dec-1", "2.31E+13", "2018-09-02"])
def test_mangled_names(gene):
    assert geo.MANGLED.fullmatch(gene)


@pytest.mark.parametrize("gene", ["MARCH1", "SEPT2", "SEPTIN2", "HLA-A", "NKX2-1", "MT-ND1", "DEC1", "7SK", "4-SEP1"])
def test_gene_names_that_look_like_dates_but_are_none(gene):
    assert not geo.MANGLED.fullmatch(gene)


def test_wrong_counts_are_listed_one_by_one(tmp_path):
    groups = geo.SERIES["DATA1"].expected.groups
    message = refused("DATA1", tmp_path, cells=548, strict=(10, 10), paper=(20, 11), groups=groups)
    assert "cells: found 29, expected 548" in message
    assert "cells with culture 'HN120P': found 5, expected 90" in message
    assert "sensitive and resistant cells, paper counting: found (19, 10), expected (20, 11)" in message
    assert "strict counting" not in message


def test_labels_are_compared_cell_by_cell(tmp_path):
    resistant = mini.patient_cells("HN120", mini.SCALE).query("cluster == 'Resistant'").groups.iloc[0]

    def swap(folder):  # the totals stay as they are
        table = (folder / "labels.csv").read_text()
        (folder / "labels.csv").write_text(
            table.replace("RHH2177,1", "RHH2177,0").replace(f"{resistant},0", f"{resistant},1")
        )

    message = refused("DATA1", tmp_path, swap)
    assert (
        f"labels: 2 cells differ from labels.csv: RHH2177, {resistant}" in message
        and "expected" not in message.split("\n")[1]
    )


def test_cell_list_must_agree(tmp_path):
    def forget(folder):
        path = folder / "scores.csv"
        path.write_text(path.read_text().replace("RPI1_A3", "RPI1_P24"))

    message = refused("DATA4", tmp_path, forget)
    assert "RPI1_A3 not in scores.csv" in message and "RPI1_P24 only in scores.csv" in message


def test_unknown_name():
    with pytest.raises(KeyError, match="DATA9.*DATA1, DATA2"):
        geo.load("DATA9")


# --- downloads ------------------------------------------------------------------------------------------------------
def serve(server, folder, name):
    """Write the miniature aside and let the server offer its files."""
    source = folder / "server"
    source.mkdir()
    expected = mini.WRITERS[name](source)
    server.files = {f: (source / f).read_bytes() for f in geo.SERIES[name].files}
    return expected


def test_download_then_load(server, tmp_path):
    expected = serve(server, tmp_path, "DATA3")
    a = mini.load("DATA3", tmp_path / "down", expected)
    assert a.n_obs == expected.cells
    lock = json.loads((tmp_path / "down" / "geo.lock.json").read_text())
    assert sorted(lock) == sorted(geo.SERIES["DATA3"].files) and all(
        re.fullmatch("[0-9a-f]{64}", v) for v in lock.values()
    )
    asked = len(server.requests)
    mini.load("DATA3", tmp_path / "down", expected)
    assert len(server.requests) == asked  # nothing is downloaded twice
    assert not list((tmp_path / "down").glob("*.part"))


def test_an_interrupted_download_is_tried_again_and_leaves_nothing_behind(server, tmp_path):
    content = gzip.compress(np.random.default_rng(0).bytes(5000), mtime=0)
    server.files, server.cut = {"x.gz": content}, {"x.gz": 1000}
    with pytest.raises(GeoError, match=r"x\.gz: download failed.*Tried http.*by hand at .*x\.gz"):
        geo_files.fetch(f"{server.url}/x.gz", tmp_path)
    assert len(server.requests) == 1 + geo_files.RETRIES
    assert [path.name for path in tmp_path.iterdir()] in ([], [".lock"])
    server.cut = {}
    assert geo_files.fetch(f"{server.url}/x.gz", tmp_path).read_bytes() == content


def test_a_download_that_fails_once_goes_on(server, tmp_path):
    expected = serve(server, tmp_path, "DATA3")
    server.fail_once = {mini.TAR}
    assert mini.load("DATA3", tmp_path / "down", expected).n_obs == expected.cells
    assert server.requests.count(mini.TAR) == 2


def test_failed_download_names_file_address_and_way_out_and_keeps_the_others(server, tmp_path):
    expected = serve(server, tmp_path, "DATA1")
    info = server.files.pop(mini.CELLINFO)
    with pytest.raises(GeoError) as error:
        mini.load("DATA1", tmp_path / "down", expected)
    for word in (
        mini.CELLINFO,
        f"{server.url}/GSE117nnn/GSE117872/suppl/",
        "404",
        "place the file by hand at",
        str(tmp_path),
    ):
        assert word in str(error.value)
    server.files[mini.CELLINFO] = info
    server.requests.clear()
    assert mini.load("DATA1", tmp_path / "down", expected).n_obs == expected.cells
    assert server.requests == [mini.CELLINFO]  # goes on with what was missing


def test_web_page_from_the_server_is_not_kept(server, tmp_path):
    expected = serve(server, tmp_path, "DATA1")
    good = server.files[mini.TPM]
    server.files[mini.TPM] = b"<html><body>Too many requests</body></html>"
    with pytest.raises(GeoError, match="web page.*Tried http"):
        mini.load("DATA1", tmp_path / "down", expected)
    assert not list((tmp_path / "down").glob("*TPM*"))
    server.files[mini.TPM] = good
    assert mini.load("DATA1", tmp_path / "down", expected).n_obs == expected.cells


@pytest.mark.parametrize("said", [True, False])
def test_a_download_without_end_is_stopped_and_not_kept(server, tmp_path, monkeypatch, said):
    monkeypatch.setattr(geo_files, "MAX_DOWNLOAD", 1000)
    server.files, server.length = {"x.gz": np.random.default_rng(0).bytes(5000)}, said
    with pytest.raises(GeoError, match=r"x\.gz: found more than .* bytes, expected at most 1,000.*Tried http"):
        geo_files.fetch(f"{server.url}/x.gz", tmp_path / "down")
    assert not list((tmp_path / "down").glob("x.gz*"))


@pytest.mark.parametrize("name", ["x.gz", "x.xlsx"])
def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(geo_files, "MAX_UNPACKED", 1 << 21)
    for size, refused in ((1 << 21, False), ((1 << 21) + 1, True)):
        if name == "x.gz":
            (tmp_path / name).write_bytes(gzip.compress(bytes(size)))
        else:
            with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("sheet.xml", bytes(size))
        with pytest.raises(GeoError, match=f"{name}: found more than") if refused else nullcontext():
            geo_files.check_content(tmp_path / name)


def test_other_content_after_first_use_is_refused(server, tmp_path):
    url = f"{server.url}/x.gz"
    first, second = (gzip.compress(text, mtime=0) for text in (b"one", b"two"))
    server.files = {"x.gz": first}
    path = geo_files.fetch(url, tmp_path)
    path.write_bytes(second)
    with pytest.raises(GeoError, match=r"x\.gz: SHA-256 is .* at first use it was .*Delete"):
        geo_files.fetch(url, tmp_path)
    path.unlink()
    server.files = {"x.gz": second}
    with pytest.raises(GeoError, match="server sent another content than that of first use"):
        geo_files.fetch(url, tmp_path)
    assert not path.exists()
    server.files = {"x.gz": first}
    assert geo_files.fetch(url, tmp_path).read_bytes() == first


def test_command_line_goes_on_after_a_failure(server, tmp_path, monkeypatch, capsys):
    serve(server, tmp_path, "DATA3")
    monkeypatch.setattr(geo.paths, "DOWNLOADS", tmp_path / "down")
    assert geo.main(["download", "DATA1", "DATA3"]) == 1
    out, err = capsys.readouterr()
    assert "[OK] DATA3: GSE140440_RAW.tar (" in out and "[FAIL] DATA1: " in err
    assert geo.main(["download", "DATA3"]) == 0
    assert geo.main([]) == 2
