"""Tier geo on miniature files: what the loaders read, what they refuse, and how downloads go on."""

import gzip
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from atsdp_utils import fetch, geo
from atsdp_utils.fetch import GeoError, Remote

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not add it
import geo_fixtures as mini  # noqa: E402


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    running = mini.Server()
    monkeypatch.setattr(geo, "BASE", running.url)
    yield running
    running.close()


def load(name, folder, change=None, **expected):
    """Write a miniature, change it, load it with what is expected of it."""
    found = mini.WRITERS[name](folder)
    if change:
        change(folder)
    return geo.load(name, folder, replace(found, **expected))


def refused(name, folder, change=None, **expected) -> str:
    with pytest.raises(GeoError) as error:
        load(name, folder, change, **expected)
    return str(error.value)


# --- what is read ---------------------------------------------------------------------------------------------------
def test_head_and_neck(tmp_path):
    a = load("DATA1", tmp_path)
    assert a.shape == (9, 4) and a.var_names.tolist() == mini.GENES
    # the matrix lists cells in reverse order, so RHH2177 is column 9, counted from 0
    assert a["RHH2177"].X.toarray().ravel().tolist() == [9 + 49, 19, 29, 39]  # the two rows of TP53 are added up
    assert a.uns["repeated_gene_rows"] == 1 and a.uns["tier"] == "geo" and "HN120" in a.uns["origin"]
    assert a.var["ortholog"].tolist() == mini.GENES
    assert a.obs["culture"].tolist()[-2:] == ["HN120PCRDH"] * 2 and a.obs["cluster"].tolist()[0] == "Sensitive"
    assert a.obs["sensitive"].isna().tolist() == [False] * 7 + [True] * 2
    assert a.obs["sensitive_paper"].tolist() == [True] * 3 + [False] * 4 + [True] * 2


def test_prostate(tmp_path):
    a = load("DATA3", tmp_path)
    assert a.obs_names.tolist() == ["GSM4161452", "GSM4161524", "GSM4161600", "GSM4161700"]
    assert a.obs["culture"].tolist() == ["DU-145", "DU-145 docetaxel-resistant", "PC-3", "PC-3 docetaxel-resistant"]
    assert a.obs["sensitive"].tolist() == [True, False, True, False]
    assert a.var_names.tolist() == mini.GENES  # no __no_feature
    assert a["GSM4161600"].X.toarray().ravel().tolist() == [2, 12, 22, 32]


def test_prostate_with_ensembl_ids(tmp_path):
    def change(folder):
        rows = "ENSG00000141510.17\t5\nENSG00000198888\t3\nENSG99999999999\t1\n"
        names = [f"GSM{n}_x.counts.txt.gz" for n in (4161452, 4161524, 4161600, 4161700)]
        mini.write_tar(
            folder / mini.TAR, {name: gzip.compress(rows.encode()) for name in [*names]} | {"readme.txt": b"x"}
        )

    a = load("DATA3", tmp_path, change)
    assert a.var_names.tolist() == ["TP53", "MT-ND1", "ENSG99999999999"]
    assert a.var["ortholog"].tolist() == ["TP53", "MT-ND1", ""]
    assert a.var["id"].tolist()[0] == "ENSG00000141510.17"
    assert a.uns["ignored_members"] == ["readme.txt"]


def test_leukaemia(tmp_path):
    a = load("DATA4", tmp_path)
    assert a.obs_names.tolist() == ["RPI1_A3", "RPI1_A4", "RPI1_A5", "RPI1_A6", "RPI3_A3", "RPI3_A4", "RPI3_A5"]
    assert a.obs["culture"].tolist() == [
        "DMSO", "DMSO", "I-BET 400 nM", "I-BET resistant", "I-BET withdrawal", "101 CELL CONTROL", "EMPTY",
    ]  # fmt: skip
    paper = a.obs["sensitive_paper"]
    assert paper[:5].tolist() == [True, True, True, False, False] and paper[5:].isna().all()
    assert a.obs["sensitive"].equals(paper.rename("sensitive"))
    assert a.obs["Sample name"].tolist()[1] == "DMSO"  # merged cells are filled downwards
    assert a.var["id"].tolist() == mini.MOUSE
    assert a.var["ortholog"].tolist()[:2] == ["TP53", "ACTB"] and a.var["ortholog"].tolist()[3] == ""
    assert a.var_names.tolist()[0] == "Trp53" and a.var_names.tolist()[2] == "mt-Nd1"
    assert a["RPI1_A4"].X.toarray().ravel().tolist() == [1, 8, 15, 22]


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


