"""A person's files: every format gives the same cells, and everything wrong with one is said in words."""

import bz2
import gzip
import lzma
import os
import re
import zipfile
from dataclasses import replace

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
from scipy import io, sparse

from atsdp_utils.data import gdsc, gene_names
from atsdp_utils.foundation import checksums
from atsdp_utils.own_cells import cell_values, cellfile, readers
from atsdp_utils.own_cells.cellfile import (
    CellFile,
    InputError,
    contradicted,
    dense,
    names_of_no_gene,
    of_other_species,
    recognise,
)

CELLS = [f"cell-{i}" for i in range(12)]


@pytest.fixture(scope="module")
def genes():
    """150 bulk genes that have an Ensembl id and a mouse ortholog."""
    human, mouse = set(gene_names.ensembl_symbols("human").values()), set(gene_names.human_to_mouse())
    return [g for g in gdsc.load_bulk().genes if g in human and g in mouse][:150]


@pytest.fixture(scope="module")
def counts(genes):
    return np.random.default_rng(0).poisson(0.7, (len(CELLS), len(genes))).astype(np.float32)


def write(tmp_path, name, counts, genes):
    """The same counts in one of the formats."""
    path, frame = tmp_path / name, pd.DataFrame(counts, CELLS, genes)
    if name.endswith(".h5ad"):
        anndata.AnnData(sparse.csr_matrix(counts), frame[[]], pd.DataFrame(index=genes)).write_h5ad(path)
    elif name == "10x.h5":
        X = sparse.csr_matrix(counts)
        with h5py.File(path, "w") as f:
            f["matrix/data"], f["matrix/indices"], f["matrix/indptr"] = X.data.astype(int), X.indices, X.indptr
            f["matrix/shape"], f["matrix/barcodes"] = X.shape[::-1], [c.encode() for c in CELLS]
            f["matrix/features/id"] = [b"x%d" % i for i in range(len(genes))]
            f["matrix/features/name"] = [g.encode() for g in genes]
    elif name == "folder":
        path.mkdir()
        with gzip.open(path / "matrix.mtx.gz", "wb") as f:
            io.mmwrite(f, sparse.coo_matrix(counts.T.astype(int)))
        rows = [f"x{i}\t{g}\tGene Expression" for i, g in enumerate(genes)]
        (path / "features.tsv").write_text("\n".join(rows) + "\n")
        (path / "barcodes.tsv").write_text("\n".join(CELLS) + "\n")
    else:
        frame = frame.T if "transposed" in name else frame
        frame.to_csv(path, sep="\t" if ".tsv" in name else ",")
    return path


@pytest.mark.parametrize(
    "name", ["a.h5ad", "10x.h5", "folder", "a.csv", "a.tsv.gz", "transposed.csv", "transposed.tsv"]
)
def test_every_format_gives_the_same_cells(tmp_path, name, counts, genes):
    file = readers.read(write(tmp_path, name, counts, genes))
    X = file.X.toarray() if sparse.issparse(file.X) else file.X
    np.testing.assert_array_equal(X, counts)
    assert list(file.obs.index) == CELLS
    found = recognise(file)
    assert (found.naming, found.shared, list(found.symbol)) == ("human symbols", 150, genes)
    assert cell_values.detect_values(file)[0] == "counts"


@pytest.mark.parametrize("name", ["10x.h5", "folder"])
def test_a_ten_x_matrix_with_as_many_cells_as_genes_is_not_turned(tmp_path, name, counts, genes):
    square, path = counts[:, : len(CELLS)], tmp_path / name
    np.testing.assert_array_equal(
        dense(readers.read(write(tmp_path, path.name, square, genes[: len(CELLS)])).X), square
    )


def test_orientation_is_said(tmp_path, counts, genes):
    assert "cells in rows" in readers.read(write(tmp_path, "a.csv", counts, genes)).notes[0]
    assert "genes in rows" in readers.read(write(tmp_path, "transposed.csv", counts, genes)).notes[0]


def test_table_as_r_writes_it_with_a_column_of_words(tmp_path, counts, genes):
    frame = pd.DataFrame(counts, CELLS, genes).assign(response=["sensitive", "resistant"] * 6)
    lines = frame.to_csv(sep="\t").splitlines()
    lines[0] = lines[0].lstrip("\t")  # no name above the names of rows
    (tmp_path / "r.txt").write_text("\n".join(lines) + "\n")
    file = readers.read(tmp_path / "r.txt", labels="response")
    assert list(file.obs.response[:2]) == ["sensitive", "resistant"]
    np.testing.assert_array_equal(file.X.toarray(), counts)


LABELS = ["sensitive", "resistant"] * 6


def test_columns_called_like_annotations_are_no_genes(tmp_path, counts, genes):
    frame = pd.DataFrame(counts, CELLS, genes).assign(n_counts=9999.5, response=[1, 0] * 6, cell_type="x", NOVEL1=3)
    frame.to_csv(tmp_path / "a.csv")
    for labels in (None, "response"):
        file = readers.read(tmp_path / "a.csv", labels=labels)
        assert list(file.names["the header"]) == [*genes, "NOVEL1"]
        assert {k: list(v)[:2] for k, v in file.obs.items()} == {
            "n_counts": ["9999.5"] * 2, "response": ["1", "0"], "cell_type": ["x"] * 2,
        }  # fmt: skip
        assert "not read as values: n_counts, response, cell_type" in file.notes


@pytest.mark.parametrize("labels", [LABELS, [1, 0] * 6])
@pytest.mark.parametrize("row", [-1, 0, 70, 150])
def test_a_row_of_labels_among_genes(tmp_path, counts, genes, labels, row):
    lines = pd.DataFrame(counts, CELLS, genes).T.to_csv().splitlines()
    lines.insert(row + 1, ",".join(["response", *map(str, labels)]))
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    file = readers.read(tmp_path / "a.csv", labels="response")
    assert list(file.obs.response) == [str(v) for v in labels] and list(file.obs.index) == CELLS
    np.testing.assert_array_equal(file.X.toarray(), counts)
    assert list(file.names["the first column"]) == genes


@pytest.mark.parametrize("labels", [LABELS, [1, 0] * 6])
def test_labels_where_names_of_cells_would_be(tmp_path, counts, genes, labels):
    frame = pd.DataFrame(counts, pd.Index(labels, name="outcome"), genes)
    frame.to_csv(tmp_path / "a.csv")
    file = readers.read(tmp_path / "a.csv", labels="outcome")
    assert list(file.obs.outcome) == [str(v) for v in labels] and file.obs.index.is_unique
    np.testing.assert_array_equal(file.X.toarray(), counts)


@pytest.mark.parametrize(
    "dialect",
    [{"sep": ";"}, {"sep": ";", "decimal": ","}, {"sep": " "}, {"encoding": "utf-8-sig"}, {"index_label": "cell"}],
)
def test_dialects_of_tables(tmp_path, counts, genes, dialect):
    pd.DataFrame(counts / 4, CELLS, genes).to_csv(tmp_path / "a.csv", **dialect)
    file = readers.read(tmp_path / "a.csv")
    np.testing.assert_array_equal(file.X.toarray(), counts / 4)
    assert list(file.obs.index) == CELLS and list(file.names["the header"]) == genes


def test_genes_missing_in_every_cell_are_left_out(tmp_path, counts, genes):
    for make in (np.asarray, sparse.csr_matrix):
        scaled = (counts - counts.mean(0) + 0.01).astype(np.float32)
        scaled[:, [3, 5]] = np.nan
        adata = anndata.AnnData(make(scaled), pd.DataFrame(index=CELLS), pd.DataFrame(index=genes))
        adata.write_h5ad(tmp_path / "a.h5ad")
        file = readers.read(tmp_path / "a.h5ad")
        assert file.X.shape == (12, 148) and list(recognise(file).symbol) == np.delete(genes, [3, 5]).tolist()
        assert any("2 genes missing (NaN) in every cell" in note for note in file.notes)
        assert cell_values.detect_values(file)[0] == "zscored"
        scaled[0, 7] = np.nan  # missing in one cell: nobody but the person knows what it means
        adata.X = make(scaled)
        adata.write_h5ad(tmp_path / "a.h5ad")
        with pytest.raises(InputError, match="1 values are missing"):
            cell_values.detect_values(readers.read(tmp_path / "a.h5ad"))


@pytest.mark.filterwarnings("ignore:Element")
def test_files_of_old_anndata_versions(tmp_path, counts, genes):
    obs = pd.DataFrame({"response": pd.Categorical(LABELS)}, CELLS)
    with h5py.File(tmp_path / "0.6.h5ad", "w") as f:
        codes = obs.response.cat.codes.to_numpy()
        f["obs"] = np.array([*zip(CELLS, codes, strict=True)], [("index", "S9"), ("response", "i1")])
        f["var"] = np.array([(g,) for g in genes], [("index", "S20")])
        f["uns/response_categories"] = np.array(["resistant", "sensitive"], "S")
        g, X = f.create_group("X"), sparse.csr_matrix(counts)
        g.attrs["h5sparse_format"], g.attrs["h5sparse_shape"] = "csr", X.shape
        g["data"], g["indices"], g["indptr"] = X.data, X.indices, X.indptr
    X = sparse.csc_matrix(counts)
    anndata.AnnData(X, obs, pd.DataFrame(index=genes)).write_h5ad(tmp_path / "0.7.h5ad")
    with h5py.File(tmp_path / "0.7.h5ad", "r+") as f:
        codes, words = (f[f"obs/response/{k}"][:] for k in ("codes", "categories"))
        del f["obs/response"]
        f["obs/response"], f["obs/__categories/response"] = codes, words
        f["obs/response"].attrs["categories"] = f["obs/__categories/response"].ref
        f["obs"].attrs["encoding-version"] = "0.1.0"
    for name in ("0.6.h5ad", "0.7.h5ad"):
        file = readers.read(tmp_path / name)
        np.testing.assert_array_equal(file.X.toarray(), counts)
        assert list(file.obs.response) == LABELS and list(file.obs.index) == CELLS
        assert list(recognise(file).symbol) == genes


def seurat_disk(path, codes, words):
    """The column `response` as SeuratDisk writes factors: codes, and words that no attribute leads to."""
    with h5py.File(path, "r+") as f:
        del f["obs/response"]
        f["obs/response"], f["obs/__categories/response"] = codes, np.array(words, h5py.string_dtype())
        f["obs"].attrs["encoding-version"] = "0.1.0"


def test_factors_of_seurat_disk_are_words(tmp_path, counts, genes):
    obs, path = pd.DataFrame({"response": 1}, CELLS), tmp_path / "a.h5ad"
    for words in (["sensitive", "resistant"], ["resistant", "sensitive"]):  # levels have the order of R
        anndata.AnnData(counts, obs, pd.DataFrame(index=genes)).write_h5ad(path)
        seurat_disk(path, np.array([words.index(label) for label in LABELS[:-1]] + [-1]), words)
        response = readers.read(path).obs.response
        assert list(response[:-1]) == LABELS[:-1] and response.isna().iloc[-1]
    anndata.AnnData(counts, obs, pd.DataFrame(index=genes)).write_h5ad(path)
    seurat_disk(path, np.arange(12), ["resistant", "sensitive"])  # more numbers than words: no codes
    assert list(readers.read(path).obs.response) == list(range(12))


