"""Every reported value and claim beside what a run found: rules and verdicts.

A claim about the paper's cells gets a verdict only from rows of tier ``geo``. What twins and the other real cells say
is in :mod:`atsdp_utils.findings`, in words of its own, so that no verdict can be mistaken for another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from atsdp_utils import audit, config, paths

HOLDS, FAILS, UNTESTED, ILL_POSED = "holds", "does not hold", "cannot be tested here", "ill-posed"
MISSING = "not computed in this run"
VERDICTS = (HOLDS, FAILS, UNTESTED, ILL_POSED, MISSING)
OURS = "ATSDP-NET"


class Measured(NamedTuple):
    """What a run found for a claim; `holds` is None where the finding cannot decide."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    holds: bool | None = None
    note: str = ""


class Missing(Exception):
    """An output that a rule needs is not there."""


@dataclass(frozen=True)
class Outputs:
    """The tables of one run, read when asked for; with a `tier`, only its rows of the tables that name tiers."""

    folder: Path
    tier: str = ""

    def table(self, name: str, **where) -> pd.DataFrame:
        """Rows of ``<name>.csv`` with the given values (an empty string also matches a missing one).

        Raises
        ------
        Missing
            If there is no such file, column or row.
        """
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise Missing(f"{name}.csv")
        rows = pd.read_csv(path)
        if self.tier and "tier" in rows:
            rows = rows[rows["tier"] == self.tier]
        for column, value in where.items():
            if column not in rows:
                raise Missing(f"{name}.csv has no column {column}")
            found = rows[column].fillna("") if value == "" else rows[column]
            rows = rows[found.isin(value) if isinstance(value, (list, tuple)) else found.astype(str) == str(value)]
        if rows.empty:
            raise Missing(f"{name}.csv has no row {where}")
        return rows

    def one(self, name: str, **where) -> pd.Series:
        """The first such row."""
        return self.table(name, **where).iloc[0]


def _score(out: Outputs, dataset: str, metric: str = "auc", protocol: str = "S") -> pd.Series:
    return out.one("table3", dataset=dataset, model=OURS, setting="", protocol=protocol, metric=metric)


# --- rules: one a kind of claim. c is the claim's row, with quoted value, data set and argument -----------------------


def within_interval(out: Outputs, c) -> Measured:
    """The reported mean lies in the interval of the mean found here."""
    r = _score(out, c.dataset, c.argument)
    return Measured(r["mean"], r.ci_low, r.ci_high, r.ci_low <= float(c.quoted) <= r.ci_high)


def stable(out: Outputs, c) -> Measured:
    """The standard deviation over repeats is no larger than twice the reported one; undecided with one repeat."""
    r = _score(out, c.dataset, c.argument)
    decided = r["std_over"] == "repeats"
    note = "" if decided else "one repeat only: the profile paper has ten"
    return Measured(r["std"], holds=bool(r["std"] <= 2 * float(c.quoted)) if decided else None, note=note)


def highest(out: Outputs, c) -> Measured:
    """Of the paper's four sets, this one has the highest mean."""
    rows = out.table("table3", model=OURS, setting="", protocol="S", metric=c.argument, tier="geo")
    best, r = rows.loc[rows["mean"].idxmax(), "dataset"], _score(out, c.dataset, c.argument)
    return Measured(r["mean"], r.ci_low, r.ci_high, best == c.dataset, f"highest on {best}")


def above_half(out: Outputs, c) -> Measured:
    """The whole interval of the AUC lies above one half."""
    r = _score(out, c.dataset)
    return Measured(r["mean"], r.ci_low, r.ci_high, bool(r.ci_low > 0.5))


def sampling(out: Outputs, c) -> Measured:
    """The first strategy's interval lies above the second one's mean."""
    first, second = (
        out.one("table1", dataset=c.dataset, setting=s, protocol="S", metric="auc") for s in c.argument.split()
    )
    gap = first["mean"] - second["mean"]
    low, high = first.ci_low - second["mean"], first.ci_high - second["mean"]
    return Measured(gap, low, high, bool(low > 0), "difference of AUC")


