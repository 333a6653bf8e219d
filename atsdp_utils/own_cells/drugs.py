"""The drugs of the bulk label table and their names. Light to import: a typing error is told at once."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from atsdp_utils.data import gdsc
from atsdp_utils.foundation import cache, config, paths, runtime
from atsdp_utils.own_cells.readers import InputError

#: Other names of the label table's drugs: international names, developers' codes and trade names of the same substance,
#: listed by hand, not copied from a data set. No relatives: vemurafenib (PLX4032) is not PLX-4720, JQ1 not I-BET-762.
SYNONYMS: dict[str, str] = {
    "AFATINIB": "BIBW2992, Gilotrif, Giotrif", "ALISERTIB": "MLN8237", "ALPELISIB": "BYL719, Piqray",
    "AXITINIB": "AG-013736, Inlyta", "AZD2014": "vistusertib", "AZD4547": "fexagratinib",
    "AZD5363": "capivasertib, Truqap", "BORTEZOMIB": "Velcade, PS-341", "BUPARLISIB": "BKM120", "CARMUSTINE": "BCNU",
    "CEDIRANIB": "AZD2171, Recentin", "CISPLATIN": "CDDP, cisplatinum, Platinol",
    "CRIZOTINIB": "PF-02341066, PF-2341066, Xalkori", "CYCLOPHOSPHAMIDE": "Cytoxan, Endoxan",
    "CYTARABINE": "Ara-C, cytosine arabinoside", "DABRAFENIB": "GSK2118436, Tafinlar",
    "DASATINIB": "BMS-354825, Sprycel", "DINACICLIB": "SCH 727965", "DOCETAXEL": "Taxotere", "ENTINOSTAT": "MS-275",
    "EPIRUBICIN": "Ellence", "ERLOTINIB": "OSI-774, Tarceva", "FLUDARABINE": "Fludara",
    "FORETINIB": "GSK1363089, XL880", "FULVESTRANT": "Faslodex, ICI 182780", "GEFITINIB": "ZD1839, Iressa",
    "GEMCITABINE": "Gemzar", "I.BET.762": "molibresib, GSK525762, GSK525762A", "IBRUTINIB": "PCI-32765, Imbruvica",
    "IRINOTECAN": "CPT-11, Camptosar", "LAPATINIB": "GW572016, Tykerb, Tyverb", "LINSITINIB": "OSI-906",
    "MITOXANTRONE": "Novantrone", "MK.1775": "adavosertib, AZD1775", "NAVITOCLAX": "ABT-263", "NELARABINE": "Arranon",
    "NILOTINIB": "AMN107, Tasigna", "NIRAPARIB": "MK-4827, Zejula", "OLAPARIB": "AZD2281, KU-0059436, Lynparza",
    "OSIMERTINIB": "AZD9291, Tagrisso, mereletinib", "OTX015": "birabresib, MK-8628", "OXALIPLATIN": "Eloxatin",
    "PACLITAXEL": "Taxol", "PALBOCICLIB": "PD-0332991, Ibrance", "PEVONEDISTAT": "MLN4924",
    "RIBOCICLIB": "LEE011, Kisqali", "RUXOLITINIB": "INCB018424, Jakafi, Jakavi", "SELUMETINIB": "AZD6244, ARRY-142886",
    "SORAFENIB": "BAY 43-9006, Nexavar", "TALAZOPARIB": "BMN 673, Talzenna", "TAMOXIFEN": "Nolvadex",
    "TASELISIB": "GDC-0032", "TEMOZOLOMIDE": "Temodar, Temodal", "TENIPOSIDE": "VM-26", "TOPOTECAN": "Hycamtin",
    "TOZASERTIB": "VX-680, MK-0457", "TRAMETINIB": "GSK1120212, Mekinist", "UPROSERTIB": "GSK2141795",
    "VE.822": "berzosertib, VX-970, M6620", "VENETOCLAX": "ABT-199, GDC-0199, Venclexta", "VINCRISTINE": "Oncovin",
    "VINORELBINE": "Navelbine", "VORINOSTAT": "SAHA, Zolinza, suberoylanilide hydroxamic acid",
    "X5.FLUOROURACIL": "5-FU, fluorouracil",
}  # fmt: skip


def _bare(name: str) -> str:
    """A drug's name without case, punctuation and the X that R puts before a digit."""
    return re.sub(r"^X(?=\d)", "", re.sub(r"[^A-Z0-9]", "", name.upper()))


def find_drug(name: str) -> str:
    """The label table's spelling of a drug; PLX-4720, plx4720 and PLX.4720 are one, Taxotere is docetaxel.

    Raises
    ------
    InputError
        If no drug is called so, with the names that come near.
    """
    known = {_bare(d): d for d in gdsc.drugs()}
    other = {_bare(s): d for d, synonyms in SYNONYMS.items() for s in synonyms.split(",")}
    if found := (other | known).get(_bare(name)):
        return found
    near = difflib.get_close_matches(_bare(name), known, n=4, cutoff=0.5)
    near += [k for k in known if _bare(name) and _bare(name) in k and k not in near]
    offer = f"Did you mean {', '.join(known[k] for k in near)}? " if near else ""
    raise InputError(f"--drug {name}: not among the {len(known)} drugs. {offer}'atsdp drugs' lists all.")


def drug_table() -> pd.DataFrame:
    """One row a drug: sensitive and resistant lines with expression, and held-out AUC of earlier runs (NaN: none)."""
    rows = []
    for drug in gdsc.drugs():
        y = gdsc.load_bulk(drug).y
        path = held_out_file(drug)
        auc = json.loads(path.read_text())["auc"] if path.exists() else np.nan
        rows.append((drug, int((y == 1).sum()), int((y == 0).sum()), auc))
    return pd.DataFrame(rows, columns=["drug", "sensitive", "resistant", "held_out_auc"])


def held_out_file(drug: str) -> Path:
    """File with the AUC on held-out lines of the last prediction for a drug, with these lines, labels and code."""
    code = (
        cache.code("own_cells.predict.SideBySide", "own_cells.predict.held_out_auc", "data.gdsc.bulk_source"),
        runtime.precision(),
    )
    key = cache.key(gdsc.bulk_key(drug), config.RECIPES[config.CHOSEN], *code)
    return paths.CACHE / "held-out" / f"{drug}-{key}.json"