@pytest.mark.filterwarnings("ignore:Element")
def test_h5ad_without_encoding_attributes(tmp_path, counts, genes):
    obs, path = pd.DataFrame({"response": LABELS, "age": 7}, CELLS), tmp_path / "a.h5ad"
    anndata.AnnData(counts, obs, pd.DataFrame(index=genes)).write_h5ad(path)
    with h5py.File(path, "r+") as f:
        for group in ("obs", "var"):
            for name in ("encoding-type", "encoding-version", "_index", "column-order"):
                del f[group].attrs[name]
        f["obs/colours"] = np.arange(3)  # no column of the cells
        f["var"].move("_index", "index")
    file = readers.read(path)
    holds(file, counts, genes)
    assert list(file.obs.response) == LABELS and list(file.obs.age) == [7] * 12 and file.obs.shape == (12, 2)
    with h5py.File(path, "r+") as f:
        f["var"].move("index", "genes")
    with pytest.raises(InputError, match="var is without encoding attributes.*anndata 0.8 or newer"):
        readers.read(path)
    write(tmp_path, "a.h5ad", counts, genes)
    with h5py.File(path, "r+") as f:
        for name in list(f["X"].attrs):
            del f["X"].attrs[name]
    with pytest.raises(InputError, match="X is without encoding attributes"):
        readers.read(path)


def test_a_ten_x_file_without_ids(tmp_path, counts, genes):
    path = write(tmp_path, "10x.h5", counts, genes)
    with h5py.File(path, "r+") as f:
        del f["matrix/features/id"]
    holds(readers.read(path), counts, genes)


def test_ten_x_of_cell_ranger_2(tmp_path, counts, genes):
    folder = write(tmp_path, "folder", counts, genes)
    rows = [line.rsplit("\t", 1)[0] for line in (folder / "features.tsv").read_text().splitlines()]
    (folder / "features.tsv").unlink()
    (folder / "genes.tsv").write_text("\n".join(rows) + "\n")
    X = sparse.csr_matrix(counts)
    with h5py.File(tmp_path / "2.h5", "w") as f:
        for genome, names in (("mm10", ["Trp53"] * len(genes)), ("hg19", genes)):
            g = f.create_group(genome)
            g["data"], g["indices"], g["indptr"], g["shape"] = X.data, X.indices, X.indptr, X.shape[::-1]
            g["barcodes"], g["gene_names"] = np.array(CELLS, "S"), np.array(names, "S")
            g["genes"] = np.array([f"x{i}" for i in range(len(genes))], "S")
    for path in (folder, tmp_path / "2.h5"):
        file = readers.read(path)
        human = recognise(file).symbol != ""
        np.testing.assert_array_equal(file.X.toarray()[:, human], counts)
        assert list(file.obs.index) == CELLS and list(recognise(file).symbol[human]) == genes


def test_a_file_of_cell_ranger_2_with_two_genomes_tells_cells_of_the_mouse(tmp_path, counts, genes):
    mouse = [gene_names.human_to_mouse()[g] for g in genes]
    rng, path = np.random.default_rng(0), tmp_path / "2.h5"
    with h5py.File(path, "w") as f:
        leak = rng.binomial(counts.astype(int), 0.1)
        for genome, names, X, cells in (
            ("hg19", genes, np.vstack([counts, leak]), [*CELLS, *(f"m{c}" for c in CELLS)]),
            ("mm10", mouse, counts, [f"m{c}" for c in CELLS]),  # barcodes of a genome are those of its cells
        ):
            g, X = f.create_group(genome), sparse.csr_matrix(X)
            g["data"], g["indices"], g["indptr"], g["shape"] = X.data, X.indices, X.indptr, X.shape[::-1]
            g["barcodes"], g["gene_names"], g["genes"] = (np.array(v, "S") for v in (cells, names, names))
    file = readers.read(path)
    found = recognise(file)
    known = file.only(found.symbol != "")
    reason, _ = cell_values.not_cells(file, known.X, found, True, np.zeros(24))
    assert list(found.symbol[found.symbol != ""]) == genes and file.X.shape == (24, 300)
    assert set(reason[:12]) == {cell_values.SCORED} and set(reason[12:]) == {cell_values.FOREIGN}


def named(names, counts):
    return CellFile("x", "table", sparse.csr_matrix(counts), {"names": np.array(names)}, pd.DataFrame(index=CELLS))


def in_places(counts, **places):
    return replace(named(next(iter(places.values())), counts), names={k: np.array(v) for k, v in places.items()})


def test_ids_and_symbols_that_name_different_genes_are_refused(counts, genes):
    by_symbol = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    ids = [by_symbol[g] for g in genes]
    slipped = np.roll(genes, 1)
    for places in (
        {"id": ids, "name": slipped}, {"name": slipped, "id": ids}, {"id": sorted(ids), "name": genes},
        {"id": [i if n % 3 else "ENSG00000999999" for n, i in enumerate(ids * 2)], "name": np.roll(genes * 2, 1)},
    ):  # fmt: skip
        with pytest.raises(InputError, match="and .* name different genes for .* features .such as .*Delete that one"):
            recognise(in_places(np.ones((12, len(places["id"]))), **places))


def test_symbols_that_differ_from_ids_here_and_there_do_not_contradict_them(counts, genes):
    by_symbol = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    ids, some = [by_symbol[g] for g in genes], genes.copy()
    some[:20] = some[20:40]  # an eighth, far more than is found in files
    few = [g if n < 40 else f"clone_{n}" for n, g in enumerate(np.roll(genes, 1))]  # of too few genes to be names
    for other in (ids, some, few, [f"{i}.4" for i in ids], [g.replace("A", "B") for g in ids]):
        assert list(recognise(in_places(counts, name=genes, other=other)).symbol) == genes


def test_a_column_of_paralogs_or_partners_is_not_what_a_gene_is_called(counts, genes):
    by_symbol = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    some = [by_symbol[g] if n < 120 else f"ENSG00000999{n}" for n, g in enumerate(genes)]  # others are retired
    for column in ("var['paralog']", "var['ligand_partner']", "column Nearest gene"):
        found = recognise(in_places(counts, index=some, **{column: np.roll(genes, 7)}))
        assert found.place == "index" and list(found.symbol[:120]) == genes[:120]
    alone = recognise(in_places(counts, index=[f"g{i}" for i in range(150)], **{"var['human_ortholog']": genes}))
    assert list(alone.symbol) == genes  # nothing else has names


def test_ensembl_ids_with_versions_and_prefixes_become_symbols(counts, genes):
    by_symbol = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    ids = [by_symbol[g] for g in genes]
    for names in (ids, [i + ".12" for i in ids], ["GRCh38_" + i for i in ids]):
        found = recognise(named(names, counts))
        assert found.naming == "human Ensembl ids"
        assert list(found.symbol) == genes


@pytest.mark.parametrize(
    "spell",
    ["hg19_{}", "GRCH38_{}", "GRCh38-2020-A_{}", "{}.1", "{}-2", " {}", "{} (7157)", "{}|7157", "{}_id", "id|{}",
     "{}\xa0", "b'{}'", "b'id'", "{}|NM_000733.3|Reference_end", "{}|ENST00000361763|Reference_end"],
)  # fmt: skip
def test_spellings_of_genes(spell, counts, genes):
    ids = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    names = [spell.replace("id", ids[g]).format(g) for g in genes]
    assert list(recognise(named(names, counts)).symbol) == genes


def test_genes_in_another_case(counts, genes):
    lower = named([g.lower() for g in genes], counts)
    with pytest.raises(InputError, match="lower case.*--species human"):  # mouse genes are written so too
        recognise(lower)
    lower = recognise(lower, "human")
    assert (lower.naming, list(lower.symbol)) == ("human symbols in lower case", genes)
    mixed = next(g for g in gdsc.load_bulk().genes if g != g.upper())
    assert recognise(named([mixed.upper(), *genes[1:]], counts)).symbol[0] == mixed


def test_hla_genes_are_found_under_their_official_spelling(counts, genes):
    dotted = [g for g in gdsc.load_bulk().genes if g.startswith("HLA.")][:1]
    found = recognise(named([dotted[0].replace(".", "-"), *genes[1:]], counts))
    assert found.symbol[0] == dotted[0]


@pytest.mark.slow
def test_mouse_genes_need_the_word_mouse(counts, genes):
    mouse = named([gene_names.human_to_mouse()[g] for g in genes], counts)
    with pytest.raises(InputError, match="--species mouse"):
        recognise(mouse)
    assert list(recognise(mouse, "mouse").symbol) == genes
    with pytest.raises(InputError, match="--species human"):
        recognise(named(genes, counts), "mouse")


def test_too_few_genes(counts, genes):
    with pytest.raises(InputError, match=r"99 of 150 genes are in the bulk .*at least 100"):
        recognise(named(genes[:99] + [f"NOVEL{i}" for i in range(51)], counts))
    with pytest.raises(InputError, match="Entrez"):
        recognise(named([str(i) for i in range(150)], counts))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 3, 12], "counts"), ([0, 1.7, 3.2], "lognorm"), ([-1.2, 0.3, 2.0], "zscored"), ([0, 812.5, 3.25], "counts")],
)
def test_values_are_detected(values, expected):
    values = [values, np.negative(values)] if expected == "zscored" else [values]
    file = CellFile("x", "table", np.array(values), {"names": np.array(list("abc"))}, pd.DataFrame())
    assert cell_values.detect_values(file)[0] == expected


@pytest.mark.parametrize(
    ("values", "asked", "message"),
    [
        ([0, np.nan, 1], "auto", r"1 values are missing \(NaN\) or infinite, first nan at cell c, gene b"),
        ([0, 1, np.inf], "auto", "first inf at cell c, gene c"),
        ([3, -2, 5], "auto", "no negative counts"),
        ([3.5, -2, 5], "counts", "Expected no negative counts"),
        ([0, 0, 0], "auto", "every value is 0"),
    ],
)
@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix])
def test_impossible_values(values, asked, message, make):
    X = make(np.array([values], dtype=float))
    file = CellFile("x", "table", X, {"names": np.array(list("abc"))}, pd.DataFrame(index=["c"]))
    with pytest.raises(InputError, match=message):
        cell_values.detect_values(file, asked)


def bad_files(tmp_path, counts, genes):
    good = write(tmp_path, "good.h5ad", counts, genes).read_bytes()
    folder = write(tmp_path, "folder", counts, genes)
    (folder / "matrix.mtx.gz").unlink()
    made = {
        "truncated.h5ad": good[: len(good) // 2],
        "text.h5ad": b"not hdf5",
        "zipped.h5ad": gzip.compress(good),
        "empty.csv": b"",
        "header.csv": b"A1BG,ACTB\n",
        "cells.rds": b"RDX3",
        "cells.pkl": b"\x80\x04",
        "matrix.mtx": b"%%MatrixMarket",
        "cut.csv.gz": gzip.compress(b"a,b\n" * 99)[:20],
        "words.csv": b"cell,a,b\nc1,1,2\nc2,1,x\n",
        "ragged.csv": b"cell,a,b\nc1,1,2,3,4\n",
        "unknown.csv": b",a,b\nc1,1,2\n",
        "latin.csv": f"Gr\xf6\xdfe,{genes[0]}\nc1,1\n".encode("latin-1"),
    }
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "cells.xlsx", "w") as f:
        f.writestr("[Content_Types].xml", "<x/>")
    with h5py.File(tmp_path / "a.h5seurat", "w") as f:
        f["cell.names"] = np.array(CELLS, "S")
    return [tmp_path / name for name in (*made, "cells.xlsx", "a.h5seurat", "absent.h5ad")] + [folder]


