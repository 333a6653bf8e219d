"""The paper's GEO files as ``geo_layouts.toml`` describes them, in miniature or with every cell, and a small server.

Each writer puts the files of one series into a folder and returns what its loader should find there. Cells have the
true names (those of the embedded tables), genes are real ones, and values are drawn: nothing here is a measurement.
"""

from __future__ import annotations

import dataclasses
import gzip
import http.server
import io
import math
import tarfile
import threading
import tomllib
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import openpyxl
import pandas as pd

from atsdp_utils.data import gdsc, gene_names, geo
from atsdp_utils.data.geo import Expected
from atsdp_utils.foundation import paths

LAYOUTS = tomllib.loads(Path(__file__).with_name("geo_layouts.toml").read_text())
SCALE, GENES = LAYOUTS["miniature"]["scale"], LAYOUTS["miniature"]["genes"]
HEAD_AND_NECK, PROSTATE, LEUKAEMIA = (LAYOUTS[series] for series in ("GSE117872", "GSE140440", "GSE110894"))
TPM, CELLINFO = HEAD_AND_NECK["matrix"], HEAD_AND_NECK["annotation"]
TAR, SERIES = PROSTATE["tar"], PROSTATE["annotation"]
COUNTS, WELLS = LEUKAEMIA["matrix"], LEUKAEMIA["annotation"]
#: Genes that the paper names and the bulk has; every fixture measures them.
NAMED = ("NEK6", "FBXO25", "UCHL1", "EDIL3")
MITO = ("MT-ND1", "MT-CO1", "MT-ND4")


def write_gz(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), 1, mtime=0))


def edit_gz(path: Path, old: str, new: str) -> None:
    """Replace text inside a gzipped file; the text must be there."""
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    write_gz(path, text.replace(old, new))


def scaled(n: int, scale: int) -> int:
    """Cells of a group of `n` at a scale."""
    return math.ceil(n / scale)


@cache
def symbols(n: int) -> tuple[str, ...]:
    """`n` human symbols that the bulk has, with a mouse ortholog and an Ensembl id, and a few mitochondrial ones."""
    known = set(gene_names.human_to_mouse()) & set(gene_names.ensembl_symbols("human").values())
    usable = [g for g in gdsc.load_bulk().genes if g in known and g not in NAMED]
    step = len(usable) // (n - len(NAMED) - len(MITO))
    return (*NAMED, *MITO, *usable[::step][: n - len(NAMED) - len(MITO)])


def drawn(genes: int, resistant: np.ndarray, seed: int) -> np.ndarray:
    """Counts (genes, cells): every tenth gene differs between the classes, mitochondrial ones are few."""
    rng = np.random.default_rng(seed)
    level = rng.lognormal(1.5, 0.7, genes)
    level[len(NAMED) : len(NAMED) + len(MITO)] = 2
    slope = np.where(np.arange(genes) % 10 == 0, rng.choice([-1.0, 1.0], genes), 0.0)
    depth = np.exp(rng.normal(0, 0.2, len(resistant)))
    return rng.poisson(level[:, None] * np.exp2(slope[:, None] * (resistant - 0.5)) * depth)


def table_text(values: np.ndarray, genes: list[str], cells: list[str], layout: dict, rows: int) -> str:
    """Matrix in the text of its layout; `rows` genes in all, those beyond the drawn ones without any count."""
    separator = layout["separator"]
    lines = [separator.join([layout["gene_column"], *cells])]
    lines += [separator.join([gene, *row]) for gene, row in zip(genes, values.astype(str), strict=True)]
    silent = separator + separator.join(["0"] * len(cells))
    lines += [f"silent{i:05d}{silent}" for i in range(rows - len(genes))]
    return "\n".join([*lines, ""])


