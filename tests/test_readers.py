"""A person's files: every format gives the same cells, and everything wrong with one is said in words."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from atsdp_utils import datasets, orthologs, readers
from atsdp_utils.readers import InputError

CELLS = [f"cell-{i}" for i in range(12)]


@pytest.fixture(scope="module")
def genes():
    """150 bulk genes that have an Ensembl id and a mouse ortholog."""
    human, mouse = set(orthologs.symbols("human").values()), set(orthologs.human_to_mouse())
    return [g for g in datasets.load_bulk().genes if g in human and g in mouse][:150]


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
    found = readers.recognise(file)
    assert (found.naming, found.shared, list(found.symbol)) == ("human symbols", 150, genes)
    assert readers.detect_values(file)[0] == "counts"


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


def named(names, counts):
    return readers.CellFile(
        "x", "table", sparse.csr_matrix(counts), {"names": np.array(names)}, pd.DataFrame(index=CELLS)
    )


def test_ensembl_ids_with_versions_and_prefixes_become_symbols(counts, genes):
    by_symbol = {s: i for i, s in orthologs.symbols("human").items()}
    ids = [by_symbol[g] for g in genes]
    for names in (ids, [i + ".12" for i in ids], ["GRCh38_" + i for i in ids]):
        found = readers.recognise(named(names, counts))
        assert found.naming == "human Ensembl ids"
        assert list(found.symbol) == genes


def test_hla_genes_are_found_under_their_official_spelling(counts, genes):
    dotted = [g for g in datasets.load_bulk().genes if g.startswith("HLA.")][:1]
    found = readers.recognise(named([dotted[0].replace(".", "-"), *genes[1:]], counts))
    assert found.symbol[0] == dotted[0]


def test_mouse_genes_need_the_word_mouse(counts, genes):
    mouse = named([orthologs.human_to_mouse()[g] for g in genes], counts)
    with pytest.raises(InputError, match="--species mouse"):
        readers.recognise(mouse)
    assert list(readers.recognise(mouse, "mouse").symbol) == genes
    with pytest.raises(InputError, match="--species human"):
        readers.recognise(named(genes, counts), "mouse")


def test_too_few_genes(counts, genes):
    with pytest.raises(InputError, match=r"99 of 150 genes are in the bulk .*at least 100"):
        readers.recognise(named(genes[:99] + [f"NOVEL{i}" for i in range(51)], counts))
    with pytest.raises(InputError, match="Entrez"):
        readers.recognise(named([str(i) for i in range(150)], counts))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 3, 12], "counts"), ([0, 1.7, 3.2], "lognorm"), ([-1.2, 0.3, 4.0], "zscored"), ([0, 812.5, 3.25], "counts")],
)
def test_values_are_detected(values, expected):
    file = readers.CellFile(
        "x", "table", np.array([values]), {"names": np.array(list("abc"))}, pd.DataFrame(index=["c"])
    )
    assert readers.detect_values(file)[0] == expected


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
    file = readers.CellFile("x", "table", X, {"names": np.array(list("abc"))}, pd.DataFrame(index=["c"]))
    with pytest.raises(InputError, match=message):
        readers.detect_values(file, asked)


def bad_files(tmp_path, counts, genes):
    good = write(tmp_path, "good.h5ad", counts, genes).read_bytes()
    folder = write(tmp_path, "folder", counts, genes)
    (folder / "matrix.mtx.gz").unlink()
    made = {
        "truncated.h5ad": good[: len(good) // 2],
        "text.h5ad": b"not hdf5",
        "empty.csv": b"",
        "header.csv": b"A1BG,ACTB\n",
        "cells.rds": b"RDX3",
        "cells.pkl": b"\x80\x04",
        "matrix.mtx": b"%%MatrixMarket",
        "cut.csv.gz": gzip.compress(b"a,b\n" * 99)[:20],
        "words.csv": b"cell,a,b\nc1,1,2\nc2,1,x\n",
        "ragged.csv": b"cell,a,b\nc1,1,2,3,4\n",
        "unknown.csv": b",a,b\nc1,1,2\n",
    }
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in made] + [folder, tmp_path / "absent.h5ad"]


def test_bad_files_are_explained(tmp_path, counts, genes):
    said = {}
    for path in bad_files(tmp_path, counts, genes):
        with pytest.raises(InputError) as caught:
            readers.read(path)
        said[path.name] = str(caught.value)
        assert str(path) in said[path.name]
    assert "truncated" in said["truncated.h5ad"] and "truncated" in said["text.h5ad"]
    assert "0 bytes" in said["empty.csv"] and "no row below" in said["header.csv"]
    assert "not supported" in said["cells.rds"] and "not supported" in said["cells.pkl"]
    assert "matrix.mtx" in said["folder"] and "no such file" in said["absent.h5ad"]
    assert "no side holds known genes" in said["unknown.csv"]


def test_layers(tmp_path, counts, genes):
    adata = anndata.AnnData(np.full_like(counts, 0.5), var=pd.DataFrame(index=genes), layers={"counts": counts})
    adata.write_h5ad(tmp_path / "l.h5ad")
    np.testing.assert_array_equal(readers.read(tmp_path / "l.h5ad", layer="counts").X, counts)
    with pytest.raises(InputError, match="no layer 'raw_counts'.*Layers there: counts"):
        readers.read(tmp_path / "l.h5ad", layer="raw_counts")
    with pytest.raises(InputError, match="Leave --layer out"):
        readers.read(write(tmp_path, "a.csv", counts, genes), layer="counts")