def test_bad_files_are_explained(tmp_path, counts, genes):
    said = {}
    for path in bad_files(tmp_path, counts, genes):
        with pytest.raises(InputError) as caught:
            readers.read(path)
        said[path.name] = str(caught.value)
        assert str(path) in said[path.name]
    assert "truncated" in said["truncated.h5ad"] and "truncated" in said["text.h5ad"]
    assert "gunzip" in said["zipped.h5ad"]
    assert "0 bytes" in said["empty.csv"] and "no row below" in said["header.csv"]
    assert "write10xCounts" in said["cells.rds"] and "not supported" in said["cells.pkl"]
    assert (
        "CSV UTF-8" in said["latin.csv"] and "workbook" in said["cells.xlsx"] and "write10xCounts" in said["a.h5seurat"]
    )
    assert "matrix.mtx" in said["folder"] and "no such file" in said["absent.h5ad"]
    assert "no side holds known genes" in said["unknown.csv"]


def test_layers(tmp_path, counts, genes):
    adata = anndata.AnnData(np.full_like(counts, 0.5), var=pd.DataFrame(index=genes), layers={"counts": counts})
    adata.write_h5ad(tmp_path / "l.h5ad")
    np.testing.assert_array_equal(readers.read(tmp_path / "l.h5ad", layer="counts").X, counts)
    adata.raw = adata.copy()
    adata.write_h5ad(tmp_path / "raw.h5ad")
    assert "also there, for --layer: counts, raw" in readers.read(tmp_path / "raw.h5ad").notes
    with pytest.raises(InputError, match="no layer 'raw_counts'.*Layers there: counts"):
        readers.read(tmp_path / "l.h5ad", layer="raw_counts")
    with pytest.raises(InputError, match="Leave --layer out"):
        readers.read(write(tmp_path, "a.csv", counts, genes), layer="counts")


# --- layouts that people bring ----------------------------------------------------------------------------------------


def table(tmp_path, text, **options):
    (tmp_path / "a.tsv").write_text(text)
    return readers.read(tmp_path / "a.tsv", **options)


def as_text(counts, genes, sep="\t"):
    return pd.DataFrame(counts, CELLS, genes).T.to_csv(sep=sep)


def holds(file, counts, genes, cells=CELLS):
    """The counts, under their genes, whatever else the file has."""
    found = recognise(file)
    known = file.only(found.symbol != "")
    assert list(found.symbol[found.symbol != ""]) == list(genes)
    np.testing.assert_array_equal(dense(known.X), counts)
    assert list(file.obs.index) == list(cells)


def test_a_table_as_feature_counts_writes_it(tmp_path, counts, genes):
    lines = as_text(counts, genes).splitlines()
    lines[0] = "Geneid\tChr\tStart\tEnd\tStrand\tLength" + lines[0]
    lines[1:] = [line.replace("\t", f"\tchr1\t{i}\t{i + 900}\t+\t900\t", 1) for i, line in enumerate(lines[1:], 1000)]
    file = table(tmp_path, "# Program:featureCounts\n" + "\n".join(lines) + "\n")
    holds(file, counts, genes)
    assert "not read as values: Chr, Start, End, Strand, Length" in file.notes


def test_a_gct_file_and_names_in_the_second_column(tmp_path, counts, genes):
    ids = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    lines = as_text(counts, genes).splitlines()
    for heading, first in (("Name", lambda g: f"probe_{g}_at"), ("Gene_ID", lambda g: ids[g])):
        body = [f"{heading}\tDescription" + lines[0]]
        body += ["\t".join([first(line.split("\t")[0]), line]) for line in lines[1:]]
        holds(table(tmp_path, f"#1.2\n{len(genes)}\t{len(CELLS)}\n" + "\n".join(body) + "\n"), counts, genes)


ABOVE = {
    "a title": "Supplementary Table 3: counts of cells, by gene\n", "a blank line": "\n",
    "remarks": "##x\n## y: 1, 2\n##\n",
    "a title and empty fields": "Supplementary Table 3: counts" + "," * len(CELLS) + "\n",
}  # fmt: skip


@pytest.mark.parametrize("above", ABOVE)
@pytest.mark.parametrize("sep", [",", "\t", ";", "   "])
def test_what_stands_above_the_heading(tmp_path, counts, genes, above, sep):
    text = as_text(counts, genes, ",").replace(",", sep) if sep != "   " else (
        "gene" + as_text(counts, genes, ",").replace(",", sep))  # fmt: skip
    holds(table(tmp_path, ABOVE[above] + text), counts, genes)


def test_empty_columns_and_rows_of_a_spreadsheet(tmp_path, counts, genes):
    frame = pd.DataFrame(counts, CELLS, genes)
    for way in (frame, frame.T):
        lines = [f"{line},,," for line in way.to_csv().splitlines()]
        holds(table(tmp_path, "\n".join([*lines, "," * lines[0].count(","), ""]) + "\n"), counts, genes)


def test_an_empty_line_below_the_heading_is_passed_over(tmp_path, counts, genes):
    path = write(tmp_path, "a.csv", counts, genes)
    heading, *rest = path.read_text().splitlines()
    path.write_text("\n".join([heading, "", *rest]) + "\n")
    np.testing.assert_array_equal(readers.read(path).X.toarray(), counts)


def test_rows_without_a_field_are_no_rows(tmp_path, counts, genes):
    path = write(tmp_path, "a.csv", counts, genes)
    path.write_text(path.read_text().splitlines()[0] + ("\n" + "," * len(genes)) * 3 + "\n")
    with pytest.raises(InputError, match="no row below the header"):
        readers.read(path)


def test_missing_values_in_any_spelling_leave_a_gene_a_gene(tmp_path, counts, genes):
    path = write(tmp_path, "a.csv", counts, genes)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    for line in lines[2:]:
        line[3] = "n/a"
    path.write_text("\n".join(map(",".join, lines)) + "\n")
    file = readers.read(path)
    assert genes[2] in file.names["the header"] and file.obs.empty


def test_a_decimal_point_among_commas_is_told_with_its_place(tmp_path, counts, genes):
    path = write(tmp_path, "a.csv", counts + 0.25, genes)
    lines = [line.replace(",", ";").replace(".", ",").split(";") for line in path.read_text().splitlines()]
    lines[8][4] = "1.5"
    path.write_text("\n".join(map(";".join, lines)) + "\n")
    with pytest.raises(InputError, match=f"line 9, column {genes[3]}: '1.5'"):
        readers.read(path)


def test_sums_and_statistics_beside_cells_are_no_cells(tmp_path, counts, genes):
    frame = pd.DataFrame(counts, CELLS, genes).T
    frame = frame.assign(Total=frame.sum(axis=1), control_mean=1.5, SD=0.1, padj=0.04, logFC=-2)
    frame.loc["Total"] = frame.sum()
    holds(table(tmp_path, frame.to_csv(sep="\t")), counts, genes)


def test_a_row_a_value_is_told(tmp_path, counts, genes):
    long = pd.DataFrame(counts, CELLS, genes).stack().reset_index().set_axis(["cell", "gene", "count"], axis=1)
    for columns in (["cell", "gene", "count"], ["gene", "cell", "count"]):
        with pytest.raises(InputError, match=f"a row a value .{', '.join(columns)}.*pivot_table"):
            table(tmp_path, long[columns].to_csv(sep="\t", index=False))


def test_kinds_of_genes_are_no_kinds_of_features(tmp_path, counts, genes):
    for kind in ("protein_coding", "gene"):  # as CELLxGENE and others write a column of that name
        var = pd.DataFrame({"feature_type": kind}, genes)
        anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
        assert readers.read(tmp_path / "a.h5ad").X.shape == counts.shape


def test_a_folder_whose_matrix_has_cells_in_rows(tmp_path, counts, genes):
    folder = write(tmp_path, "folder", counts, genes)
    with gzip.open(folder / "matrix.mtx.gz", "wb") as f:
        io.mmwrite(f, sparse.coo_matrix(counts.astype(int)))
    holds(readers.read(folder), counts, genes)


def test_half_precision_is_read_as_single(tmp_path, counts, genes):
    X = (counts * 9000).astype(np.float16)  # the sum of a cell is beyond half precision
    anndata.AnnData(X, pd.DataFrame(index=CELLS), pd.DataFrame(index=genes)).write_h5ad(tmp_path / "a.h5ad")
    file = readers.read(tmp_path / "a.h5ad")
    assert file.X.dtype == np.float32 and np.isfinite(file.X.sum(1)).all()


def test_values_stored_twice_in_a_sparse_matrix_are_added(tmp_path, counts, genes):
    path = write(tmp_path, "a.h5ad", counts, genes)
    X = sparse.csr_matrix(counts)
    with h5py.File(path, "a") as f:
        for name, twice in (
            ("data", np.repeat(X.data, 2)),
            ("indices", np.repeat(X.indices, 2)),
            ("indptr", 2 * X.indptr),
        ):
            del f[f"X/{name}"]
            f[f"X/{name}"] = twice
    file = readers.read(path)
    np.testing.assert_array_equal(file.X.toarray(), 2 * counts)
    assert file.X.nnz == X.nnz  # else a value counts as two genes


def test_a_table_without_names_of_cells(tmp_path, counts, genes):
    numbered = [f"cell_{i}" for i in range(len(CELLS))]
    headless = "\n".join(as_text(counts, genes).splitlines()[1:]) + "\n"
    holds(table(tmp_path, headless), counts, genes, numbered)
    first = np.c_[
        np.arange(len(CELLS)) % 5, counts
    ]  # its values repeat: they are no names, though nobody knows the gene
    pd.DataFrame(first, columns=["NOVEL1", *genes]).to_csv(tmp_path / "b.csv", index=False)
    holds(readers.read(tmp_path / "b.csv"), counts, genes, numbered)
    pd.DataFrame(counts, pd.Index(range(101, 113), name="well"), genes).to_csv(tmp_path / "c.csv")
    holds(readers.read(tmp_path / "c.csv"), counts, genes, map(str, range(101, 113)))


def test_commas_in_numbers(tmp_path, counts, genes):
    text = as_text(counts + 0.5, genes).replace(".", ",")
    holds(table(tmp_path, text), counts + 0.5, genes)
    described = "\n".join(
        f"{line}\t{'x 1,2-y' if i else 'about'}" for i, line in enumerate(as_text(counts, genes).splitlines())
    )
    holds(table(tmp_path, described + "\n"), counts, genes)  # a comma in words is no mark
    holds(table(tmp_path, "#gene" + as_text(counts, genes)), counts, genes)  # and a heading with a hash no remark
    with pytest.raises(InputError, match="thousands or decimals"):
        table(tmp_path, as_text(counts + 1.125, genes).replace(".", ","))
    logs = (counts / 8 + 0.125).round(3)  # 0,125 and 1,125
    holds(table(tmp_path, as_text(logs, genes).replace(".", ",")), logs, genes)


def test_dates_of_spreadsheets_and_apostrophes(counts, genes):
    names = [*genes[:-4], "3-Mar", "Sep-06", "2024-09-09", "'TP53'"]
    found = recognise(named(names, counts))
    assert (
        list(found.symbol[-4:]) == ["MARCH3", "SEPT6", "SEPT9", "TP53"] and found.ways["as a spreadsheet's date"] == 3
    )


def test_the_column_that_reaches_most_genes_wins(counts):
    bulk = gdsc.load_bulk().genes[:2000]
    X = np.ones((3, 2000), np.float32)
    half = np.where(np.arange(2000) < 1200, bulk, "NOVEL")
    file = CellFile("x", "h5ad", X, {"the index of var": half, "var['symbol']": bulk}, pd.DataFrame())
    assert recognise(file).place == "var['symbol']"


def test_no_gene_is_called_like_an_annotation():
    names = {
        *gene_names.ensembl_symbols("human").values(),
        *gene_names.ensembl_symbols("mouse").values(),
        *gdsc.load_bulk().genes,
    }
    for pattern in names_of_no_gene().values():
        assert not [n for n in map(str, names) if pattern.fullmatch(n)]