def best_heads(out: Outputs, c) -> Measured:
    """The number of heads has the highest mean AUC, and the numbers can be told apart from shuffled ones."""
    rows = out.table("ablation_heads", dataset=c.dataset, metric="auc", protocol="S")
    rows = rows[rows["setting"].astype(str) != "linear"]
    best, r = rows.loc[rows["mean"].idxmax()], rows[rows["setting"].astype(str) == c.argument].iloc[0]
    told = out.one("heads_permutation", dataset=c.dataset)["p_holm"] < 0.05
    note = f"highest with {best['setting']}; the numbers can{'' if told else 'not'} be told apart"
    return Measured(r["mean"], r.ci_low, r.ci_high, bool(told and str(best["setting"]) == c.argument), note)


def attention(out: Outputs, c) -> Measured:
    """The AUC gains over no attention, significantly after Holm."""
    r = out.one("heads_tests", dataset=c.dataset, setting=c.argument, reference="0", metric="auc")
    return Measured(r.difference, r.ci_low, r.ci_high, bool(r.difference > 0 and r.p_holm < 0.05), "difference of AUC")


def beats_all(out: Outputs, c) -> Measured:
    """Each of the eight has a lower AUC, significantly after Holm; shown is the closest."""
    rows = out.table("baselines_against_atsdp", dataset=c.dataset, protocol="S", model=_eight())
    worse = (rows["difference"] < 0) & (rows["p_holm"] < 0.05)
    r = rows.loc[rows["difference"].idxmax()]
    note = f"significantly ahead of {worse.sum()} of {len(rows)}; shown against {r['model']}"
    return Measured(-r.difference, -r.ci_high, -r.ci_low, bool(worse.all() and len(rows) == 8), note)


def correlation(out: Outputs, c) -> Measured:
    """The reported correlation lies in the interval of the one found here."""
    r = out.one(c.output, list=c.argument)
    return Measured(r.r, r.r_low, r.r_high, bool(r.r_low <= float(c.quoted) <= r.r_high))


def random_lists(out: Outputs, c) -> Measured:
    """Both lists are beyond random genes at the reported level; the table has harder nulls."""
    p = out.table("gene_score_nulls", null="plain")["p"].max()
    return Measured(p, holds=bool(p <= float(c.quoted)), note="largest p of both lists")


def key_genes(out: Outputs, c) -> Measured:
    """All of the named genes are among the ten first of their list."""
    named = out.table("named_genes", papers_list=c.argument)["gene"]
    found = named.isin(out.table("key_genes", list=c.argument)["gene"])
    return Measured(found.sum(), holds=bool(found.all()), note=f"of {len(named)} genes in the list")


def enriched(out: Outputs, c) -> Measured:
    """A gene set with such a name passes a false discovery rate of 5 %."""
    rows = out.table("key_gene_enrichment")
    p = rows.loc[rows["set"].str.contains(c.argument), "padj"].min()
    return Measured(p, holds=bool(p < 0.05), note="smallest adjusted p among the sets shown")


def pseudotime(out: Outputs, c) -> Measured:
    """P(resistant) correlates positively with a pseudotime whose root saw no label."""
    r = out.one("pseudotime_correlations", root="without labels", **{"with": "P(resistant)"})
    return Measured(r.rho, r.ci_low, r.ci_high, bool(r.ci_low > 0))


def genes_along(out: Outputs, c) -> Measured:
    """The paper's genes run in the direction of their list."""
    rows = out.table("genes_along_pseudotime", named_by="paper")
    rows = rows[rows["gene"].isin(["ZBTB48", "NEK6", "UCHL1", "GNGT1"])]
    right = rows["rho_with_pseudotime"].gt(0).eq(rows["list"].eq("resistant"))
    return Measured(right.sum(), holds=bool(right.all() and len(rows) == 4), note=f"of {len(rows)} genes measured")


def key_against_deg(out: Outputs, c) -> Measured:
    """On held-out cells the better list of key genes has a larger median effect than the differential genes."""
    rows = out.table("key_genes_against_degs", cells="held-out cells").set_index("list")["median"]
    gap = rows[rows.index.str.startswith("key")].max() - rows["differential genes"]
    return Measured(gap, holds=bool(gap > 0), note="difference of median Cliff's delta, held-out cells")


def sensitive_better(out: Outputs, c) -> Measured:
    """The sensitive list's correlation is larger, with intervals apart."""
    a, b = (out.one(c.output, list=name) for name in ("sensitive", "resistant"))
    return Measured(a.r - b.r, a.r_low - b.r_high, a.r_high - b.r_low, bool(a.r_low > b.r_high))


# --- rules that need public files or the printed numbers only --------------------------------------------------------


