"""The drugs of the bulk label table and their names. Light to import: a typing error is told at once."""

import difflib
import re
from collections.abc import Sequence

import pandas as pd

from atsdp_utils.data import gdsc
from atsdp_utils.foundation import checksums
from atsdp_utils.own_cells.cellfile import InputError

ALL = "all"


def synonyms() -> dict[str, str]:
    """Drug of the label table -> its other names: international names, developers' codes, trade names, no relatives."""
    return checksums.table("drug_names.csv", index_col="drug")["other_names"].to_dict()


def bare(name: str) -> str:
    """A drug's name without case, punctuation and the X that R puts before a digit."""
    return re.sub(r"^X(?=\d)", "", re.sub(r"[^A-Z0-9]", "", name.upper()))


def find(names: Sequence[str]) -> list[str]:
    """Drugs by any of their names, each once, in the order given; ``all`` stands for every drug of the table."""
    if any(name.strip().lower() == ALL for name in names):
        return gdsc.drugs()
    return list(dict.fromkeys(find_drug(name) for name in names))


def find_drug(name: str) -> str:
    """The label table's spelling of a drug; PLX-4720, plx4720 and PLX.4720 are one, Taxotere is docetaxel."""
    known = {bare(d): d for d in gdsc.drugs()}
    other = {bare(s): d for d, names in synonyms().items() for s in names.split(",")}
    if found := (other | known).get(bare(name)):
        return found
    near = difflib.get_close_matches(bare(name), known, n=4, cutoff=0.5)
    near += [k for k in known if bare(name) and bare(name) in k and k not in near]
    offer = f"Did you mean {', '.join(known[k] for k in near)}? " if near else ""
    raise InputError(f"--drug {name}: not among the {len(known)} drugs. {offer}'atsdp drugs' lists all.")


def drug_table() -> pd.DataFrame:
    """One row a drug: sensitive and resistant lines with expression."""
    labels = gdsc.label_table().reindex(gdsc.load_bulk().lines)
    table = pd.DataFrame({"sensitive": (labels == 1).sum(), "resistant": (labels == 0).sum()})
    return table.rename_axis("drug").reset_index()