def test_features_of_another_kind_in_h5ad(tmp_path, counts, genes):
    kinds = ["Gene Expression"] * 140 + ["Antibody Capture"] * 10
    adata = anndata.AnnData(counts, pd.DataFrame(index=CELLS), pd.DataFrame({"feature_types": kinds}, genes))
    adata.write_h5ad(tmp_path / "a.h5ad")
    file = readers.read(tmp_path / "a.h5ad")
    assert (
        file.X.shape == (12, 140) and "10 features other than gene expression left out (Antibody Capture)" in file.notes
    )
    adata[:, 140:].copy().write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(InputError, match="no gene among the features, only Antibody Capture"):
        readers.read(tmp_path / "b.h5ad")


def test_negative_values_need_centred_genes_or_a_word(counts, genes):
    logs = np.log1p(counts)
    logs[0, 3] = -0.2
    with pytest.raises(InputError, match="1 of 1,800 values are negative .*--values lognorm"):
        cell_values.detect_values(named(genes, logs))
    kind, notes = cell_values.detect_values(named(genes, logs), "lognorm")
    assert kind == "lognorm" and "taken as lognorm, as asked" in notes[0]
    kind, notes = cell_values.detect_values(named(genes, counts / 7), "counts")
    assert kind == "counts" and len(notes) == 1 and "like counts" in notes[0]
    with pytest.raises(InputError, match="no negative counts"):
        cell_values.detect_values(named(genes, logs), "counts")


def test_few_values_that_are_not_whole_make_no_logarithms(counts, genes):
    damaged = counts.copy()
    damaged[2, 5] = 2.5
    kind, notes = cell_values.detect_values(named(genes, damaged))
    assert kind == "counts" and "% of the counts are no integers" in notes[0]
    assert cell_values.detect_values(named(genes, np.log1p(counts)))[0] == "lognorm"


def test_counts_and_logarithms_in_one_file_are_told(counts, genes):
    both = np.vstack([counts, np.log1p(counts * 7)])
    for X in (both, sparse.csr_matrix(both)):
        file = CellFile("x", "h5ad", X, {"names": np.array(genes)}, pd.DataFrame(index=[*CELLS, *CELLS]))
        with pytest.raises(InputError, match="counts in some cells, no whole numbers in others"):
            cell_values.detect_values(file)
        assert cell_values.detect_values(file, "lognorm")[0] == "lognorm"
    cpm = np.full((24, 150), 40_000.0)
    cpm[12:] /= 7
    assert cell_values.detect_values(replace(file, X=cpm))[0] == "counts"  # a depth that divides a million


def made_of(counts, way):
    """What people make of counts and do not call by its name, and the kind that it is to be taken for."""
    depth = counts.sum(1, keepdims=True)
    logs = np.log1p(counts / depth * 1e4)
    return {
        "scaled, not logged": (counts / depth * 120, "counts"),
        "less a soup": (np.maximum(counts - 0.1 * depth * counts.sum(0) / counts.sum(), 0), "counts"),
        "logarithms": (logs, "lognorm"),
        "rounded logarithms": (logs.round(2), "lognorm"),
        "square roots": (np.sqrt(counts / depth * 2e3), "counts"),
        "scaled by gene": (logs / logs.std(0), "zscored"),
    }[way]


@pytest.mark.parametrize(
    "way", ["scaled, not logged", "less a soup", "logarithms", "rounded logarithms", "square roots", "scaled by gene"]
)
def test_small_values_that_are_not_whole_are_logarithms_only_if_they_can_be(way, genes):
    rng = np.random.default_rng(0)
    level = (0.1 + rng.gamma(0.7, 1, len(genes))) * np.exp(rng.normal(0, 0.5, (90, 1)))
    X, kind = made_of(rng.poisson(level), way)
    file = CellFile("x", "h5ad", X, {"names": np.array(genes)}, pd.DataFrame(index=range(90)))
    assert X.max() < cell_values.MAX_LOG, X.max()
    assert cell_values.detect_values(file)[0] == kind
    assert cell_values.counts(X, X, kind, 50)[1] == ["square roots: counts are their squares"] * (way == "square roots")


def test_logarithms_beside_z_scores_and_values_without_a_zero_are_told(counts, genes):
    logs = np.log1p(counts)
    both = np.vstack([logs, (logs - logs.mean(0)) / logs.std(0)])
    file = CellFile("x", "h5ad", both, {"names": np.array(genes)}, pd.DataFrame(index=[*CELLS, *CELLS]))
    with pytest.raises(InputError, match="none in some of the cells: logarithms and z-scores"):
        cell_values.detect_values(file)
    for X, said in ((counts + 1, True), (logs + 0.1, True), (counts, False), (both[12:], False)):
        assert any("hardly a value is zero" in n for n in cell_values.detect_values(replace(file, X=X))[1]) == said


def test_limits_of_a_type_and_values_that_are_no_counts_are_said(counts, genes):
    for X, said in (
        (np.full_like(counts, 7, np.int8), "largest that int8 holds"),
        (counts > 0, "no value but 0 and 1"),
    ):
        X = X.astype(np.int8)
        X[0, 0] = np.iinfo(np.int8).max if "int8" in said else 1
        file = CellFile("x", "h5ad", X, {"names": np.array(genes)}, pd.DataFrame(index=CELLS))
        assert said in cell_values.detect_values(file)[1][0]


def test_formats_that_are_not_read_name_the_way_out(tmp_path, counts, genes):
    with h5py.File(tmp_path / "a.loom", "w") as f:
        f["matrix"], f["row_attrs/Gene"], f["col_attrs/CellID"] = counts.T, np.array(genes, "S"), np.array(CELLS, "S")
    with h5py.File(tmp_path / "a.h5mu", "w") as f:
        for group in ("mod/rna", "obs", "var"):  # as mudata writes it, with tables over all kinds at the root
            f.create_group(group)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zgroup").write_text("{}")
    for name, way in (("a.loom", "read_loom"), ("a.h5mu", "rna"), ("a.zarr", "read_zarr")):
        with pytest.raises(InputError, match=f"{name}: .*{way}.*write_h5ad"):
            readers.read(tmp_path / name)


def test_a_file_that_is_locked_or_closed(tmp_path, counts, genes, monkeypatch):
    path = write(tmp_path, "a.h5ad", counts, genes)
    locked = BlockingIOError(11, "unable to lock file")
    monkeypatch.setattr(h5py, "File", lambda *_, **__: (_ for _ in ()).throw(locked))
    with pytest.raises(InputError, match="locked by another program that has it open"):
        readers.read(path)
    monkeypatch.setattr(readers.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="may not be read"):
        readers.read(path)


def test_raw_of_old_anndata(tmp_path, counts, genes):
    adata = anndata.AnnData(np.full_like(counts, 0.5), pd.DataFrame(index=CELLS), pd.DataFrame(index=genes))
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as f:
        f.pop("raw", None)
        f["raw.X"] = counts
        f["raw.var"] = np.array([(g,) for g in genes], [("index", "S20")])
    file = readers.read(tmp_path / "a.h5ad", layer="raw")
    np.testing.assert_array_equal(file.X, counts)
    assert list(file.names["the index of var"]) == list(genes)


def test_a_line_of_headings_in_features(tmp_path, counts, genes):
    folder = write(tmp_path, "folder", counts, genes)
    text = (folder / "features.tsv").read_text()
    (folder / "features.tsv").write_text("id\tname\ttype\n" + text)
    with pytest.raises(InputError, match="line of headings"):
        readers.read(folder)
    (folder / "features.tsv").write_text("\n".join(genes) + "\n")  # one column: the names alone
    holds(readers.read(folder), counts, genes)


def test_genes_of_a_reference_of_two_species(counts, genes):
    mouse = gene_names.human_to_mouse()
    names = [f"GRCh38_{g}" for g in genes] + [f"mm10___{mouse[g]}" for g in genes]
    both = named(names, np.hstack([counts, counts]))
    found = recognise(both)
    assert (found.symbol != "").sum() == 150 and of_other_species(both, found).tolist() == [False] * 150 + [True] * 150
    found = recognise(both, "mouse")
    assert (found.symbol[:150] == "").all() and of_other_species(both, found)[:150].all()
    marked = ["mm10_TP53", "b'mm10_TP53'", "\xa0mm10_TP53", "b'GRCh38_TP53'"]
    assert gene_names.translate(marked, "human symbols")[0].tolist() == ["", "", "", "TP53"]
    alone = named(genes, counts)
    assert not of_other_species(alone, recognise(alone)).any()


@pytest.mark.parametrize("name", ["CD4_ADT", "ADT_CD4", "AB_CD4", "adt:CD4", "CD4 Ab", "CD4_prot", "CD4_TotalSeqC"])
def test_antibodies_are_no_genes_and_called_so(name):
    assert names_of_no_gene()["antibodies"].fullmatch(name)
    assert not any(gene_names.translate([name], n)[0][0] for n in gene_names.NAMINGS)


def test_no_gene_of_the_bulk_is_taken_for_an_antibody():
    assert not [g for g in gdsc.load_bulk().genes if names_of_no_gene()["antibodies"].fullmatch(g)]


# --- tables whose fields, names or sides are not what they seem ------------------------------------------------------


def lines_of(counts, genes):
    """A table with genes in rows, as lines."""
    return pd.DataFrame(counts.T.astype(int), genes, CELLS).to_csv().splitlines()


@pytest.mark.parametrize("field", ["-", "n.d.", "<1", "1 234", '"1,234"'])
def test_a_cell_whose_first_field_is_no_number_is_told_and_not_left_out(field, tmp_path, counts, genes):
    lines = lines_of(counts, genes)
    first = lines[1].split(",")
    first[3] = field
    value = field.strip('"')
    with pytest.raises(InputError, match=rf"line 2, column cell-2: '{value}'\). Write 1234.5 for numbers"):
        table(tmp_path, "\n".join([lines[0], ",".join(first), *lines[2:]]))


@pytest.mark.parametrize("field", ["#N/A", "NULL", "", "nan"])
def test_a_cell_whose_first_field_is_missing_is_kept_and_told(field, tmp_path, counts, genes):
    lines = lines_of(counts, genes)
    first = lines[1].split(",")
    first[3] = field
    file = table(tmp_path, "\n".join([lines[0], ",".join(first), *lines[2:]]))
    assert list(file.obs.index) == CELLS
    with pytest.raises(InputError, match="1 values are missing .* at cell cell-2"):
        cell_values.detect_values(file)


@pytest.mark.parametrize("at", [1, 40, None])
def test_a_row_of_words_is_named(at, tmp_path, counts, genes):
    lines = lines_of(counts, genes)
    lines.insert(len(lines) if at is None else at, "Tissue" + ",lung" * len(CELLS))
    number = lines.index("Tissue" + ",lung" * len(CELLS)) + 1
    with pytest.raises(InputError, match=f"line {number}, column cell-0: 'lung'.*leave out rows of words"):
        table(tmp_path, "\n".join(lines))


def test_two_tables_in_one_file_are_told(tmp_path, counts, genes):
    text = pd.DataFrame(counts, CELLS, genes).to_csv()
    with pytest.raises(InputError, match=r"line 14, column .*second heading"):
        table(tmp_path, text + text)


@pytest.mark.parametrize("name", ["PC_{}", "UMAP_{}", "S{}_reads", "P{}_score", "pct_{}", "n_counts_{}"])
def test_cells_called_like_annotations_are_missed_aloud(name, tmp_path, counts, genes):
    named = [name.format(i) if i < 6 else c for i, c in enumerate(CELLS)]
    file = table(tmp_path, pd.DataFrame(counts.T, genes, named).to_csv())
    assert len(file.obs) == 6 and "not read as cells; if cells, rename them" in file.warnings[0]