def _sizes() -> dict[str, tuple[int, int]]:
    return {d: n for (d, counting), n in audit.CLASS_SIZES.items() if counting == "labelled cells"}


def most_imbalanced(out: Outputs, c) -> Measured:
    """Its ratio of classes is the largest of the four."""
    ratio = {d: max(n) / min(n) for d, n in _sizes().items()}
    worst = max(ratio, key=ratio.get)
    return Measured(
        ratio[c.dataset], holds=worst == c.dataset, note=f"ratio of classes; {worst} has {ratio[worst]:.2f}"
    )


def resistant_rare(out: Outputs, c) -> Measured:
    """Fewer resistant than sensitive cells."""
    sensitive, resistant = _sizes()[c.dataset]
    share = resistant / (sensitive + resistant)
    return Measured(share, holds=resistant < sensitive, note="share resistant, with drug-holiday cells as sensitive")


def ibet_cells(out: Outputs, c) -> Measured:
    """As many labelled cells as the number quoted."""
    n = sum(_sizes()[c.dataset])
    return Measured(n, holds=n == int(c.quoted), note="cells with a label; the rest are control and empty wells")


def bulk_lines(out: Outputs, c) -> Measured:
    """The public label table has as many rows."""
    from atsdp_utils import datasets

    n = len(datasets.label_table(both_databases=True))
    return Measured(n, holds=n == int(c.quoted), note="rows of the public label table")


def bulk_drugs(out: Outputs, c) -> Measured:
    """The public label table has fewer drugs; the paper's file is unknown."""
    from atsdp_utils import datasets

    return Measured(len(datasets.drugs()), note=c.note)


def largest_printed(out: Outputs, c) -> Measured:
    """ATSDP-NET has the largest printed value in every row of Table 4."""
    four = audit.reported().query("where == 'Table 4'")
    best = four.loc[four.groupby(["dataset", "metric"])["value"].idxmax(), "model"]
    return Measured(
        (best == OURS).sum(), holds=bool((best == OURS).all()), note=f"of {len(best)} printed rows; {c.note}"
    )


def evaluated_alike(out: Outputs, c) -> Measured:
    """The rows of Table 4 that are one confusion matrix were all averaged over the classes in one way."""
    rows = audit.table4_rows().query("one_unit")
    ways = rows.groupby(["auc", *(f"{m}_averaging" for m in audit.SCORES)]).ngroups
    return Measured(ways, holds=ways == 1, note=c.note)


def f1_one_averaging(out: Outputs, c) -> Measured:
    """No F1 of Tables 3 and 4 is larger than one averaging with its precision and recall allows."""
    rows = audit.printed_rows().query("where in ('Table 3', 'Table 4')")
    above = sum(audit.not_one_averaging(r).flagged for r in rows.itertuples())
    return Measured(above, holds=above == 0, note=f"of {len(rows)} printed rows: {c.note}")


RULES: dict[str, Callable[[Outputs, object], Measured]] = {
    f.__name__: f
    for f in (
        within_interval, stable, highest, above_half, sampling, best_heads, attention, beats_all, correlation,
        random_lists, key_genes, enriched, pseudotime, genes_along, key_against_deg, sensitive_better, most_imbalanced,
        resistant_rare, ibet_cells, bulk_lines, bulk_drugs, largest_printed, evaluated_alike,
        f1_one_averaging,
    )
}  # fmt: skip


def _eight() -> list[str]:
    from atsdp_utils.baselines import REGISTRY

    return [name for name, b in REGISTRY.items() if b.paper_name]


def claims() -> pd.DataFrame:
    """The paper's claims, one row each (``data/paper/claims.csv``); empty fields are empty strings."""
    return pd.read_csv(paths.PAPER / "claims.csv", dtype=str, keep_default_na=False)


COLUMNS = ["id", "where", "claim", "dataset", "metric", "quoted", "mean", "ci_low", "ci_high", "tier", "protocol",
           "verdict", "note", "output", "page"]  # fmt: skip