def test_the_real_expectations_fit_the_embedded_tables():
    for name, (sensitive, resistant) in {"DATA1": (361, 187), "DATA2": (403, 165), "DATA3": (162, 162)}.items():
        expected = geo.SERIES[name].expected
        labels = np.loadtxt(expected.labels, delimiter=",", skiprows=1, usecols=1)
        assert expected.paper == (sensitive, resistant, 0) == ((labels == 1).sum(), (labels == 0).sum(), 0)
    assert geo.SERIES["DATA4"].expected.cells == 1419 == sum(geo.SERIES["DATA4"].expected.paper)


def test_addresses():
    assert [r.url for r in geo.SERIES["DATA3"].remotes()] == [
        "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE140nnn/GSE140440/suppl/GSE140440_RAW.tar",
        "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE140nnn/GSE140440/matrix/GSE140440_series_matrix.txt.gz",
    ]


# --- what is refused, and with which words --------------------------------------------------------------------------
def truncate(file):
    def change(folder):
        raw = (folder / file).read_bytes()
        (folder / file).write_bytes(raw[: len(raw) - 12])

    return change


def edit(file, old, new):
    return lambda folder: mini.edit_gz(folder / file, old, new)


def both(first, second):
    return lambda folder: (first(folder), second(folder))


def tar_of(members):
    return lambda folder: mini.write_tar(folder / mini.TAR, members)


def cell_of_sheet(address, value):
    def change(folder):
        book = openpyxl.load_workbook(folder / mini.WELLS)
        book.active[address] = value
        book.save(folder / mini.WELLS)

    return change


def web_page(file):
    return lambda folder: (folder / file).write_bytes(b"<!DOCTYPE html><html>Service unavailable</html>")