def test_annotations_of_genes_beside_cells_are_no_cells(tmp_path, counts, genes):
    scanpy = ["n_cells", "mean_counts", "n_cells_by_counts", "log1p_mean_counts", "log1p_total_counts", "dispersions"]
    biomart = ["percentage_gene_gc_content", "start_position", "end_position", "Gene start (bp)", "Gene end (bp)"]
    frame = pd.DataFrame(counts.T, genes, CELLS)
    for i, name in enumerate([*scanpy, *biomart]):
        frame.insert(i, name, np.arange(len(genes)) + 7.5)
    file = table(tmp_path, frame.to_csv())
    holds(file, counts, genes)
    assert not file.warnings


@pytest.mark.parametrize("notes", [["1,5"] + ["ab"] * 149, [f"{i % 9},{i % 7}5" for i in range(150)]])
def test_decimal_commas_of_one_column_are_not_those_of_the_table(notes, tmp_path, counts, genes):
    frame = pd.DataFrame(np.log1p(counts.T).round(4), genes, CELLS)
    frame.insert(0, "note", notes)
    path = tmp_path / "a.tsv"
    frame.to_csv(path, sep="\t")
    file = readers.read(path)
    np.testing.assert_allclose(dense(file.X), np.log1p(counts).round(4), atol=1e-6)


@pytest.mark.parametrize("side", [1, -1])
def test_genes_on_both_sides_are_no_cells(side, tmp_path, genes):
    X = np.corrcoef(np.random.default_rng(0).normal(size=(150, 30))).round(3)
    X = pd.DataFrame(X, genes, genes).iloc[:, ::side]
    with pytest.raises(InputError, match="150 of the cells are called like genes, too.*Expected cells"):
        recognise(table(tmp_path, X.to_csv()))


def test_peaks_are_no_genes_whatever_a_column_says(tmp_path, counts, genes):
    peaks = [f"chr1:{i * 1000}-{i * 1000 + 500}" for i in range(150)]
    var = pd.DataFrame({"nearest_gene": genes}, peaks)
    anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="all names are of peaks. Expected genes"):
        readers.read(tmp_path / "a.h5ad")
    var.index = [*peaks[:20], *genes[20:]]
    anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
    file = readers.read(tmp_path / "a.h5ad")
    assert file.X.shape == (12, 130) and "not genes but peaks: 20" in file.notes


@pytest.mark.parametrize("kinds", [("GEX", "ADT"), ("RNA", "ADT"), ("gene expression", "Antibody Capture"),
                                   (np.nan, "Antibody Capture")])  # fmt: skip
def test_kinds_of_features_as_people_write_them(kinds, tmp_path, counts, genes):
    of = ["Gene Expression" if kinds[0] is np.nan else kinds[0]] * 70 + [kinds[0]] * 70 + [kinds[1]] * 10
    var = pd.DataFrame({"feature_types": of}, genes)
    anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
    assert list(recognise(readers.read(tmp_path / "a.h5ad")).symbol) == genes[:140]


@pytest.mark.parametrize(("prefix", "said"), [("ENSMUSG", True), ("ENSMMUG", True), ("ENSG", False)])
def test_ids_of_another_species_contradict_symbols_in_upper_case(prefix, said, counts, genes):
    file = named(genes, counts)
    file.names["var['gene_ids']"] = np.array([f"{prefix}{i:011d}" for i in range(len(genes))])
    told = contradicted(file, recognise(file))
    assert bool(told) == said and (not said or f"ids such as {prefix}" in told[0])


def test_a_wider_raw_layer_is_told(tmp_path, counts, genes):
    for width, said in ((40, True), (150, False)):
        adata = anndata.AnnData(counts[:, :width], pd.DataFrame(index=CELLS), pd.DataFrame(index=genes[:width]))
        adata.raw = anndata.AnnData(counts, adata.obs, pd.DataFrame(index=genes))
        adata.write_h5ad(tmp_path / "a.h5ad")
        told = readers.read(tmp_path / "a.h5ad").warnings
        assert bool(told) == said and (not said or "raw holds 150 genes of the bulk, X 40: --layer raw" in told[0])


@pytest.mark.parametrize(
    "name", ["06. Sep", "6. Sep", "Sep 06", "6-Sep-24", "6-SEP", "06.09.2024", "9/6/2024", "06/09/2024"]
)
def test_dates_of_other_spreadsheets(name):
    assert gene_names.translate([name], "human symbols")[0][0] == "SEPT6"


def test_dates_in_german_and_those_that_nobody_can_tell():
    for name in ("03. Mrz", "3-Mär", "Mrz 03"):
        assert gene_names.translate([name], "human symbols")[0][0] == "MARCH3"
    for name in ("3/9/2024", "45541"):
        assert gene_names.translate([name], "human symbols")[0][0] == ""
        assert names_of_no_gene()["dates of a spreadsheet"].fullmatch(name)


# --- folders, archives and pipes --------------------------------------------------------------------------------------


def test_a_folder_with_a_quote_a_zipped_file_without_gz_and_forks_of_macos(tmp_path, counts, genes):
    folder = write(tmp_path, "folder", counts, genes)
    (folder / "matrix.mtx.gz").rename(folder / "matrix.mtx")
    (folder / "._matrix.mtx").write_bytes(b"\0\5")
    features = (folder / "features.tsv").read_text().replace(f"\t{genes[3]}\t", f'\t"{genes[3]}\t')
    (folder / "features.tsv").write_bytes(gzip.compress(features.encode()))
    holds(readers.read(folder), counts, genes)


def test_the_folder_above_is_told_where_the_matrix_is(tmp_path, counts, genes):
    (tmp_path / "outs").mkdir()
    write(tmp_path, "folder", counts, genes).rename(tmp_path / "outs" / "filtered_feature_bc_matrix")
    with pytest.raises(InputError, match="outs: no matrix here but in filtered_feature_bc_matrix. Give .*bc_matrix"):
        readers.read(tmp_path / "outs")


@pytest.mark.parametrize(("name", "way"), [("a.tar.gz", "Unpack"), ("a.csv.bz2", "bunzip2"), ("a.csv.xz", "unxz"),
                                           ("a.xls", "CSV UTF-8")])  # fmt: skip
def test_archives_name_the_way_out(name, way, tmp_path):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(InputError, match=way):
        readers.read(tmp_path / name)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.h5ad", "a.txt"])
@pytest.mark.parametrize(
    ("content", "way"),
    [(bz2.compress(b"x"), "bzip2. Unpack it"), (lzma.compress(b"x"), "xz. Unpack it"), (LFS, "git lfs pull"),
     (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "gzip inside gzip. Unpack it once")],
)  # fmt: skip
def test_what_is_no_table_is_told_by_its_first_bytes(name, content, way, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: .*{way}"):
        readers.read(tmp_path / name)


def test_a_zipped_table_of_another_suffix_is_told_what_to_be_called(tmp_path):
    (tmp_path / "a.count.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(InputError, match=r"format .count is not supported. .*A table\? Call it .tsv"):
        readers.read(tmp_path / "a.count.gz")


def renamed(folder, way):
    """Renames the files of a folder as a message says."""
    for old, new in re.findall(r"([\w.]+) to ([\w.]+)", way):
        (folder / old).rename(folder / new)


def test_folders_of_other_programmes_name_the_way_out(tmp_path, counts, genes, monkeypatch):
    matrix = sparse.coo_matrix(counts.astype(int))  # cells in rows
    for names in (
        ("cells_x_genes.mtx", "cells_x_genes.genes.txt", "cells_x_genes.barcodes.txt"),
        ("quants_mat.mtx", "quants_mat_cols.txt", "quants_mat_rows.txt"),
    ):
        folder = tmp_path / names[0].split(".")[0]
        folder.mkdir()
        io.mmwrite(folder / names[0], matrix)
        for name, lines in zip(names[1:], (genes, CELLS), strict=True):
            (folder / name).write_text("\n".join(lines) + "\n")
        with pytest.raises(InputError, match=f"Rename {names[0]} to matrix.mtx") as of_folder:
            readers.read(folder)
        with pytest.raises(InputError, match=f"Rename {names[0]} to matrix.mtx"):
            readers.read(folder / names[0])
        renamed(folder, str(of_folder.value))
        holds(readers.read(folder), counts, genes)
    folder = tmp_path / "parse"
    folder.mkdir()
    io.mmwrite(folder / "DGE.mtx", matrix)
    pd.DataFrame({"gene_id": "x", "gene_name": genes}).to_csv(folder / "all_genes.csv", index=False)
    pd.DataFrame({"bc_wells": CELLS, "sample": "s"}).to_csv(folder / "cell_metadata.csv", index=False)
    with pytest.raises(InputError, match="a folder of Parse. Write an h5ad: ") as told:
        readers.read(folder)
    monkeypatch.chdir(folder)
    exec(str(told.value).split("Write an h5ad: ")[1].removesuffix("."), {"scanpy": scanpy, "pandas": pd})
    holds(readers.read(folder / "cells.h5ad"), counts, genes)


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a pipe or device is not read.*Give a file"):
        readers.read(tmp_path / "pipe")


def test_an_h5ad_without_values(tmp_path, genes):
    anndata.AnnData(None, pd.DataFrame(index=CELLS), pd.DataFrame(index=genes)).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="no X in this file. Nor any"):
        readers.read(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="no layer '' in this file"):
        readers.read(tmp_path / "a.h5ad", "")


def test_rows_that_end_in_a_separator_shift_no_gene(tmp_path, counts, genes):
    """As some programmes write them: each row ends in a comma, the heading does not."""
    lines = pd.DataFrame(counts, [f"c{i}" for i in range(len(counts))], genes).to_csv().splitlines()
    (tmp_path / "good.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "ending.csv").write_text("\n".join([lines[0], *(f"{line}," for line in lines[1:])]) + "\n")
    good, ending = (readers.read(tmp_path / f"{name}.csv") for name in ("good", "ending"))
    np.testing.assert_array_equal(dense(good.X), dense(ending.X))
    assert [*next(iter(good.names.values()))] == [*next(iter(ending.names.values()))]


def test_residues_of_a_decontamination_are_no_unit_of_counts():
    rng = np.random.default_rng(0)
    X = rng.poisson(2.0, (40, 300)) * rng.uniform(0.8, 1, 300)
    X[::2, 0] = 1e-20  # every number is a whole multiple of so little
    found, _ = cell_values.counts(sparse.csr_matrix(X), sparse.csr_matrix(X), "counts", 20)
    assert found.max() < 1e8


def test_the_base_of_rounded_logarithms_of_few_counts_is_the_one_they_have():
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.4, 0.6, 2000), (200, 2000)).astype(float)
    total = X.sum(1, keepdims=True)
    logged = sparse.csr_matrix(np.log2(X / total * 1e6 + 1).round(3))[:, :1200]  # not all genes: no common total
    assert cell_values.counts(logged, logged, "lognorm", 100)[1] == ["logarithms to base 2"]


# --- parts of files that tell nothing, or are no cells --------------------------------------------------------------
def test_a_row_that_is_cut_short_is_told_whatever_its_gene(counts, genes, tmp_path):
    lines = pd.DataFrame(counts.T, [*genes[:-1], "NOVEL1"], CELLS).to_csv().splitlines()
    lines[-1] = lines[-1].rsplit(",", 3)[0]  # of a name that is no gene of the bulk, so that no value is missed
    path = tmp_path / "cut.csv"
    path.write_text("\n".join(lines))
    found = f"line {len(lines)}: {len(CELLS) - 2} fields, in others {len(CELLS) + 1}"
    with pytest.raises(InputError, match=found):
        readers.read(path)


