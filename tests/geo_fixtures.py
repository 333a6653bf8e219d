"""Miniatures of the paper's GEO files, in the layouts that data-sources of the project describe, and a small server.

Each ``write_…`` puts the files of one series into a folder and returns what its loader should find.
"""

from __future__ import annotations

import gzip
import http.server
import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd

from atsdp_utils.geo import Expected

GENES = ["TP53", "UCHL1", "MT-ND1", "EDIL3"]
TPM, CELLINFO = "GSE117872_good_Data_TPM.txt.gz", "GSE117872_good_Data_cellinfo.txt.gz"
TAR, SERIES = "GSE140440_RAW.tar", "GSE140440_series_matrix.txt.gz"
COUNTS, WELLS = "GSE110894_gene_count.csv.gz", "GSE110894_SingleCellInfo.xlsx"
#: Mouse Trp53, Actb, mt-Nd1 and an id that no table knows.
MOUSE = ["ENSMUSG00000059552", "ENSMUSG00000029580", "ENSMUSG00000064341", "ENSMUSG99999999999"]


def write_gz(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def edit_gz(path: Path, old: str, new: str) -> None:
    """Replace text inside a gzipped file; the text must be there."""
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    write_gz(path, text.replace(old, new))


def write_head_and_neck(folder: Path) -> Expected:
    """Nine cells of HN120 (two on holiday) and one of HN137; the gene TP53 has two rows."""
    cultures = [
        "HN120P",
        "HN120P",
        "HN120M",
        "HN120PCR",
        "HN120PCR",
        "HN120MCR",
        "HN120MCR",
        "HN120PCRDH",
        "HN120PCRDH",
    ]
    clusters = ["Sensitive"] * 3 + ["Resistant"] * 4 + ["Holiday"] * 2
    info = pd.DataFrame({
        "groups": [f"RHH{2177 + i}" for i in range(9)] + ["RHH1479"],
        "cell_color": [*cultures, "HN137P"], "patient_id": ["1"] * 10, "origin": ["HN120"] * 9 + ["HN137"],
        "drug_status": ["none"] * 10, "cluster": [*clusters, "Sensitive"],
    })  # fmt: skip
    write_gz(folder / CELLINFO, info.to_csv(sep="\t", index=False))
    values = np.arange(50, dtype=float).reshape(5, 10)  # value = 10 * row + column: easy to check by hand
    table = pd.DataFrame(values, index=[*GENES, "TP53"], columns=info["groups"][::-1])
    write_gz(folder / TPM, table.to_csv(sep="\t", index_label="gene"))
    pd.DataFrame({"cell": info["groups"][:9], "sensitive": [1, 1, 1, 0, 0, 0, 0, 1, 1]}).to_csv(
        folder / "labels.csv", index=False
    )
    pd.DataFrame({"Cell id": info["groups"][:7]}).to_csv(folder / "scores.csv", index=False)
    groups = {"culture": {"HN120P": 2, "HN120M": 1, "HN120PCR": 2, "HN120MCR": 2}, "cluster": {"Holiday": 2}}
    return Expected(9, groups, (5, 4, 0), folder / "labels.csv", folder / "scores.csv", "cluster=Holiday")


def count_file(shift: int) -> bytes:
    rows = [f"{gene}\t{10 * i + shift}" for i, gene in enumerate(GENES)]
    return gzip.compress("\n".join([*rows, "__no_feature\t77", "__ambiguous\t5", ""]).encode(), mtime=0)


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


def write_prostate(folder: Path) -> Expected:
    """Four cells: DU-145 and PC-3, parental and resistant; the series matrix lists a fifth sample."""
    cells = {
        "GSM4161452": "DU145 cell 1|DU-145|cell line: DU145|treatment: parental (docetaxel-sensitive)",
        "GSM4161524": "DU145_DR_1|DU-145|cell line: DU145|treatment: docetaxel resistant",
        "GSM4161600": "PC3 cell 7|PC-3|cell line: PC3|treatment: parental",
        "GSM4161700": "PC3Res 2|PC-3|cell line: PC3|treatment: Res, derived from parental cells",
        "GSM4169999": "bulk|DU-145|cell line: DU145|treatment: parental",
    }
    write_tar(folder / TAR, {f"{cell}_c{i}.counts.txt.gz": count_file(i) for i, cell in enumerate(list(cells)[:4])})
    fields = [text.split("|") for text in cells.values()]
    keys = ["!Sample_title", "!Sample_source_name_ch1", "!Sample_characteristics_ch1", "!Sample_characteristics_ch1"]
    lines = ['!Series_title\t"Docetaxel"', "", "!Sample_geo_accession\t" + "\t".join(f'"{cell}"' for cell in cells)]
    for key, values in zip(keys, zip(*fields, strict=True), strict=True):
        lines.append(key + "\t" + "\t".join(f'"{value}"' for value in values))
    write_gz(folder / SERIES, "\n".join([*lines, "!series_matrix_table_begin", '"ID_REF"', ""]))
    pd.DataFrame({"cell": list(cells)[:4], "sensitive": [1, 0, 1, 0]}).to_csv(folder / "labels.csv", index=False)
    return Expected(4, {}, (2, 2, 0), folder / "labels.csv")


def write_leukaemia(folder: Path) -> Expected:
    """Seven wells of two plates; plate and sample name stand in merged cells, three lines precede the header."""
    names = [
        "DMSO",
        "DMSO",
        "I-BET 400 NMOL",
        "BET RESISTANT CELLS",
        "BET RESISTANT WITHDRAWAL",
        "101 CELL CONTROL",
        "EMPTY ",
    ]
    plates = ["RPI1"] * 4 + ["RPI3"] * 3
    wells = ["A3=TTAGCC", "A4=TTAGGC", "A5=CCATGA", "A6=ACATGA", "A3=TTAGCC", "A4=TTAGGC", "A5=CCATGA"]
    book = openpyxl.Workbook()
    sheet = book.active
    for line in (["Single cells"], [], ["sorted"], ["Plate#", "Well position", "Sample name"]):
        sheet.append(line)
    for row in zip(plates, wells, names, strict=True):
        sheet.append(row)
    for block in ("A5:A8", "A9:A11", "C5:C6"):
        sheet.merge_cells(block)  # keeps only the value at the top
    book.save(folder / WELLS)
    cells = [f"{plate}_{well.split('=')[0]}" for plate, well in zip(plates, wells, strict=True)]
    values = np.arange(28).reshape(4, 7)
    write_gz(folder / COUNTS, pd.DataFrame(values, index=MOUSE, columns=cells).to_csv())
    pd.DataFrame({"Cell id": cells[:6]}).to_csv(folder / "scores.csv", index=False)
    groups = {
        "DMSO": 2,
        "I-BET 400 nM": 1,
        "I-BET resistant": 1,
        "I-BET withdrawal": 1,
        "101 CELL CONTROL": 1,
        "EMPTY": 1,
    }
    return Expected(7, {"culture": groups}, (3, 2, 2), None, folder / "scores.csv", "culture=EMPTY")


WRITERS = {"DATA1": write_head_and_neck, "DATA3": write_prostate, "DATA4": write_leukaemia}


class Server:
    """A GEO in miniature on 127.0.0.1.

    `files` maps a file name to its bytes; `cut` maps a name to the number of bytes after which each connection is
    dropped; `ranges` says whether Range is honoured; `requests` records (name, Range header).
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
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
        name, asked = request.path.rpartition("/")[2], request.headers.get("Range")
        self.requests.append((name, asked))
        if name not in self.files:
            request.send_error(404)
            return
        content = self.files[name]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start and start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start : start + self.cut.get(name, len(content))])

    def close(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()