def judge_claims(out: Outputs, data: str) -> pd.DataFrame:
    """Every claim with its verdict; a claim about the paper's cells gets one from tier ``geo`` only."""
    out, rows = replace(out, tier="geo"), []
    for c in claims().itertuples():
        tier, found, verdict = "", Measured(note=c.note), UNTESTED
        if c.scope == "wording":
            verdict = ILL_POSED
        elif c.scope == "public files" or data == "geo":
            tier = "geo" if c.scope == "paper's cells" else "reported"
            try:
                found = RULES[c.rule](out, c)
                verdict = {True: HOLDS, False: FAILS, None: UNTESTED}[
                    None if found.holds is None else bool(found.holds)
                ]
            except Missing as gone:
                verdict, found = MISSING, Measured(note=str(gone))
        else:
            found = Measured(note="needs the paper's own cells: DATA=geo")
        protocol = "S" if c.output in ("table1", "table3", "ablation_heads", "heads_tests") else ""
        rows.append((c.id, c.section, c.claim, c.dataset, "", c.quoted, *found[:3], tier, protocol, verdict,
                     found.note or c.note, c.output, c.page))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


#: Place in the paper to (output, page) that holds the value's counterpart.
VALUE_OUTPUTS = {"Table 1": ("table1", "nb-05"), "Figure 2b": ("table3", "nb-05"), "Table 3": ("table3", "nb-05"),
                 "Figure 3": ("ablation_heads", "nb-06"), "Table 4": ("table4", "nb-07")}  # fmt: skip


def _counterpart(out: Outputs, r) -> pd.Series:
    output, _ = VALUE_OUTPUTS[r.where]
    key = {"dataset": r.dataset, "protocol": "S", "metric": r.metric}
    if r.where == "Table 1":
        key["setting"] = r.model.split(", ")[1]
    elif r.where == "Figure 3":
        key["setting"] = config.TABLE2[r.dataset].heads
    elif r.where == "Table 4" and r.model != OURS:
        from atsdp_utils.baselines import REGISTRY

        name = next(b.label or n for n, b in REGISTRY.items() if b.paper_name == r.model)
        key["model"] = name
    else:
        key |= {"model": OURS, "setting": ""}
    return out.one(output, **key)


def judge_values(out: Outputs, data: str) -> pd.DataFrame:
    """Every printed score; it holds where it lies in the interval found on the same cells under protocol S.

    An F1 that is not of one averaging with its precision and recall says so in its note.
    """
    printed = audit.printed_rows().itertuples()
    mixed = {(r.where, r.dataset, r.model) for r in printed if audit.not_one_averaging(r).flagged}
    out, rows = replace(out, tier="geo"), []
    for r in audit.reported().query(f"where in {list(VALUE_OUTPUTS)}").itertuples():
        output, page = VALUE_OUTPUTS[r.where]
        found, verdict, note, tier = Measured(), UNTESTED, "needs the paper's own cells: DATA=geo", ""
        if data == "geo":
            tier, note = "geo", ""
            try:
                s = _counterpart(out, r)
                found = Measured(s["mean"], s.ci_low, s.ci_high)
                verdict = HOLDS if found.low <= r.value <= found.high else FAILS
            except Missing as gone:
                verdict, note = MISSING, str(gone)
        if r.metric == "f1" and (r.where, r.dataset, r.model) in mixed:
            note = "; ".join(filter(None, [note, "not with one averaging (ambiguity 26)"]))
        name = "-".join([r.where, r.dataset, r.model, r.metric]).lower().replace(", ", "-").replace(" ", "")
        rows.append((name, r.where, r.model, r.dataset, r.metric, f"{r.value:g}", *found[:3], tier, "S", verdict, note,
                     output, page))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def scorecard(out: Outputs, data: str) -> pd.DataFrame:
    """Claims, then values; column ``kind`` tells them apart."""
    parts = (judge_claims(out, data).assign(kind="claim"), judge_values(out, data).assign(kind="value"))
    return pd.concat(parts, ignore_index=True)[["kind", *COLUMNS]]


def title(page: str) -> str:
    """``nb-05`` as ``05 cv evaluation``, from the name of its notebook; the number alone where there is none."""
    found = sorted(paths.NOTEBOOKS.glob(f"{page[3:]}_*.ipynb"))
    return found[0].stem.replace("_", " ") if found else page[3:]


def link(page: str) -> str:
    """HTML link to the page in the book; plain text where the notebook is not there."""
    found = sorted(paths.NOTEBOOKS.glob(f"{page[3:]}_*.ipynb"))
    return f'<a href="{found[0].stem}.html">{page[3:]}</a>' if found else page[3:]


def interval(mean: float, low: float, high: float) -> str:
    """Mean and interval as text; empty where nothing was computed."""
    if np.isnan(mean):
        return ""
    return f"{mean:.4g}" if np.isnan(low) or np.isnan(high) else f"{mean:.3f} ({low:.3f} to {high:.3f})"