def test_a_table_of_markers_is_no_matrix(genes, tmp_path):
    columns = {"p_val": 0.01, "avg_log2FC": 1.5, "pct.1": 0.5, "pct.2": 0.1, "p_val_adj": 0.2, "mean": 1.0, "sd": 2.0}
    path = tmp_path / "FindMarkers.csv"
    pd.DataFrame(columns, index=genes).to_csv(path)
    with pytest.raises(InputError, match="a table of markers or statistics.* a column a cell"):
        readers.read(path)
    pd.DataFrame(columns, index=np.arange(len(genes)) / 7).assign(cluster=1, gene=genes).to_csv(path)
    with pytest.raises(InputError, match="no side holds known genes .*A column called gene: a table of markers"):
        readers.read(path)


def test_names_of_cells_in_numbers_and_underscores_are_names(counts, genes, tmp_path):
    path, names = tmp_path / "parse.csv", [f"01_{i:02}_01" for i in range(len(counts))]
    pd.DataFrame(counts, pd.Index(names, name="bc_wells"), genes).to_csv(path)  # Python reads 01_02_01 as a number
    assert readers.read(path).obs.index.tolist() == names


def test_damage_of_the_checkout_is_not_blamed_on_a_file(counts, genes, tmp_path, monkeypatch):
    path = tmp_path / "good.csv"
    pd.DataFrame(counts, CELLS, genes).to_csv(path)
    monkeypatch.setattr(checksums, "register", lambda: {"names_of_no_gene.csv": "0" * 64})
    for asked in (checksums.verify, cellfile.names_of_no_gene):
        asked.cache_clear()
    with pytest.raises(checksums.DataError, match="data/names_of_no_gene.csv: SHA-256 is"):
        readers.read(path)


def test_transcripts_outside_cells_are_no_cell(counts, genes, tmp_path):
    table = pd.DataFrame(counts, columns=genes)
    table.insert(0, "cell_ID", [0, *range(1, len(counts))])
    table.insert(0, "fov", 1)
    path = tmp_path / "exprMat.csv"
    table.to_csv(path, index=False)
    file = readers.read(path)
    assert list(file.obs.columns[:2]) == ["fov", "cell_ID"] and file.X.shape == counts.shape
    reason, _ = cell_values.not_cells(file, file.X, recognise(file), False, np.zeros(len(counts)))
    assert list(reason[:2]) == [cell_values.OUTSIDE, cell_values.SCORED]


def test_genes_of_other_files_that_a_batch_lacks_are_told():
    rng = np.random.default_rng(0)
    X, batch = rng.poisson(2.0, (80, 200)).astype(float), np.repeat([0, 1], 40)
    scored = np.ones(80, bool)
    assert cell_values.absent(sparse.csr_matrix(X), {"batch": batch}, scored) == []
    X[:40, :60] = 0
    (said,) = cell_values.absent(sparse.csr_matrix(X), {"batch": batch}, scored)
    assert said.startswith("60 genes of the bulk") and "all 40 cells of one value of batch" in said
    alone = scored & (batch == 0)  # cells without a score are no others
    assert cell_values.absent(sparse.csr_matrix(X), {"batch": batch}, alone) == []
    X[:, :60] = 0  # measured nowhere: nothing to tell of one batch
    assert cell_values.absent(sparse.csr_matrix(X), {"batch": batch}, scored) == []


def test_what_is_negative_is_named_and_residuals_are_told(counts, genes):
    logs = np.log1p(counts)
    logs[1, 3] = -0.25
    with pytest.raises(InputError, match=f"first -0.25 at cell {CELLS[1]}, gene {genes[3]}"):
        cell_values.detect_values(named(genes, logs))
    z = np.random.default_rng(0).normal(size=counts.shape).astype(np.float32)
    z = (z - z.mean(0)) / z.std(0)
    assert not any("residuals" in note for note in cell_values.detect_values(named(genes, z))[1])
    z[:, :4] *= 6
    kind, notes = cell_values.detect_values(named(genes, z))
    assert kind == "zscored" and any("residuals (SCTransform, Pearson)" in note for note in notes)


def test_one_value_that_is_not_whole_among_many_is_not_none(genes):
    many = np.random.default_rng(0).poisson(2.0, (len(CELLS), 6000)).astype(np.float32) + 1
    many[0, 0] = 2.5
    _, notes = cell_values.detect_values(named([f"G{i}" for i in range(6000)], many))
    assert any(note.startswith("under 0.01% of the counts are no integers") for note in notes)
    assert not any(
        "TPM" in note for note in cell_values.detect_values(named(genes, np.log1p(many[:, :150])), "counts")[1]
    )


# --- files that were misread once ------------------------------------------------------------------------------------


def test_counts_that_were_scaled_and_scaled_back_are_counts(counts, genes):
    back = counts / counts.sum(1, keepdims=True) * counts.sum(1, keepdims=True) * np.float32(1 + 3e-7)
    assert (back % 1 != 0).any()
    file = named(genes, back)
    assert cell_values.detect_values(file) == ("counts", [])
    X, _ = cell_values.counts(file.X, file.X, "counts", 4)
    np.testing.assert_allclose(X.toarray(), counts, rtol=1e-5)
    assert cell_values.detect_values(named(genes, counts / 1e7))[0] != "zscored"  # small is not whole


def test_proteins_beside_rna_are_no_genes(tmp_path, counts, genes):
    kinds = np.where(np.arange(len(genes)) < 120, "RNA", "Protein")
    var = pd.DataFrame({"feature_types": kinds}, index=genes)
    anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
    assert readers.read(tmp_path / "a.h5ad").X.shape == (12, 120)
    var["feature_types"] = np.where(np.arange(len(genes)) < 120, "protein_coding", "lncRNA")  # kinds of genes
    anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "b.h5ad")
    assert readers.read(tmp_path / "b.h5ad").X.shape == (12, 150)


def test_many_droplets_are_told_from_few_cells():
    rng = np.random.default_rng(0)
    depth = np.r_[rng.lognormal(np.log(8000), 0.4, 60), rng.lognormal(np.log(8), 1.0, 6000), np.full(1500, 80)]
    X = rng.poisson(depth[:, None] / 200 * np.ones(200)).astype(float)
    names = gdsc.load_bulk().genes[:200]
    file = CellFile("x", "h5ad", X, {"names": names}, pd.DataFrame(index=[f"c{i}" for i in range(len(X))]))
    reason, said = cell_values.not_cells(file, X, recognise(file), True, np.zeros(len(X)))
    empty = (X == 0).all(1)  # these are told elsewhere
    assert np.array_equal(reason == cell_values.SCORED, empty | (np.arange(len(X)) < 60))
    assert "far less deep" in said[0]


def test_ids_among_symbols_and_symbols_among_ids_are_genes(counts, genes):
    ids = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    for every in (2, 3):
        mixed = [ids[g] if i % every else g for i, g in enumerate(genes)]
        assert list(recognise(named(mixed, counts)).symbol) == genes


def test_antibodies_in_brackets_are_no_genes(counts, genes):
    for form in ("{} (ADT)", "{}|ADT", "{}(prot)", "{} (TotalSeqB)"):
        names = [*genes[:-10], *(form.format(g) for g in genes[-10:])]
        found = recognise(named(names, counts))
        assert (found.symbol[-10:] == "").all() and (found.symbol[:-10] != "").all()
        assert names_of_no_gene()["antibodies"].fullmatch(names[-1])


def test_genomes_as_seurat_writes_them(counts, genes):
    for prefix in ("GRCh38-", "GRCh38---", "hg19-"):
        assert list(recognise(named([prefix + g for g in genes], counts)).symbol) == genes


def test_sums_and_row_numbers_are_no_cells(tmp_path, counts, genes):
    frame = pd.DataFrame(counts, CELLS, genes)
    with_sums = pd.concat([frame, frame.sum().to_frame("Total").T, frame.mean().to_frame("Mean").T])
    with_sums.to_csv(tmp_path / "rows.csv")
    frame.T.assign(rowSums=frame.sum()).to_csv(tmp_path / "columns.csv")
    frame.T.reset_index().to_csv(tmp_path / "twice.csv")
    pd.read_csv(tmp_path / "twice.csv").set_index("index").to_csv(tmp_path / "twice.csv")
    for name in ("rows", "columns", "twice"):
        file = readers.read(tmp_path / f"{name}.csv")
        assert list(file.obs.index) == CELLS, name
        np.testing.assert_array_equal(dense(file.X), counts)


def test_a_genes_table_without_a_heading_has_cells_of_no_name(tmp_path, counts, genes):
    pd.DataFrame(counts.astype(int).T, ["no gene", *genes[1:]]).to_csv(tmp_path / "a.csv", header=False)
    file = readers.read(tmp_path / "a.csv")
    assert list(file.obs.index) == [f"cell_{i}" for i in range(12)] and file.X.shape == (12, 150)


def test_one_absurd_value_is_named(counts, genes):
    wrong = counts.copy()
    wrong[3, 5] = 3e30
    with pytest.raises(InputError, match=f"first 3e.30 at cell cell-3, gene {genes[5]}"):
        cell_values.detect_values(named(genes, wrong))


def test_points_of_thousands_are_asked_about(counts, genes):
    X = np.tile(counts, (1, 10))
    names = [f"{g}_{i}" for i in range(10) for g in genes]
    X[0, :3] = 1.234, 2.05, 7.001  # three digits behind each point in the file
    with pytest.raises(InputError, match=f"first 1.234 at cell cell-0, gene {genes[0]}_0.*the point one of thousands"):
        cell_values.detect_values(named(names, X))
    X[0, 0] = 0.33  # as a correction leaves them
    assert cell_values.detect_values(named(names, X))[0] == "counts"


def test_a_cell_number_from_zero_is_a_cell_where_no_field_of_view_is_told(counts, genes):
    file = replace(named(genes, counts), obs=pd.DataFrame({"cell_ID": range(12)}, index=CELLS))
    reason, _ = cell_values.not_cells(file, file.X, recognise(file), False, np.zeros(12))
    assert set(reason) == {cell_values.SCORED}


def test_a_table_of_r_whose_last_column_begins_empty_shifts_no_gene(tmp_path, counts, genes):
    labels = ['""'] * 11 + ['"sensitive"']
    head = "\t".join(f'"{h}"' for h in [*genes, "response"])
    rows = ["\t".join([f'"{c}"', *map(str, x), y]) for c, x, y in zip(CELLS, counts, labels, strict=True)]
    path = tmp_path / "r.txt"
    for quote in ('"', ""):
        path.write_text("\n".join([head, *rows]).replace('"', quote) + "\n")
        file = readers.read(path)
        np.testing.assert_array_equal(dense(file.X), counts)
        assert list(recognise(file).symbol) == genes and file.obs["response"].iloc[-1] == "sensitive"


def test_a_column_without_a_heading_is_asked_about(tmp_path, counts, genes):
    lines = pd.DataFrame(counts.T, pd.Index(genes, name="gene"), CELLS).to_csv().splitlines()
    path = tmp_path / "a.csv"
    path.write_text("\n".join([lines[0], *(f"{line},chr1" for line in lines[1:])]) + "\n")
    with pytest.raises(InputError, match="a column without a heading, behind cell-11"):
        readers.read(path)