def labels_of(patient: str) -> pd.DataFrame:
    """Embedded labels with the condition that they leave open: which sensitive cells were on holiday."""
    table = pd.read_csv(paths.DATA / f"labels_GSE117872_{patient}.csv")
    scores = paths.DATA / f"scdeal_scores_GSE117872_{patient}.csv.gz"
    # Without such a list (HN137) the last sensitive cells are taken; which ones they are is not known.
    listed = set(pd.read_csv(scores)["Cell id"]) if scores.exists() else set(table.cell)
    return table.assign(holiday=(table.sensitive == 1) & ~table.cell.isin(listed))


def patient_cells(patient: str, scale: int) -> pd.DataFrame:
    """Cells of one patient: name, culture, cluster."""
    sizes = HEAD_AND_NECK[patient]
    if "Holiday" not in sizes:
        names, cultures = [f"{patient}_{i}" for i in range(sizes["P"])], {"P": ("Sensitive", sizes["P"])}
        pools = {"Sensitive": names}
    else:
        table = labels_of(patient)
        sensitive = table.cell[(table.sensitive == 1) & ~table.holiday].tolist()
        pools = {"Sensitive": sensitive, "Resistant": table.cell[table.sensitive == 0].tolist(),
                 "Holiday": table.cell[table.holiday].tolist()}  # fmt: skip
        pools["Holiday"] = pools["Holiday"] or sensitive[-sizes["Holiday"] :]
        cultures = {c: ("Resistant" if "CR" in c else "Sensitive", n) for c, n in sizes.items() if c != "Holiday"}
        cultures["PCRDH"] = ("Holiday", sizes["Holiday"])
    rows = []
    for culture, (cluster, n) in cultures.items():
        rows += [(cell, patient + culture, cluster) for cell in pools[cluster][: scaled(n, scale)]]
        pools[cluster] = pools[cluster][n:]
    return pd.DataFrame(rows, columns=["groups", "cell_color", "cluster"]).assign(origin=patient)


def write_head_and_neck(folder: Path, patient: str = "HN120", scale: int = SCALE, genes: int = GENES, rows: int = 0):
    """Both files of GSE117872 with all three patients; returns what the set of one of them should be."""
    tables = [patient_cells(p, scale) for p in ("HN120", "HN137", "HN148")]
    info = pd.concat(tables, ignore_index=True)
    info[["", "patient_id", "drug_status", "pca_clusters", "pagoda_clusters"]] = "1"
    write_gz(folder / CELLINFO, info[HEAD_AND_NECK["columns"]].to_csv(sep="\t", index=False))
    reverse = info[::-1]  # the matrix has its own order
    counts = drawn(genes, (reverse["cluster"] == "Resistant").to_numpy(float), 1)
    values = np.round(1e6 * counts / counts.sum(0), 1)
    text = table_text(values, list(symbols(genes)), reverse["groups"].tolist(), HEAD_AND_NECK, rows)
    write_gz(folder / TPM, text)
    own = next(t for t, p in zip(tables, ("HN120", "HN137"), strict=False) if p == patient)
    table = pd.DataFrame({"cell": own["groups"], "sensitive": (own["cluster"] != "Resistant").astype(int)})
    table.to_csv(folder / "labels.csv", index=False)
    own.loc[own["cluster"] != "Holiday", ["groups"]].set_axis(["Cell id"], axis=1).to_csv(folder / "scores.csv")
    sizes = {k: scaled(n, scale) for k, n in HEAD_AND_NECK[patient].items()}
    holiday = sizes.pop("Holiday")
    strict = [sizes["P"] + sizes["M"], sizes["PCR"] + sizes["MCR"]]
    return Expected(
        sum(strict) + holiday, strict, [strict[0] + holiday, strict[1]],
        {"culture": {patient + k: n for k, n in sizes.items()}, "condition": {"Holiday": holiday}},
        genes=max(rows, genes), labels=str(folder / "labels.csv"),
        **({"listed": str(folder / "scores.csv"), "unlisted": "Holiday"} if patient == "HN120" else {}),
    )  # fmt: skip