GOOD = {f"GSM{n}_c.counts.txt.gz": mini.count_file(n % 7) for n in (4161452, 4161524, 4161600)}
REFUSED = {
    "truncated gzip": ("DATA1", truncate(mini.TPM), [mini.TPM, "cut short", "Delete"]),
    "truncated count file in the tar": (
        "DATA3", tar_of({**GOOD, "GSM4161700_c.counts.txt.gz": mini.count_file(1)[:-12]}),
        ["GSM4161700_c.counts.txt.gz", "cut short"]),
    "web page instead of gzip": ("DATA1", web_page(mini.CELLINFO), [mini.CELLINFO, "web page"]),
    "web page instead of a spreadsheet": ("DATA4", web_page(mini.WELLS), [mini.WELLS, "web page"]),
    "missing column": (
        "DATA1", edit(mini.CELLINFO, "cell_color", "colour"), ["cell_color is missing", "found groups, colour"]),
    "missing column of the spreadsheet": (
        "DATA4", cell_of_sheet("B4", "Well"), ["Well position is missing", "fourth row", "Plate#, Well"]),
    "unknown condition": ("DATA1", edit(mini.CELLINFO, "Holiday", "Vacation"), ["'Vacation' (2 cells)", "Holiday"]),
    "unknown condition, series matrix": (
        "DATA3", both(edit(mini.SERIES, "docetaxel resistant", "5 nM"), edit(mini.SERIES, "_DR_", " ")),
        ["unknown condition", "'DU145 1 | DU-145 | DU145 | 5 nM' (1 cells)", "Resistant, Sensitive"]),
    "ragged series matrix": ("DATA3", edit(mini.SERIES, "DU145_DR_1", 'x"\t"y'), ["lines that describe the 5 samples"]),
    "unknown cell line": ("DATA3", edit(mini.SERIES, "PC", "LN"), ["unknown condition", "(1 cells)", "DU-145, PC-3"]),
    "sample not described": ("DATA3", edit(mini.SERIES, "GSM4161700", "GSM1"), ["GSM4161700", "1 of 4 cells"]),
    "unknown well": (
        "DATA4", cell_of_sheet("C5", "SOMETHING NEW"), ["'SOMETHING NEW' (2 cells)", "I-BET withdrawal"]),
    "duplicate cell, annotation": (
        "DATA1", edit(mini.CELLINFO, "RHH2178", "RHH2177"), [mini.CELLINFO, "RHH2177 (2 times)"]),
    "duplicate cell, matrix": ("DATA1", edit(mini.TPM, "RHH2178", "RHH2177"), [mini.TPM, "RHH2177 (2 times)"]),
    "duplicate well": ("DATA4", cell_of_sheet("B6", "A3=AGAIN"), ["RPI1_A3 (2 times)"]),
    "duplicate cell in the tar": (
        "DATA3", tar_of({**GOOD, "GSM4161600_d.counts.txt.gz": mini.count_file(2)}), ["GSM4161600 (2 times)"]),
    "cell not in the matrix": ("DATA1", edit(mini.TPM, "RHH2180", "RHH9"), ["1 of 9 annotated cells", "RHH2180"]),
    "no number": ("DATA1", edit(mini.TPM, "\t19.0", "\tn/a"), [mini.TPM, "no number"]),
    "genes mangled by a spreadsheet": (
        "DATA1", both(edit(mini.TPM, "UCHL1", "1-Mar"), edit(mini.TPM, "EDIL3", "2-Sep")),
        ["2 gene names", "1-Mar, 2-Sep", geo.MANGLED_VARIABLE]),
    "other genes in one count file": (
        "DATA3", tar_of({**GOOD, "GSM4161700_c.counts.txt.gz": gzip.compress(b"TP53\t1\n")}),
        ["GSM4161700", "other genes"]),
    "path traversal": (
        "DATA3", tar_of({**GOOD, "../GSM4161700_c.counts.txt.gz": mini.count_file(1)}), ["unsafe", "../GSM"]),
    "absolute path": ("DATA3", tar_of({**GOOD, "/GSM4161700_c.counts.txt.gz": mini.count_file(1)}), ["unsafe"]),
    "link": ("DATA3", tar_of({**GOOD, "GSM4161700_c.counts.txt.gz": "/etc/hostname"}), ["unsafe"]),
    "tar without counts": ("DATA3", tar_of({"readme.txt": b"x"}), ["no GSM", "readme.txt"]),
    "patient is absent": ("DATA1", edit(mini.CELLINFO, "HN120\t", "HN148\t"), ["no cell has origin HN120", "HN148"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    name, change, words = REFUSED[case]
    message = refused(name, tmp_path, change)
    for word in words:
        assert word in message


def test_a_repaired_file_is_accepted_after_a_refusal(tmp_path):
    refused("DATA1", tmp_path, truncate(mini.TPM))
    assert load("DATA1", tmp_path).n_obs == 9


def test_mangled_genes_can_be_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv(geo.MANGLED_VARIABLE, "drop")
    a = load("DATA1", tmp_path, edit(mini.TPM, "UCHL1", "1-Mar"))
    assert a.var_names.tolist() == ["TP53", "MT-ND1", "EDIL3"] and a.uns["mangled_genes"] == ["1-Mar"]
    assert a["RHH2177"].X.toarray().ravel().tolist() == [9 + 49, 29, 39]


@pytest.mark.parametrize("gene", ["1-Mar", "2-Sep", "MAR-01", "Dec-1", "2.31E+13", "2018-09-02"])
def test_mangled_names(gene):
    assert geo.MANGLED.fullmatch(gene)


@pytest.mark.parametrize("gene", ["MARCH1", "SEPT2", "SEPTIN2", "HLA-A", "NKX2-1", "MT-ND1", "DEC1", "7SK", "4-SEP1"])
def test_gene_names_that_look_like_dates_but_are_none(gene):
    assert not geo.MANGLED.fullmatch(gene)


def test_wrong_counts_are_listed_one_by_one(tmp_path):
    message = refused("DATA1", tmp_path, cells=548, paper=(6, 3, 0), groups={"culture": {"HN120P": 90}})
    assert "cells: found 9, expected 548" in message
    assert "cells with culture 'HN120P': found 2, expected 90" in message
    assert "cells sensitive (the paper's counting): found 5, expected 6" in message
    assert "cells resistant (the paper's counting): found 4, expected 3" in message
    assert "without label" not in message


def test_labels_are_compared_cell_by_cell(tmp_path):
    def swap(folder):  # the totals stay as they are
        table = (folder / "labels.csv").read_text()
        (folder / "labels.csv").write_text(table.replace("RHH2177,1", "RHH2177,0").replace("RHH2180,0", "RHH2180,1"))

    message = refused("DATA1", tmp_path, swap)
    assert (
        "labels: 2 cells differ from labels.csv: RHH2177, RHH2180" in message
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
    a = geo.load("DATA3", tmp_path / "down", expected)
    assert a.n_obs == 4
    lock = json.loads((tmp_path / "down" / "geo.lock.json").read_text())
    assert sorted(lock) == sorted(geo.SERIES["DATA3"].files) and all(
        re.fullmatch("[0-9a-f]{64}", v) for v in lock.values()
    )
    asked = len(server.requests)
    geo.load("DATA3", tmp_path / "down", expected)
    assert len(server.requests) == asked  # nothing is downloaded twice
    assert not list((tmp_path / "down").glob("*.part"))


def test_interrupted_download_resumes_within_a_run(server, tmp_path):
    expected = serve(server, tmp_path, "DATA3")
    size = len(server.files[mini.TAR])
    server.cut[mini.TAR] = size // 3 + 1
    assert geo.load("DATA3", tmp_path / "down", expected).n_obs == 4
    ranges = [asked for name, asked in server.requests if name == mini.TAR]
    assert ranges == [None, f"bytes={size // 3 + 1}-", f"bytes={2 * (size // 3 + 1)}-"]


def test_interrupted_download_resumes_in_the_next_run(server, tmp_path):
    remote, folder, lock = Remote("x.gz", f"{server.url}/x.gz"), tmp_path / "down", tmp_path / "lock.json"
    content = gzip.compress(np.random.default_rng(0).bytes(5000), mtime=0)
    server.files, server.cut = {"x.gz": content}, {"x.gz": 1000}
    with pytest.raises(GeoError, match=r"x\.gz: download failed.*2,000 bytes are kept.*Tried http.*by hand at .*x\.gz"):
        fetch.fetch(remote, folder, lock, attempts=2)
    assert not (folder / "x.gz").exists() and not lock.exists()
    server.cut = {}
    assert fetch.fetch(remote, folder, lock).read_bytes() == content
    assert server.requests[-1] == ("x.gz", "bytes=2000-")


def test_a_server_that_cannot_resume_starts_over(server, tmp_path):
    remote, folder = Remote("x.gz", f"{server.url}/x.gz"), tmp_path / "down"
    content = gzip.compress(np.random.default_rng(0).bytes(5000), mtime=0)
    server.files, server.ranges = {"x.gz": content}, False
    folder.mkdir()
    (folder / "x.gz.part").write_bytes(content[:700])
    assert fetch.fetch(remote, folder, tmp_path / "lock.json").read_bytes() == content


@pytest.mark.parametrize("extra", [b"", b"left from a longer file"])
def test_a_partial_file_that_is_complete_or_too_long(server, tmp_path, extra):
    remote, folder = Remote("x.gz", f"{server.url}/x.gz"), tmp_path / "down"
    content = gzip.compress(b"some text", mtime=0)
    server.files = {"x.gz": content}
    folder.mkdir()
    (folder / "x.gz.part").write_bytes(content + extra)
    assert fetch.fetch(remote, folder, tmp_path / "lock.json").read_bytes() == content


def test_failed_download_names_file_address_and_way_out_and_keeps_the_others(server, tmp_path):
    expected = serve(server, tmp_path, "DATA1")
    info = server.files.pop(mini.CELLINFO)
    with pytest.raises(GeoError) as error:
        geo.load("DATA1", tmp_path / "down", expected)
    for word in (
        mini.CELLINFO,
        f"{server.url}/GSE117nnn/GSE117872/suppl/",
        "404",
        "place the file by hand at",
        str(tmp_path),
    ):
        assert word in str(error.value)
    assert len([1 for name, _ in server.requests if name == mini.CELLINFO]) == 1  # 404 is not worth a second try
    server.files[mini.CELLINFO] = info
    server.requests.clear()
    assert geo.load("DATA1", tmp_path / "down", expected).n_obs == 9
    assert [name for name, _ in server.requests] == [mini.CELLINFO]  # goes on with what was missing


def test_web_page_from_the_server_is_not_kept(server, tmp_path):
    expected = serve(server, tmp_path, "DATA1")
    good = server.files[mini.TPM]
    server.files[mini.TPM] = b"<html><body>Too many requests</body></html>"
    with pytest.raises(GeoError, match="web page.*Tried http"):
        geo.load("DATA1", tmp_path / "down", expected)
    assert not list((tmp_path / "down").glob("*TPM*"))
    server.files[mini.TPM] = good
    assert geo.load("DATA1", tmp_path / "down", expected).n_obs == 9


def test_other_content_after_first_use_is_refused(server, tmp_path):
    remote, folder, lock = Remote("x.gz", f"{server.url}/x.gz"), tmp_path / "down", tmp_path / "lock.json"
    first, second = (gzip.compress(text, mtime=0) for text in (b"one", b"two"))
    server.files = {"x.gz": first}
    path = fetch.fetch(remote, folder, lock)
    path.write_bytes(second)
    with pytest.raises(GeoError, match=r"x\.gz: SHA-256 is .* at first use it was .*Delete"):
        fetch.fetch(remote, folder, lock)
    path.unlink()
    server.files = {"x.gz": second}
    with pytest.raises(GeoError, match="server sent another content than that of first use"):
        fetch.fetch(remote, folder, lock)
    assert not path.exists()
    server.files = {"x.gz": first}
    assert fetch.fetch(remote, folder, lock).read_bytes() == first


def test_command_line_goes_on_after_a_failure(server, tmp_path, monkeypatch, capsys):
    serve(server, tmp_path, "DATA3")
    monkeypatch.setattr(geo.paths, "DOWNLOADS", tmp_path / "down")
    assert geo.main(["download", "DATA1", "DATA3"]) == 1
    out, err = capsys.readouterr()
    assert "[OK] DATA3: GSE140440_RAW.tar (" in out and "[FAIL] DATA1: " in err
    assert geo.main(["download", "DATA3"]) == 0
    assert geo.main([]) == 2