def test_kinds_of_features_are_read_whatever_their_column_is_called(tmp_path, counts, genes):
    kinds = np.where(np.arange(len(genes)) < 120, "Gene Expression", "Antibody Capture")
    for columns in (["Type"], ["modality"], ["feature_types-0", "feature_types-1"]):
        var = pd.DataFrame({c: kinds for c in columns}, index=genes)
        var.iloc[:60, 0] = "nan"  # absent from one of two files that were joined
        anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
        assert readers.read(tmp_path / "a.h5ad").X.shape == (12, 120)


def test_antibodies_and_guides_without_an_id_are_no_genes(tmp_path, counts, genes):
    by_symbol = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    ids, path = [by_symbol[g] for g in genes], tmp_path / "a.h5ad"
    wide = np.hstack([counts, np.full((12, 10), 300, np.float32)])
    cells = pd.DataFrame(index=CELLS)
    for own, name in (
        ([f"AB{i}" for i in range(10)], [*genes[:6], "CD3", "CD45", "IgG1", "IgG2a"]),
        (genes[:10], [f"{g}-1" for g in genes[:10]]),  # as names are made different
        ([f"sg{g}.2" for g in genes[:10]], [f"{g}.2" for g in genes[:10]]),
    ):
        var = pd.DataFrame({"gene_ids": ids + own}, [*genes, *name])
        anndata.AnnData(wide, cells, var).write_h5ad(path)
        file = readers.read(path)
        holds(file, counts, genes)
        assert any("10 features without an Ensembl id" in note for note in file.notes)
    folder = write(tmp_path, "folder", wide, [f"x{i}" for i in range(160)])
    rows = zip(ids + genes[:10], genes + genes[:10], strict=True)
    (folder / "features.tsv").write_text("".join(f"{i}\t{g}\n" for i, g in rows))
    holds(readers.read(folder), counts, genes)


def test_genes_whose_id_is_missing_are_genes(tmp_path, counts, genes):
    by_symbol = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    for instead in (lambda g: "nan", lambda g: "", lambda g: g, lambda g: "LOC1000"):
        ids = [by_symbol[g] if n % 12 else instead(g) for n, g in enumerate(genes)]
        var = pd.DataFrame({"gene_ids": ids, "symbol": genes}, genes)
        anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
        holds(readers.read(tmp_path / "a.h5ad"), counts, genes)


@pytest.mark.parametrize(
    ("column", "kinds", "width"),
    [("kind", ("mRNA", "AbO"), 120), ("feature_types", ("mRNA", "AbO"), 120), ("is_adt", (False, True), 120),
     ("is_protein", (False, True), 120), ("is_hashtag", (False, False), 150), ("biotype", ("mRNA", "lncRNA"), 150),
     ("feature_type", ("mRNA", "lncRNA"), 150), ("is_mito", (False, True), 150)],
)  # fmt: skip
def test_kinds_of_other_makers_and_marks(column, kinds, width, tmp_path, counts, genes):
    var = pd.DataFrame({column: [kinds[0]] * 120 + [kinds[1]] * 30}, genes)
    anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
    assert readers.read(tmp_path / "a.h5ad").X.shape == (12, width)


def test_features_of_two_columns_or_with_row_numbers(tmp_path, counts, genes):
    ids = {s: i for i, s in gene_names.ensembl_symbols("human").items()}
    folder = write(tmp_path, "folder", counts, genes)
    kinds = ["Gene Expression"] * 120 + ["Antibody Capture"] * 30
    (folder / "features.tsv").write_text("".join(f"{g}\t{k}\n" for g, k in zip(genes, kinds, strict=True)))
    assert list(recognise(readers.read(folder)).symbol) == genes[:120]
    numbered = [*genes[:-1], "CITED2"]
    (folder / "features.tsv").write_text("".join(f"{i}\t{ids[g]}\t{g}\n" for i, g in enumerate(numbered, 1)))
    assert list(recognise(readers.read(folder)).symbol) == numbered


def test_spots_beside_the_tissue_are_no_cells(counts, genes):
    file = replace(named(genes, counts), obs=pd.DataFrame({"in_tissue": [0, *[1] * 11]}, index=CELLS))
    reason, _ = cell_values.not_cells(file, file.X, recognise(file), True, np.zeros(12))
    assert list(reason[:2]) == [cell_values.BARE, cell_values.SCORED]


def test_shallow_counts_with_shared_reads_are_counts():
    rng = np.random.default_rng(0)
    X = rng.poisson(np.minimum(rng.gamma(0.5, 0.3, 3000), 6), (400, 3000)).astype(np.float32)
    X[(rng.random(X.shape) < 0.05) & (X > 0)] *= np.float32(0.37)
    names = [f"G{i}" for i in range(3000)]
    file = CellFile("x", "h5ad", sparse.csr_matrix(X), {"names": np.array(names)}, pd.DataFrame(index=names[:400]))
    assert X.max() < cell_values.MAX_LOG and cell_values.detect_values(file)[0] == "counts"
    whole = np.rint(X)
    for logged in (np.log1p(X), np.log2(whole + 1), np.log2(whole + 1).round(1)):
        assert cell_values.detect_values(replace(file, X=sparse.csr_matrix(logged)))[0] == "lognorm"


def test_values_scaled_and_not_centred_are_so_however_many_cells_there_are():
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.3, 0.3, 500), (2500, 500)).astype(float)
    X = np.log1p(X[:, (X > 0).sum(0) >= 2])
    scaled = sparse.csr_matrix((X / X.std(0, ddof=1)).astype(np.float32))
    names = np.array([f"G{i}" for i in range(X.shape[1])])
    file = CellFile("x", "h5ad", scaled, {"names": names}, pd.DataFrame(index=[f"c{i}" for i in range(2500)]))
    assert scaled.max() > cell_values.MAX_LOG and cell_values.detect_values(file)[0] == "zscored"


def test_lengths_of_genes_are_no_cell(tmp_path, counts, genes):
    frame = pd.DataFrame(counts.T, genes, CELLS)
    for name in ("width", "feature_length", "num_exons", "sct.gmean", "logCPM"):
        frame.assign(**{name: np.arange(150)}).to_csv(tmp_path / "a.csv")
        assert list(readers.read(tmp_path / "a.csv").obs.index) == CELLS, name


@pytest.fixture(scope="module")
def alike():
    """Counts of 40 cells that have genes in common, as cells do."""
    rng, genes = np.random.default_rng(0), gdsc.load_bulk().genes[:1500]
    X = rng.poisson(rng.gamma(0.4, 4, len(genes)) * rng.lognormal(0, 0.4, (40, len(genes))))
    return pd.DataFrame(X.astype(float), [f"c{i}" for i in range(40)], genes)


def values_of(alike, way):
    logs = np.log1p(alike / alike.sum(axis=1).to_numpy()[:, None] * 1e4)
    z = (logs - logs.mean()) / logs.std().replace(0, 1)
    return {"counts": alike, "logs": logs.round(4), "z-scores": z.round(4)}[way]


def beside(frame, end, **columns):
    """The cells in columns, with others before or behind them."""
    parts = [pd.DataFrame(columns, frame.columns), frame.T]
    return pd.concat(parts[::-1] if end else parts, axis=1)


@pytest.mark.parametrize("way", ["counts", "logs", "z-scores"])
@pytest.mark.parametrize("end", [False, True])
def test_annotations_of_genes_are_told_by_their_values(way, end, tmp_path, alike):
    rng, n = np.random.default_rng(1), alike.shape[1]
    lengths, places, chromosomes = rng.integers(300, 9000, n), rng.integers(1e6, 2e8, n), rng.integers(1, 23, n)
    frame = values_of(alike, way)
    for columns in (
        {"exonic_length": lengths}, {"TSS": places, "bp": lengths, "No.": np.arange(1, n + 1)},
        {"chromosome_name": chromosomes}, {"GC%": rng.random(n).round(3)} if way != "z-scores" else {"on": 1},
    ):  # fmt: skip
        file = table(tmp_path, beside(frame, end, **columns).to_csv(sep="\t"))
        holds(file, frame.to_numpy(np.float32), frame.columns, frame.index)
        told = list(columns)[:: -1 if end else 1]
        assert any(line.startswith("not read as cells") and ", ".join(told) in line for line in file.warnings)


def test_many_columns_unlike_the_others_are_refused(tmp_path, alike):
    four = {f"length.{i}": np.random.default_rng(i).integers(300, 9000, alike.shape[1]) for i in range(4)}
    with pytest.raises(InputError, match="annotations of genes. No other column has values like those of length.0"):
        table(tmp_path, beside(alike, False, **four).to_csv(sep="\t"))


@pytest.mark.parametrize("way", ["counts", "logs", "z-scores"])
def test_cells_of_their_own_kind_stay_cells(way, tmp_path, alike, genes, counts):
    frame = values_of(alike, way)
    columns = {
        "empty": 0,
        "other": np.roll(frame.iloc[0], 1) if way == "z-scores" else frame.iloc[0],
        "deep": frame.iloc[1] * 9,
    }
    file = table(tmp_path, beside(frame, False, **columns).to_csv(sep="\t"))
    assert list(file.obs.index) == [*columns, *frame.index] and not file.warnings
    file = table(tmp_path, pd.DataFrame(counts.T, genes, CELLS).to_csv(sep="\t"))  # no cell is like another
    assert list(file.obs.index) == CELLS and not file.warnings
    for seed in range(20):  # a kind that is like the sum of both, and one that is flat, on a panel
        two = 1 + 2 * (np.arange(40) % 2)[:, None] * (np.arange(150) % 3 == 0)
        two = pd.DataFrame(np.random.default_rng(seed).poisson(two), [f"c{i}" for i in range(40)], genes)
        assert list(table(tmp_path, two.T.to_csv(sep="\t")).obs.index) == list(two.index)