def count_file(counts: dict[str, int]) -> bytes:
    """One gzipped HTSeq file, with its summary rows."""
    rows = [f"{gene}\t{n}" for gene, n in counts.items()] + [f"{row}\t77" for row in PROSTATE["summary_rows"]]
    return gzip.compress("\n".join([*rows, ""]).encode(), 1, mtime=0)


def write_tar(path: Path, members: dict[str, bytes | str]) -> None:
    """Write a tar; a member given as text is a symbolic link to it."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def read_tar(path: Path) -> dict[str, bytes]:
    """Members of a tar by name."""
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def write_prostate(folder: Path, scale: int = SCALE, genes: int = GENES) -> Expected:
    """The tar and the series matrix of GSE140440."""
    blocks = PROSTATE["blocks"]
    cells = [
        (f"GSM{b['first'] + i}", f"{b['title']}_{i + 1}") for b in blocks for i in range(scaled(b["cells"], scale))
    ]
    resistant = np.array(["_Res" in title for _, title in cells])
    ids = {symbol: identifier for identifier, symbol in gene_names.ensembl_symbols("human").items()}
    names = [ids[symbol] + PROSTATE["version"] for symbol in symbols(genes)]
    counts = drawn(genes, resistant.astype(float), 3)
    members = {
        PROSTATE["member"].format(accession=accession, title=title): count_file(dict(zip(names, column, strict=True)))
        for (accession, title), column in zip(cells, counts.T, strict=True)
    }
    write_tar(folder / TAR, members)
    about = {
        "geo_accession": [a for a, _ in cells],
        "title": [t for _, t in cells],
        "source_name_ch1": ["prostate"] * len(cells),
    }
    lines = ['!Series_title\t"Docetaxel"', ""]
    lines += [f"!Sample_{key}\t" + "\t".join(f'"{v}"' for v in values) for key, values in about.items()]
    write_gz(folder / SERIES, "\n".join([*lines, "!series_matrix_table_begin", '"ID_REF"', ""]))
    pd.DataFrame({"cell": [a for a, _ in cells], "sensitive": (~resistant).astype(int)}).to_csv(
        folder / "labels.csv", index=False
    )
    sizes = [scaled(b["cells"], scale) for b in blocks]
    both = [sizes[0] + sizes[2], sizes[1] + sizes[3]]
    return Expected(sum(sizes), both, both, blocks=sizes, labels=str(folder / "labels.csv"))


def wells(scale: int) -> pd.DataFrame:
    """Rows of the spreadsheet: plate, well, sample name, whether it passes the filter, whether it is a corner."""
    layout = LEUKAEMIA
    listed = pd.read_csv(paths.DATA / "scdeal_scores_GSE110894.csv.gz")["Cell id"].tolist()
    positions = [f"{row}{column}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]
    every = [f"{plate}_{well}" for plate in layout["plates"] for well in positions]
    corner = {cell: cell.split("_")[1] in layout["corners"] for cell in every}
    others = [cell for cell in every if cell not in set(listed) and not corner[cell]]
    known, sample, passes = sorted(listed, key=every.index), {}, set()
    for name, group in layout["groups"].items():
        pool = others if name == "EMPTY" else known
        chosen, rest = pool[: scaled(group["cells"], scale)], pool[group["cells"] :]
        pool[:] = rest
        sample |= dict.fromkeys(chosen, name)
        passes |= set(chosen)
    # Wells that fail the filter, and corners: what stood above them in the sheet goes on.
    failed = others[: scaled(layout["cells"] - layout["filtered"], scale)]
    kept = [cell for cell in every if cell in passes or cell in set(failed) or corner[cell]]
    names = pd.Series([sample.get(cell) for cell in kept], index=kept).ffill().bfill()
    return pd.DataFrame({"sample": names, "passes": [c in passes for c in kept], "corner": [corner[c] for c in kept]})


def write_leukaemia(folder: Path, scale: int = SCALE, genes: int = GENES, rows: int = 0) -> Expected:
    """Both files of GSE110894: three lines and a header, plates and sample names in merged cells."""
    table, layout = wells(scale), LEUKAEMIA
    book = openpyxl.Workbook()
    sheet, first = book.active, layout["header_row"]
    for line in range(first - 1):
        sheet.append([f"about the sort, line {line + 1}"])
    sheet.append(layout["columns"])
    for i, (cell, row) in enumerate(table.iterrows()):
        plate, well = cell.split("_")
        sheet.append([plate, f"{well}=TTAGCC", row["sample"], "yes", None if row["corner"] else str(i + 1)])
    plates = table.index.str.split("_").str[0]
    for letter, values in (("A", plates.to_numpy()), ("C", table["sample"].to_numpy())):
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
        for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
            if end - start > 1:
                sheet.merge_cells(f"{letter}{first + 1 + start}:{letter}{first + end}")  # keeps the value at the top
    book.save(folder / WELLS)
    measured = table[~table["corner"]]
    counts = drawn(genes, measured["sample"].str.contains("RESISTANT").to_numpy(float), 4)
    low = np.flatnonzero(~measured["passes"])
    counts[: genes - 150, low] = 0
    ids = {mouse: identifier for identifier, mouse in gene_names.ensembl_symbols("mouse").items()}
    to_mouse = gene_names.human_to_mouse() | {gene: f"mt-{gene[3:].capitalize()}" for gene in MITO}
    names = [ids[to_mouse[gene]] for gene in symbols(genes)]
    write_gz(folder / COUNTS, table_text(counts, names, measured.index.tolist(), layout, rows))
    listed = measured.index[measured["passes"] & (measured["sample"] != "EMPTY")]
    pd.DataFrame({"Cell id": listed}).to_csv(folder / "scores.csv", index=False)
    sizes = {group["condition"]: scaled(group["cells"], scale) for group in layout["groups"].values()}
    resistant, sensitive = (sum(sizes[c] for c in pair) for pair in
                            (("I-BET resistant", "I-BET withdrawal"), ("DMSO", "I-BET 400 nM")))  # fmt: skip
    return Expected(
        len(measured), [sensitive, resistant], [sensitive + sizes["101 CELL CONTROL"] + sizes["EMPTY"], resistant],
        {"culture": sizes}, filtered=sum(sizes.values()), genes=max(rows, genes), listed=str(folder / "scores.csv"),
        unlisted="EMPTY",
    )  # fmt: skip


WRITERS = {
    "DATA1": write_head_and_neck,
    "DATA2": partial(write_head_and_neck, patient="HN137"),
    "DATA3": write_prostate,
    "DATA4": write_leukaemia,
}


def write_all(folder: Path, genes: int) -> None:
    """Every file of the four sets with the true numbers of cells and rows, of which `genes` have values."""
    write_head_and_neck(folder, scale=1, genes=genes, rows=HEAD_AND_NECK["genes"])
    write_prostate(folder, scale=1, genes=genes)
    write_leukaemia(folder, scale=1, genes=genes, rows=LEUKAEMIA["genes"])


class Server:
    """A GEO in miniature on 127.0.0.1.

    `files` maps a file name to its bytes; `cut` maps a name to the number of bytes after which each connection is
    dropped; `fail_once` names files whose first request fails; `length` says whether the length is told; `requests`
    records the names.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.fail_once: set[str] = set()
        self.length = True
        self.requests: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.path.rpartition("/")[2]
        self.requests.append(name)
        if name not in self.files or name in self.fail_once:
            self.fail_once.discard(name)  # before the answer: the next request may come as soon as it is sent
            request.send_error(503 if name in self.files else 404)
            return
        content = self.files[name]
        request.send_response(200)
        if self.length:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: self.cut.get(name, len(content))])

    def close(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()


def load(name: str, folder: Path, expected: Expected):
    """What the loader makes of the files of a miniature, held to what is expected of that."""
    series = dataclasses.replace(geo.SERIES[name], expected=expected)
    with patch.object(paths, "DOWNLOADS", folder), patch.dict(geo.SERIES, {name: series}):
        with patch.object(geo, "verify", lambda path: path):
            return geo.load(name)