SUMS = {
    "Sum of all": "sum",
    "Gesamt": "sum",
    "avg": "mean",
    "50%": "median",
    "max": "max",
    "low": "min",
    "n": np.count_nonzero,
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("digits", [1, 12])
def test_sums_are_told_by_their_values(name, digits, tmp_path, alike):
    more = (
        np.random.default_rng(1).poisson(9, alike.shape) if name in ("50%", "low") else 0
    )  # else hardly one is above 0
    deep = alike + more
    line = deep.apply(SUMS[name]).round(digits).rename(name).to_frame().T
    for frame in (
        pd.concat([deep, line]),
        pd.concat([line, deep]),
        pd.concat([deep, line, deep.mean().rename("x").to_frame().T]),
    ):
        for turned in (frame, frame.T):
            file = table(tmp_path, turned.to_csv(sep="\t"))
            np.testing.assert_array_equal(dense(file.X), deep)
            assert list(file.obs.index) == list(deep.index)
            assert any(note.startswith(f"{name}: the ") for note in file.notes)


def test_lines_that_are_near_a_sum_are_cells(tmp_path, alike):
    most = alike.max()
    most.iloc[7] += 1
    pooled = pd.concat([alike, alike.iloc[:20].sum().rename("half").to_frame().T, most.rename("most").to_frame().T])
    twins = pd.concat([alike.iloc[:1]] * 12).set_axis(CELLS)
    capped, few = alike.clip(upper=1), pd.concat([alike.iloc[:2], alike.iloc[:2].sum().rename("both").to_frame().T])
    for frame in (pooled, twins, capped, few):
        assert list(table(tmp_path, frame.to_csv(sep="\t")).obs.index) == list(frame.index)


@pytest.mark.parametrize("name", ["unassigned", "Undetermined", "no_match", "NTC", "blank"])
def test_reads_of_no_cell_are_no_cell(name, tmp_path, alike):
    frame = pd.concat([alike, alike.iloc[:9].sum().rename(name).to_frame().T])
    for turned in (frame, frame.T):
        assert list(table(tmp_path, turned.to_csv(sep="\t")).obs.index) == list(alike.index)


def test_a_clone_behind_a_symbol_is_of_an_antibody(counts, genes):
    for form in ("{} (SK3)", "{}|A0072", "{} (HIB19)", "{}:SK7|{}|AHS0231|pAbO", "{}|NMX_1", "b{}'"):
        found = recognise(named([*genes[:-10], *(form.replace("{}", g) for g in genes[-10:])], counts))
        assert (found.symbol[-10:] == "").all() and (found.symbol[:-10] != "").all()
    assert list(recognise(named([f"{g} (7157)" for g in genes], counts)).symbol) == genes


@pytest.mark.parametrize("remark", [("custom", ""), ("peak_0", None), ("surface protein", np.nan)])
def test_a_remark_on_a_few_genes_is_no_kind_of_feature(remark, tmp_path, counts, genes):
    var = pd.DataFrame({"panel": [remark[0]] * 50 + [remark[1]] * 100}, genes)
    anndata.AnnData(counts, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
    assert list(recognise(readers.read(tmp_path / "a.h5ad")).symbol) == genes


def test_genes_that_a_column_of_kinds_takes_away_are_told(tmp_path, counts):
    many = list(gdsc.load_bulk().genes[:400])
    X = np.tile(counts, 3)[:, :400]
    var = pd.DataFrame({"category": ["gene"] * 250 + ["surface"] * 150}, many)
    anndata.AnnData(X, pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
    (told,) = readers.read(tmp_path / "a.h5ad").warnings
    assert told.startswith("150 features are called surface, but 150 have names of genes of the bulk")


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("index", [2_000_000_000, -1])
def test_indices_outside_a_sparse_matrix_meet_no_compiled_code(layout, index, tmp_path, counts, genes):
    path = tmp_path / "a.h5ad"
    anndata.AnnData(layout(counts), pd.DataFrame(index=CELLS), pd.DataFrame(index=genes)).write_h5ad(path)
    with h5py.File(path, "r+") as f:
        indices = f["X/indices"][:]
        indices[::7] = index
        f["X/indices"][:] = indices
    with pytest.raises(InputError, match="truncated or damaged"):
        readers.read(path)


@pytest.mark.parametrize("name", ["a.h5ad", "10x.h5"])
def test_more_rows_than_a_sparse_matrix_stores_are_refused_before_memory_is_asked_for(name, tmp_path, counts, genes):
    path = write(tmp_path, name, counts, genes)
    with h5py.File(path, "r+") as f:
        if name == "a.h5ad":
            f["X"].attrs["shape"] = [10**13, len(genes)]
        else:
            f["matrix/shape"][:] = [len(genes), 10**13]
    with pytest.raises(InputError, match=r"10,000,000,000,000.* rows or columns of 12"):
        readers.read(path)


@pytest.mark.parametrize("part", ["X/indptr", "obs/_index", "var/other"])
def test_a_part_that_declares_more_than_its_bytes_can_unpack_to_is_refused(part, tmp_path, counts, genes):
    path = write(tmp_path, "a.h5ad", counts, genes)
    with h5py.File(path, "r+") as f:
        if part in f:
            del f[part]
        f.create_dataset(part, (10**11,), "i4", chunks=(10**6,), compression="gzip")
    with pytest.raises(InputError, match=rf"/{part} declares 400 GB and stores 0 bytes"):
        readers.read(path)


def test_two_genomes_with_a_damaged_pointer_are_refused(tmp_path, counts, genes):
    X = sparse.csr_matrix(counts)
    with h5py.File(tmp_path / "a.h5", "w") as f:
        for genome in ("GRCh38", "mm10"):
            pointer = X.indptr.copy()
            pointer[3] = 10**6
            f[f"{genome}/data"], f[f"{genome}/indices"], f[f"{genome}/indptr"] = X.data.astype(int), X.indices, pointer
            f[f"{genome}/shape"], f[f"{genome}/barcodes"] = X.shape[::-1], [c.encode() for c in CELLS]
            f[f"{genome}/genes"] = f[f"{genome}/gene_names"] = [g.encode() for g in genes]
    with pytest.raises(InputError, match="truncated or damaged"):
        readers.read(tmp_path / "a.h5")


def test_integers_beside_numeric_categories_stay_integers_or_become_them(tmp_path, counts, genes):
    path = tmp_path / "a.h5ad"
    obs = pd.DataFrame({"batch": np.arange(12) % 2, "leiden": np.arange(12) % 3}, CELLS)
    anndata.AnnData(counts, obs, pd.DataFrame(index=genes)).write_h5ad(path)
    with h5py.File(path, "r+") as f:
        f["uns/batch_categories"] = [10, 20]
        f.create_group("uns/leiden_categories")
    found = readers.read(path).obs
    assert found["batch"].tolist() == [10, 20] * 6 and found["leiden"].tolist() == [0, 1, 2] * 4


def test_values_of_another_byte_order_are_told(tmp_path, counts, genes):
    path = write(tmp_path, "a.h5ad", counts, genes)
    with h5py.File(path, "r+") as f:
        data = f["X/data"][:]
        del f["X/data"]
        f["X/data"] = data.astype(">f4")
    with pytest.raises(InputError, match="byte order or kind that is not read here. Write them again as float32"):
        readers.read(path)


@pytest.mark.parametrize("start", [0, 1])
def test_a_folder_whose_features_are_numbered(start, tmp_path, counts, genes):
    folder = write(tmp_path, "folder", counts, genes)
    named = [*genes[:-2], "CITED1", ""]
    rows = [f"{i + start}\tENSG{i:011d}\t{g}" for i, g in enumerate(named)]
    (folder / "features.tsv").write_text("\n".join(rows) + "\n")
    file = readers.read(folder)
    assert file.X.shape == counts.shape and file.names["features, name"].tolist() == named


# --- shapes that people's files have and that were misread once -------------------------------------------------------
def test_several_measures_of_a_cell_are_no_cells(genes, tmp_path):
    rng, names = np.random.default_rng(0), [f"S{i}" for i in range(12)]
    for form in ("{0}.{1}", "{1}_{0}"):
        parts = {
            form.format(kind, name): rng.random(150) for kind in ("abundance", "counts", "length") for name in names
        }
        pd.DataFrame(parts, genes).to_csv(tmp_path / "txi.csv")
        with pytest.raises(InputError, match=r"several measures of one cell \(abundance, counts, length\)"):
            readers.read(tmp_path / "txi.csv")
    alone = {f"counts.{name}": rng.poisson(5, 150) for name in names}  # one measure is a way to call cells
    pd.DataFrame(alone, genes).to_csv(tmp_path / "txi.csv")
    assert readers.read(tmp_path / "txi.csv").X.shape == (12, 150)


@pytest.mark.parametrize("index", ["peak_{}", "chr1.{}.500", "sample_peak_{}a"])
def test_peaks_of_other_programmes_are_no_genes_either(index, genes, tmp_path):
    var = pd.DataFrame({"SYMBOL": genes}, index=[index.format(i) for i in range(150)])
    anndata.AnnData(np.ones((12, 150), np.float32), pd.DataFrame(index=CELLS), var).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="all names are of peaks"):
        readers.read(tmp_path / "a.h5ad")


@pytest.mark.parametrize("column", ["Undetermined_S0", "Mean_ctrl", "avg.S", "BC01_Pooled", "Bulk_1"])
def test_columns_that_hold_no_cell_are_told_by_their_name(column, genes, tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).poisson(5, (150, 12)), genes, CELLS)
    table.assign(**{column: 3}).to_csv(tmp_path / "a.csv")
    assert list(readers.read(tmp_path / "a.csv").obs.index) == CELLS


def test_where_a_spot_lies_is_no_gene_in_a_table(genes, tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).poisson(5, (12, 150)), CELLS, genes)
    table.insert(0, "in_tissue", [0, 1] * 6)
    table.to_csv(tmp_path / "a.csv")
    file = readers.read(tmp_path / "a.csv")
    assert file.X.shape == (12, 150) and file.obs["in_tissue"].astype(str).tolist() == ["0", "1"] * 6


@pytest.mark.parametrize("marks", [
    {"feature_types": ["gene", "Ab"]}, {"is_antibody": [0, 1]}, {"is_adt": ["FALSE", "TRUE"]},
    {"is_antibody": pd.array([False, True], dtype="boolean")},
])  # fmt: skip
def test_antibodies_that_words_or_numbers_mark_are_no_genes(marks, genes, tmp_path):
    marks = {k: pd.Series(v).repeat([142, 8]).array for k, v in marks.items()}
    adata = anndata.AnnData(np.ones((12, 150), np.float32), pd.DataFrame(index=CELLS), pd.DataFrame(marks, index=genes))
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert readers.read(tmp_path / "a.h5ad").X.shape == (12, 142)


def test_row_numbers_of_a_10x_folder_are_no_names(genes, tmp_path):
    io.mmwrite(tmp_path / "matrix.mtx", sparse.coo_matrix(np.ones((150, 12), int)))
    lines = {"features.tsv": [f"{g}\t{g}" for g in genes], "barcodes.tsv": CELLS}
    for name, of in lines.items():
        (tmp_path / name).write_text("".join(f'"{i}"\t{line}\n' for i, line in enumerate(of, 1)))
    file = readers.read(tmp_path)
    assert list(file.obs.index) == CELLS and list(file.names["features, name"]) == genes


def test_features_without_names_or_with_too_few_are_told(genes, tmp_path):
    def written(**places):
        with h5py.File(tmp_path / "a.h5", "w") as f:
            m, X = f.create_group("matrix"), sparse.csc_matrix(np.ones((150, 12), int))
            m["data"], m["indices"], m["indptr"], m["shape"] = X.data, X.indices, X.indptr, X.shape
            m["barcodes"] = np.array(CELLS, "S")
            for name, values in places.items():
                m[f"features/{name}"] = np.array(values, "S")
        return tmp_path / "a.h5"

    with pytest.raises(InputError, match="150 of id, 149 of name"):
        readers.read(written(id=genes, name=genes[1:]))
    with pytest.raises(InputError, match="names of features: none"):
        readers.read(written(gene_ids=genes))


def test_no_x_and_words_without_encoding_are_read(genes, tmp_path):
    obs = pd.DataFrame({"kind": pd.Categorical(["a", "b"] * 6), "age": range(12)}, index=CELLS)
    X = np.ones((12, 150), np.float32)
    adata = anndata.AnnData(X, obs, pd.DataFrame(index=genes), layers={"counts": 2 * X})
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as f:
        for item in (f["obs"], f["obs/kind"], *f["obs/kind"].values()):
            for key in [k for k in item.attrs if k != "_index"]:
                del item.attrs[key]
    assert readers.read(tmp_path / "a.h5ad").obs["kind"].tolist() == ["a", "b"] * 6
    with h5py.File(tmp_path / "a.h5ad", "a") as f:
        del f["X"]
        f["X"] = h5py.Empty("f4")
        f["X"].attrs.update({"encoding-type": "null", "encoding-version": "0.1.0"})
    with pytest.raises(InputError, match="no X in this file. Layers there: counts"):
        readers.read(tmp_path / "a.h5ad")
    assert readers.read(tmp_path / "a.h5ad", "counts").X.max() == 2


def test_mouse_symbols_in_upper_case_are_told(genes):
    names = np.array([*genes, *(f"GM{i}" for i in range(1000, 1120))])
    file = CellFile(None, "h5ad", np.ones((12, len(names))), {"the index of var": names}, pd.DataFrame(index=CELLS))
    assert "mouse in upper case" in contradicted(file, recognise(file))[0]
    few = file.only(np.arange(len(names)) < 160)
    assert not contradicted(few, recognise(few))
