"""Every reported value and claim beside what a run found: rules and two kinds of verdicts.

Whether a *claim* is supported and whether a *number* is reproduced are two questions. A claim is a direction or a level
(``threshold`` of ``claims.csv``) with a ``margin``, the smallest difference that matters; a rule turns tables into
effects with 95 % intervals, and :func:`decide` compares the two. Where the paper leaves open whether cell labels were
used (ambiguity 1), a rule reads protocol S and protocol U, and a verdict needs both.

A claim about the paper's cells gets a verdict only from rows of tier ``geo``. What twins and the other real cells say
is in :mod:`atsdp_utils.reporting.findings`, in words of its own, so that no verdict can be mistaken for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as sps
from statsmodels.stats.proportion import proportion_confint

from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting import audit

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
FAILS, UNTESTED, ILL_POSED = "does not hold", "cannot be tested here", "ill-posed"
MISSING = "not computed in this run"
#: Words for a claim. The first three come from an effect and its interval, or from plain arithmetic on public files or
#: printed numbers; the fourth says that descriptions, equations or printed numbers say otherwise.
VERDICTS = (SUPPORTED, REFUTED, UNDECIDED, FAILS, UNTESTED, ILL_POSED, MISSING)
YES, NO, NOT_TESTED = "yes", "no", "not tested"
#: Words for a printed number: is it reproduced?
REPRODUCED = (YES, NO, UNDECIDED, NOT_TESTED, ILL_POSED, MISSING)
OURS = "ATSDP-NET"
#: The paper's folds (section 3.2), by which the number of scores is divided to count repeats.
PAPER_FOLDS = 10
#: Printed scores are reproduced to within this, the margin of the claims about AUC: about two standard errors of an AUC
#: of .85 (Hanley and McNeil 1982) on the 548 cells of DATA1.
MARGIN = 0.05


@cache
def _limit(df: float, tests: int = 1) -> float:
    """Half the width of an interval in standard errors, for so many tests at once."""
    return float(sps.t.isf(0.025 / tests, df))


class Effect(NamedTuple):
    """An estimate with its 95 % limits and the degrees of freedom behind them; `room` is how far it could rise."""

    value: float
    low: float = np.nan
    high: float = np.nan
    df: float = np.inf
    room: float = np.inf

    def widened(self, tests: int) -> Effect:
        """With limits that hold for so many tests at once (Bonferroni)."""
        if tests == 1 or np.isnan(self.df):
            return self
        factor = _limit(self.df, tests) / _limit(self.df)
        return self._replace(
            low=self.value - factor * (self.value - self.low), high=self.value + factor * (self.high - self.value)
        )

    def negated(self) -> Effect:
        """Of the opposite sign, so that more is always in favour of the claim."""
        return self._replace(value=-self.value, low=-self.high, high=-self.low)


class Found(NamedTuple):
    """What a rule found: the effect that is shown, the two verdicts, a note, and what each of several readings gave."""

    effect: Effect
    verdict: str
    reproduced: str = ""
    note: str = ""
    by_reading: str = ""


class Missing(Exception):
    """An output that a rule needs is not there."""


class Untestable(Exception):
    """What a claim speaks of is not in the data, whatever the run."""


def decide(effects: Sequence[Effect], above: float, below: float) -> str:
    """Verdict on a claim that all of the effects are large.

    Supported if every interval lies above `above`; refuted if one lies below `below`, with limits that hold for all of
    them at once; undecided otherwise. For a claim about a level both are the threshold less the margin. For a claim
    that something is *better*, `above` is zero and `below` the margin: refuted is an advantage that matters. Where the
    other one is so good that there is no room for such an advantage, nothing refutes it.
    """
    if all(e.low > above for e in effects):
        return SUPPORTED
    if any(e.widened(len(effects)).high < below and e.room >= below for e in effects):
        return REFUTED
    return UNDECIDED


def reproduces(effect: Effect, printed: float, margin: float) -> str:
    """Whether a printed number is found again: *yes* only if the whole interval lies within the margin around it."""
    if effect.low >= printed - margin and effect.high <= printed + margin:
        return YES
    return NO if effect.high < printed - margin or effect.low > printed + margin else UNDECIDED


@dataclass(frozen=True)
class Outputs:
    """The tables of one run, read when asked for; with a `tier`, only its rows of the tables that name tiers."""

    folder: Path
    tier: str = ""

    def read(self, name: str) -> pd.DataFrame:
        """The whole of ``<name>.csv``."""
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise Missing(f"{name}.csv")
        return pd.read_csv(path)

    def table(self, name: str, **where) -> pd.DataFrame:
        """Rows of ``<name>.csv`` with the given values (an empty string also matches a missing one).

        Raises
        ------
        Missing
            If there is no such file, column or row.
        """
        rows = self.read(name)
        keep = np.ones(len(rows), dtype=bool)
        if self.tier and "tier" in rows:
            keep &= (rows["tier"] == self.tier).to_numpy()
        for column, value in where.items():
            if column not in rows:
                raise Missing(f"{name}.csv has no column {column}")
            found = rows[column]
            if isinstance(value, (list, tuple)):
                keep &= found.isin(value).to_numpy()
            elif value == "":
                keep &= (found.isna() | (found == "")).to_numpy()
            else:
                text = found if found.dtype == object else found.astype(str)
                keep &= (text == str(value)).to_numpy()
        if not keep.any():
            raise Missing(f"{name}.csv has no row {where}")
        return rows[keep]

    def one(self, name: str, **where) -> pd.Series:
        """The first such row."""
        return self.table(name, **where).iloc[0]


# --- rules: one a kind of claim. c is its row of claims.csv, with numbers for quoted, threshold and margin -----------


def _level(out: Outputs, dataset: str, metric: str, protocol: str) -> Effect:
    """A mean score of ATSDP-NET: over folds of S (which hold different cells), over seeds and cells of U."""
    if protocol == "U":
        r = out.one("seeds_and_cells", dataset=dataset, protocol="U", metric=metric)
        return Effect(r["mean"], r.ci_low, r.ci_high, r.df)
    r = out.one("table3", dataset=dataset, model=OURS, setting="", protocol=protocol, metric=metric)
    return Effect(r["mean"], r.ci_low, r.ci_high, r.n - 1)


def at_least(out: Outputs, c, protocol: str) -> Found:
    """A score is at least the threshold, less the margin."""
    effect, cut = _level(out, c.dataset, c.metrics, protocol), c.threshold - c.margin
    return Found(effect, decide([effect], cut, cut), reproduces(effect, c.quoted, c.margin) if c.quoted else "")


def stable(out: Outputs, c, protocol: str) -> Found:
    """The standard deviation over repeats is at most the printed one, plus the margin."""
    r = out.one("table3", dataset=c.dataset, model=OURS, setting="", protocol=protocol, metric=c.metrics)
    repeats = r.n / PAPER_FOLDS if protocol == "S" else r.n
    if r["std_over"] != "repeats" or repeats < 2:
        return Found(Effect(r["std"]), UNDECIDED, UNDECIDED, "one repeat only: the profile paper has ten")
    low, high = r["std"] * np.sqrt((repeats - 1) / sps.chi2.ppf((0.975, 0.025), repeats - 1))
    effect, cut = Effect(r["std"], low, high), -(c.threshold + c.margin)
    return Found(effect, decide([effect.negated()], cut, cut), reproduces(effect, c.quoted, c.margin))


def highest(out: Outputs, c, protocol: str) -> Found:
    """Of the paper's four sets, which share no cells, this one has the highest mean."""
    level = {d: _level(out, d, c.metrics, protocol) for d in config.TABLE2}
    best, gaps = level.pop(c.dataset), []
    for other in level.values():
        errors = [(e.high - e.low) / 2 / _limit(e.df) for e in (best, other)]
        gap, df = best.value - other.value, min(best.df, other.df)
        error = _limit(df) * np.hypot(*errors)
        gaps.append(Effect(gap, gap - error, gap + error, df, room=1 - other.value))
    shown = min(gaps)
    note = f"shown against {min(zip(gaps, level, strict=True))[1]}"
    return Found(shown, decide(gaps, 0.0, c.margin), reproduces(best, c.quoted, c.margin), note)


def _models(name: str, protocol: str) -> list[str]:
    """Names of models that a claim means: the eight, those beyond them, or ATSDP-NET without transfer."""
    from atsdp_utils.baselines import REGISTRY
    from atsdp_utils.experiments.tables import NAIVE
    from atsdp_utils.experiments.task import BULK_ONLY, NO_TRANSFER

    if name == "no transfer":
        return [BULK_ONLY if protocol == "U" else NO_TRANSFER]
    if name == "the eight":
        return [n for n, b in REGISTRY.items() if b.paper_name]
    if name == "beyond the eight":
        return [n for n, b in REGISTRY.items() if not b.paper_name and not b.variant_of and n not in NAIVE]
    return [name] if name else []


#: Columns of a paired table seen from the other side.
TURNED = {"first": "second", "second": "first", "first_mean": "second_mean", "second_mean": "first_mean"}


def _first_component(out: Outputs, dataset: str, protocol: str) -> str:
    """What the first component alone reaches with the sign of a bulk model, as text; empty where it was not scored."""
    try:
        r = out.one("table3", dataset=dataset, model="PC1, bulk sign", setting="", protocol=protocol, metric="auc")
    except Missing:
        return ""
    return f", while the first component alone, with the sign of a bulk model, has {r['mean']:.3f}"


def better(out: Outputs, c, protocol: str) -> Found:
    """The first is better than each of the second, in every metric that the claim names: paired, in both directions.

    The argument is ``first|second``; nothing after the bar means all that the table compares with the first.
    """
    first, second = c.argument.split("|")
    names = _models(second, protocol)
    metrics = c.metrics.split()
    rows = out.table(c.output, dataset=c.dataset, protocol=protocol, metric=metrics)
    if first not in set(rows["first"].astype(str)):
        rows = rows[rows["second"].astype(str) == first].rename(columns=TURNED)
        rows = rows.assign(difference=-rows["difference"], ci_low=-rows["ci_high"], ci_high=-rows["ci_low"])
    rows = rows[rows["second"].astype(str).isin(names) if names else rows["second"] != "linear"]
    if len(rows) < max(len(names), 1) * len(metrics):
        raise Missing(f"{c.output}.csv compares {first} with {rows['second'].nunique()} of {len(names) or 'all'}")
    effects = [Effect(r.difference, r.ci_low, r.ci_high, r.df, 1 - r.second_mean) for r in rows.itertuples()]
    ahead = sum(e.low > 0 for e in effects)
    worst = int(np.argmin([e.low for e in effects]))
    note = f"against {rows['second'].iloc[worst]}, {rows['metric'].iloc[worst]}"
    if len(effects) > 1:
        note = f"ahead in {ahead} of {len(effects)} comparisons; shown {note}"
    if any(e.room < c.margin for e in effects):
        note += "; some leave no room above them"
    if metrics == ["auc"] and (reversed_ := rows[rows["second_mean"] < 0.5]).size:
        told = ", ".join(f"{r.second} (AUC {r.second_mean:.3f})" for r in reversed_.itertuples())
        note += f"; reversed here: {told}" + _first_component(out, c.dataset, protocol)
    return Found(effects[worst], decide(effects, 0.0, c.margin), note=note)


def correlation(out: Outputs, c, protocol: str) -> Found:
    """The correlation is at least the printed one, less the margin; the interval counts cells and seeds."""
    r = out.one(c.output, list=c.argument, protocol=protocol)
    if r.seeds < 2:
        return Found(Effect(r.r), UNDECIDED, UNDECIDED, "one repeat only: the error of seeds is unknown")
    effect, cut = Effect(r.r, r.r_low, r.r_high, r.df), c.threshold - c.margin
    return Found(effect, decide([effect], cut, cut), reproduces(effect, c.quoted, c.margin))


def sensitive_better(out: Outputs, c, protocol: str) -> Found:
    """The sensitive list's correlation is larger, on the same cells and seeds."""
    r = out.one(c.output, list="sensitive - resistant", protocol=protocol)
    if r.seeds < 2:
        return Found(Effect(r.r), UNDECIDED, note="one repeat only: the error of seeds is unknown")
    effect = Effect(r.r, r.r_low, r.r_high, r.df)
    return Found(effect, decide([effect], 0.0, c.margin), note="difference of the two r")


def random_lists(out: Outputs, c, protocol: str) -> Found:
    """Random genes reach the observed r more rarely than the printed p, plus the margin, for both lists."""
    rows, printed = out.table(c.output, protocol=protocol, list=["sensitive", "resistant"]), c.quoted
    fewest = int(rows["draws"].min())
    if fewest + 1 <= 1 / printed:
        raise Missing(f"{fewest:,} random lists; a p below {printed:g} needs at least {1 / printed:,.0f}")
    effects = []
    for r in rows.itertuples():
        reached = round(r.p * (r.draws + 1)) - 1
        low, high = proportion_confint(reached, r.draws, method="beta")
        effects.append(Effect(reached / r.draws, low, high, np.nan).negated())
    cut, worst = -(c.threshold + c.margin), min(effects).negated()
    reproduced = YES if (rows["p"] < printed).all() else NO
    return Found(worst, decide(effects, cut, cut), reproduced, "share of random lists as high; the less clear list")


def _need_genes(genes: Sequence[str]) -> None:
    """Refuse a claim about genes that the network cannot read: they are not in the bulk expression."""
    from atsdp_utils.data import gdsc

    bulk = gdsc.load_bulk().genes
    if unread := [g for g in genes if g not in set(bulk)]:
        raise Untestable(
            f"{' and '.join(unread)} not among the {len(bulk):,} genes of the bulk, so the network cannot read "
            f"{'it' if len(unread) == 1 else 'them'}; needs full-gene bulk, whatever the cells (ambiguity 29)"
        )


def key_genes(out: Outputs, c, protocol: str) -> Found:
    """Each named gene is among the ten first of its list in more than half of the networks."""
    genes = c.argument.split()
    _need_genes(genes)
    effects = []
    for r in out.table(c.output, gene=genes).itertuples():
        exact = proportion_confint(r.listed, r.networks, 0.05 / len(genes), method="beta")  # for all genes at once
        effects.append(Effect(r.listed / r.networks, *exact, np.nan))
    if len(effects) < len(genes):
        raise Missing(f"{c.output}.csv has {len(effects)} of {len(genes)} genes")
    verdict = decide(effects, c.threshold, c.threshold)
    return Found(min(effects), verdict, note="share of networks that list the gene; the rarest of them")


def enriched(out: Outputs, c, protocol: str) -> Found:
    """For each name a set holds more key genes than expected, by a false discovery rate of 5 % over the whole table.

    Refuted if all sets of a name hold less than the margin more (exact limits of a Poisson count, for all at once).
    """
    rows, effects, passed, small = out.table(c.output), [], [], []
    for name in c.argument.split("|"):
        sets = rows[rows["set"].str.contains(name)]
        if set(sets["list"]) != {"sensitive", "resistant"}:
            raise Missing(f"{c.output}.csv is not whole: it has no set named {name} for each list")
        overlap, expected = sets["overlap"].to_numpy(), sets["expected"].to_numpy()
        most, most_of_all = (sps.chi2.isf(0.025 / tests, 2 * overlap + 2) / 2 / expected for tests in (1, len(sets)))
        least = np.nan_to_num(sps.chi2.ppf(0.025, 2 * overlap) / 2 / expected)
        best = int(np.argmin(sets["padj"]))
        passed.append(bool(sets["padj"].iloc[best] < 0.05))
        small.append(bool((most_of_all < c.threshold + c.margin).all()))
        effects.append(Effect(overlap[best] / expected[best], least[best], most[best]))
    verdict = SUPPORTED if all(passed) else REFUTED if any(small) else UNDECIDED
    return Found(min(effects), verdict, note="times the genes expected; best set of the name that has fewer")


def pseudotime(out: Outputs, c, protocol: str) -> Found:
    """P(resistant) correlates positively with a pseudotime whose root saw no label."""
    r = out.one(c.output, root="without labels", protocol=protocol)
    effect = Effect(r.rho, r.ci_low, r.ci_high)
    return Found(effect, decide([effect], 0.0, c.margin), note="Spearman's ρ")


def genes_along(out: Outputs, c, protocol: str) -> Found:
    """Each gene correlates with pseudotime in the direction of its list (limits of Bonett and Wright 2000)."""
    genes = c.argument.split()
    _need_genes(genes)
    rows, effects = out.table(c.output, named_by="paper", gene=genes), []
    cells = sum(_sizes()[c.dataset])
    for r in rows.itertuples():
        rho = r.rho_with_pseudotime if r.list == "resistant" else -r.rho_with_pseudotime
        error = 1.96 * np.sqrt((1 + rho**2 / 2) / (cells - 3))
        effects.append(Effect(rho, *np.tanh(np.arctanh(rho) + np.array((-error, error)))))
    if len(effects) < len(genes):
        raise Missing(f"{c.output}.csv has {len(effects)} of {len(genes)} genes")
    return Found(min(effects), decide(effects, 0.0, c.margin), note="ρ in the direction of the list; the weakest gene")


# --- rules that need public files or the printed numbers only: no interval, so they hold or do not --------------------


def _plain(value: float, holds: bool | None, note: str = "") -> Found:
    return Found(Effect(value), {True: SUPPORTED, False: FAILS, None: UNTESTED}[holds], note=note)


def _sizes() -> dict[str, tuple[int, int]]:
    return {d: n for (d, counting), n in audit.CLASS_SIZES.items() if counting == "labelled cells"}


def most_imbalanced(out: Outputs, c, protocol: str) -> Found:
    """Its ratio of classes is the largest of the four."""
    ratio = {d: max(n) / min(n) for d, n in _sizes().items()}
    worst = max(ratio, key=ratio.get)
    return _plain(ratio[c.dataset], worst == c.dataset, f"ratio of classes; {worst} has {ratio[worst]:.2f}")


def resistant_rare(out: Outputs, c, protocol: str) -> Found:
    """Fewer resistant than sensitive cells."""
    sensitive, resistant = _sizes()[c.dataset]
    without = audit.CLASS_SIZES[c.dataset, "without holiday cells"]
    if protocol == "holiday cells left out":
        sensitive, resistant = without
    elif protocol == "holiday cells resistant":
        sensitive, resistant = without[0], resistant + sensitive - without[0]
    return _plain(resistant / (sensitive + resistant), resistant < sensitive, "share resistant")


def ibet_cells(out: Outputs, c, protocol: str) -> Found:
    """As many wells after quality control as the number quoted."""
    n = sum(audit.CLASS_SIZES[c.dataset, "all 1,419 wells"])
    note = f"wells; {sum(_sizes()[c.dataset]):,} of them are cells with a label"
    return _plain(n, n == c.quoted, note)._replace(reproduced=YES if n == c.quoted else NO)


def bulk_count(out: Outputs, c, protocol: str) -> Found:
    """The public files hold as many lines, drugs or genes; where they hold fewer, the paper's file is unknown."""
    from atsdp_utils.data import gdsc

    n = {"lines": lambda: len(gdsc.label_table(both_databases=True)), "drugs": lambda: len(gdsc.drugs()),
         "genes": lambda: len(gdsc.load_bulk().genes)}[c.argument]()  # fmt: skip
    same = n == c.quoted
    return _plain(n, True if same else None)._replace(reproduced=YES if same else NOT_TESTED)


def evaluated_alike(out: Outputs, c, protocol: str) -> Found:
    """The rows of Table 4 that are one confusion matrix were all averaged over the classes in one way.

    Undecided otherwise: that a matrix fits a row is no proof that the row was made from it.
    """
    rows = audit.table4_rows().query("one_unit")
    ways = rows.groupby(["auc", *(f"{m}_averaging" for m in audit.SCORES)]).ngroups
    return Found(Effect(ways), SUPPORTED if ways == 1 else UNDECIDED)


def f1_one_averaging(out: Outputs, c, protocol: str) -> Found:
    """No F1 of Tables 3 and 4 is larger than one averaging with its precision and recall allows."""
    rows = audit.printed_rows().query("where in ('Table 3', 'Table 4')")
    above = sum(audit.not_one_averaging(r).flagged for r in rows.itertuples())
    return _plain(above, above == 0, f"of {len(rows)} printed rows")


def _printed() -> pd.DataFrame:
    """Table 4: one row a set and metric, one column a model."""
    four = audit.reported().query("where == 'Table 4'")
    return four.pivot(index=["dataset", "metric"], columns="model", values="value")


def _leads() -> pd.Series:
    """ATSDP-NET's printed value less that of the next model, by set and metric."""
    four = _printed()
    return four[OURS] - four.drop(columns=OURS).max(axis=1)


def largest_printed(out: Outputs, c, protocol: str) -> Found:
    """ATSDP-NET has the largest printed value in every row of Table 4."""
    first = _leads() > 0
    return _plain(first.sum(), bool(first.all()), f"of {len(first)} printed rows")


def slight_lead(out: Outputs, c, protocol: str) -> Found:
    """In each metric named, the printed lead is slight: at most the margin."""
    leads = _leads()[c.dataset][c.metrics.split()]
    note = f"smallest of the leads in the metrics named, which go up to {leads.max():.3f}"
    return _plain(leads.min(), bool((leads <= c.margin).all()), note)


def particular_lead(out: Outputs, c, protocol: str) -> Found:
    """The printed lead in this metric, or the printed value, is at least the median of the set's five."""
    leads = _leads()
    own = leads[c.dataset] if protocol == "a large lead" else _printed()[OURS][c.dataset]
    note = f"place {int(own.rank(ascending=False)[c.metrics])} of the set's {len(own)}"
    note += ", the smallest of the table" * bool(protocol == "a large lead" and own[c.metrics] == leads.min())
    return _plain(own[c.metrics], bool(own[c.metrics] >= own.median()), note)


def poor(out: Outputs, c, protocol: str) -> Found:
    """Each model named is below ATSDP-NET in this metric, or in the lower half of the eight."""
    row, names = _printed().loc[(c.dataset, c.metrics)], c.argument.split()
    best = row[names].max()
    if protocol == "against ATSDP-NET":
        return _plain(best, bool(best < row[OURS]), f"the larger of their values; ATSDP-NET prints {row[OURS]:.4f}")
    places = row.drop(OURS).rank(ascending=False)[names].astype(int)
    note = ", ".join(f"{n} in place {place}" for n, place in places.items()) + f" of the {len(row) - 1} other models"
    return _plain(best, bool((places > (len(row) - 1) / 2).all()), note)


def lower_printed(out: Outputs, c, protocol: str) -> Found:
    """The model named has a lower printed value than ATSDP-NET in all metrics; said is where it is the runner-up."""
    four = _printed().loc[c.dataset]
    gap = four[OURS] - four[c.argument]
    second = int((four[c.argument] == four.drop(columns=OURS).max(axis=1)).sum())
    note = f"smallest printed difference; the model is the runner-up in {second} of {len(four)} metrics"
    note += " (odd, not contradicted)" * (second > len(four) / 2)
    return _plain(gap.min(), bool((gap > 0).all()), note)


RULES: dict[str, Callable[[Outputs, object, str], Found]] = {
    f.__name__: f
    for f in (
        at_least, stable, highest, better, correlation, sensitive_better, random_lists, key_genes, enriched, pseudotime,
        genes_along, most_imbalanced, resistant_rare, ibet_cells, bulk_count, evaluated_alike, f1_one_averaging,
        largest_printed, slight_lead, particular_lead, poor, lower_printed,
    )
}  # fmt: skip


# --- verdicts ---------------------------------------------------------------------------------------------------------


def claims() -> pd.DataFrame:
    """The paper's claims, one row each (``data/paper/claims.csv``); empty fields are empty strings.

    ``made`` tells claims made in so many words from those that are implied. ``scope`` says what can decide a claim:
    ``paper's cells`` (only they), ``real cells`` (any real cells), ``public files`` (those embedded here), ``public
    descriptions`` (of files that nobody here opened), ``print`` (the printed numbers), ``contradicted`` and
    ``equations`` (public descriptions or the paper's equations say otherwise; the evidence is in ``note``) or
    ``wording`` (nothing can). ``readings`` are the protocols, or other ways to read the claim, that the paper leaves
    open.
    """
    return pd.read_csv(paths.PAPER / "claims.csv", dtype=str, keep_default_na=False)


def _typed(claim) -> object:
    """The claim with its numbers as numbers: NaN where a margin or threshold is not needed, 0 where none is quoted."""
    numbers = {k: float(getattr(claim, k) or np.nan) for k in ("threshold", "margin")}
    return claim._replace(quoted=float(claim.quoted or 0), **numbers)


COLUMNS = ["id", "where", "claim", "made", "dataset", "metric", "quoted", "mean", "ci_low", "ci_high", "threshold",
           "margin", "tier", "protocol", "verdict", "reproduced", "by_reading", "note", "output", "page"]  # fmt: skip
#: What decides a claim, by scope: print is what the paper prints, real are embedded files and cells, public are
#: descriptions of files that nobody here opened, behind which no row of this run stands.
TIERS = {"paper's cells": "geo", "real cells": "real", "public files": "real", "public descriptions": "public",
         "contradicted": "public", "print": "print", "equations": "print", "wording": "print"}  # fmt: skip
NEEDS_CELLS = "needs the paper's own cells: DATA=geo"


def agreed(found: dict[str, Found]) -> Found:
    """One finding from those of all readings: a verdict is what all of them give; the effect is the first one's."""
    if len(found) == 1:
        return next(iter(found.values()))

    def same(words: list[str]) -> str:
        return words[0] if len(set(words)) == 1 else UNDECIDED

    texts = [
        f"{reading}: {f.verdict or f.reproduced} {interval(*f.effect[:3])}" + f" ({f.note})" * bool(f.note)
        for reading, f in found.items()
    ]
    verdict, reproduced = (same([getattr(f, k) for f in found.values()]) for k in ("verdict", "reproduced"))
    return Found(next(iter(found.values())).effect, verdict, reproduced, by_reading="; ".join(texts))


def judge_claim(out: Outputs, claim) -> Found:
    """What the tables say of one claim (a row of :func:`claims`), over all its readings."""
    c = _typed(claim)
    try:
        return agreed({reading: RULES[c.rule](out, c, reading) for reading in c.readings.split("|")})
    except Missing as gone:
        return Found(Effect(np.nan), MISSING, MISSING if c.quoted else "", str(gone))
    except Untestable as reason:
        return Found(Effect(np.nan), UNTESTED, NOT_TESTED if c.quoted else "", str(reason))


def _why_not_here(c) -> str:
    """Why this run cannot test a claim about the paper's cells: it lacks them, or the bulk lacks a gene as well."""
    try:
        if RULES[c.rule] in (key_genes, genes_along):
            _need_genes(c.argument.split())
    except Untestable as reason:
        return str(reason)
    return NEEDS_CELLS


def judge_claims(out: Outputs, data: str) -> pd.DataFrame:
    """Every claim with its verdict; a claim about the paper's cells gets one from tier ``geo`` only."""
    rows = []
    for c in claims().itertuples():
        tier = TIERS[c.scope]
        if c.scope in ("wording", "contradicted", "equations"):
            found = Found(Effect(np.nan), ILL_POSED if c.scope == "wording" else FAILS)
        elif c.scope == "paper's cells" and data != "geo":
            tier, found = "", Found(Effect(np.nan), UNTESTED, NOT_TESTED if c.quoted else "", _why_not_here(c))
        else:
            found = judge_claim(replace(out, tier=tier), c)
        protocol = c.readings.replace("|", ", ")
        about = (c.id, c.section, c.claim, c.made, c.dataset, c.metrics, c.quoted)
        note = "; ".join(filter(None, (found.note, c.note)))
        rows.append((*about, *found.effect[:3], c.threshold, c.margin, tier, protocol, found.verdict,
                     found.reproduced, found.by_reading, note, c.output, c.page))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


#: Place in the paper to (output, page) that holds the value's counterpart.
VALUE_OUTPUTS = {"Table 1": ("table1", "nb-05"), "Figure 2b": ("table3", "nb-05"), "Table 3": ("table3", "nb-05"),
                 "Figure 3": ("ablation_heads", "nb-06"), "Table 4": ("table4", "nb-07")}  # fmt: skip


def _counterpart(out: Outputs, r, protocol: str) -> pd.Series:
    output, _ = VALUE_OUTPUTS[r.where]
    key = {"dataset": r.dataset, "protocol": protocol, "metric": r.metric}
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


def _value_found(out: Outputs, r, protocol: str) -> Found:
    s = _counterpart(out, r, protocol)
    effect = Effect(s["mean"], s.ci_low, s.ci_high)
    return Found(effect, "", reproduces(effect, r.value, MARGIN))


def judge_values(out: Outputs, data: str) -> pd.DataFrame:
    """Every printed score, and whether S and U reproduce it on the same cells to within :data:`MARGIN`.

    Figure 3 was computed under S only. An F1 that is not of one averaging with its precision and recall says so in its
    note.
    """
    printed = audit.printed_rows().itertuples()
    mixed = {(r.where, r.dataset, r.model) for r in printed if audit.not_one_averaging(r).flagged}
    out, rows = replace(out, tier="geo"), []
    for r in audit.reported().query(f"where in {list(VALUE_OUTPUTS)}").itertuples():
        output, page = VALUE_OUTPUTS[r.where]
        readings = "S" if r.where == "Figure 3" else "SU"
        effect, verdict, note, tier, by_reading = Effect(np.nan), NOT_TESTED, NEEDS_CELLS, "", ""
        if data == "geo":
            tier, note = "geo", ""
            try:
                found = agreed({p: _value_found(out, r, p) for p in readings})
                effect, verdict, by_reading = found.effect, found.reproduced, found.by_reading
            except Missing as gone:
                verdict, note = MISSING, str(gone)
        if r.metric == "f1" and (r.where, r.dataset, r.model) in mixed:
            note = "; ".join(filter(None, [note, "not with one averaging (ambiguity 26)"]))
        name = "-".join([r.where, r.dataset, r.model, r.metric]).lower().replace(", ", "-").replace(" ", "")
        rows.append((name, r.where, r.model, "", r.dataset, r.metric, f"{r.value:g}", *effect[:3], f"{r.value:g}",
                     MARGIN, tier, ", ".join(readings), "", verdict, by_reading, note, output, page))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def scorecard(out: Outputs, data: str) -> pd.DataFrame:
    """Claims, then values; column ``kind`` tells them apart."""
    parts = (judge_claims(out, data).assign(kind="claim"), judge_values(out, data).assign(kind="value"))
    return pd.concat(parts, ignore_index=True)[["kind", *COLUMNS]]


# --- published predictions of an earlier study on the paper's own cells ----------------------------------------------

#: The scDEAL study's cells with a prediction each: file, the paper's set, and the label file where one is embedded.
PUBLISHED = (("GSE117872_HN120", "DATA1", "labels_GSE117872_HN120.csv"), ("GSE110894", "DATA4", ""))


def _true_labels(dataset: str, file: str, data: str) -> pd.Series | None:
    if file:
        return pd.read_csv(paths.DATA / file, index_col="cell")["sensitive"]
    if data != "geo":
        return None
    from atsdp_utils.data import datasets

    return datasets.load_cells(dataset).obs["sensitive"].dropna().astype(int)


def published_predictions(data: str) -> pd.DataFrame:
    """What the scDEAL study's published cells of DATA1 and DATA4 score, beside what the paper prints for its own model.

    Real cells of the paper's own sets, predicted by another method: a point of reference, never a reproduction of
    ATSDP-NET. Accuracy is the support-weighted recall, to which the paper's recall corresponds.

    Returns
    -------
    DataFrame
        ``dataset, method, quantity, list, mean, ci_low, ci_high, cells, atsdp_printed, atsdp_cells, tier, note``.
    """
    from atsdp_utils.evaluation import metrics
    from atsdp_utils.interpretation import gene_lists, gene_scores

    printed = audit.reported().query(f"model == '{OURS}'").set_index(["dataset", "metric", "where"])["value"]
    rows = []
    for file, dataset, label_file in PUBLISHED:
        table = pd.read_csv(paths.DATA / f"scdeal_scores_{file}.csv.gz", index_col="Cell id")
        predicted, n = (table["Prediction"] == "Sensitive").astype(int), len(table)
        theirs = max(sum(sizes) for (d, _), sizes in audit.CLASS_SIZES.items() if d == dataset)

        def add(quantity, which="", found=(np.nan,) * 3, cells=n, beside=np.nan, note="", d=dataset, m=theirs):
            rows.append((d, "scDEAL", quantity, which, *found, cells, beside, m, "real", note))

        y = _true_labels(dataset, label_file, data)
        y = None if y is None else y.reindex(table.index).dropna().astype(int)
        beside = [printed[dataset, m, "Table 3"] for m in ("recall", "f1")]
        if y is None:
            for quantity, value in zip(("accuracy", "weighted F1"), beside, strict=True):
                add(quantity, beside=value, note=f"labels of these cells: {NEEDS_CELLS}")
        else:
            called = predicted[y.index]
            score, right = metrics.classification_metrics(y, called), int((y == called).sum())
            limits = proportion_confint(right, len(y), method="wilson")
            note = f"{theirs - len(y)} cells fewer than the paper's"
            add("accuracy", found=(score["recall"], *limits), cells=len(y), beside=beside[0], note=note)
            add("weighted F1", found=(score["f1"], np.nan, np.nan), cells=len(y), beside=beside[1], note=note)
            for name, k in (("sensitive", 1), ("resistant", 0)):
                of = int((y == k).sum())
                hit = int(((y == k) & (called == k)).sum())
                limits = proportion_confint(hit, of, method="wilson")
                add("called right", name, (hit / of, *limits), of, note=f"{hit} of {of}")
        for name, k in (("sensitive", 1), ("resistant", 0)):
            add("predicted", name, (float((predicted == k).sum()), np.nan, np.nan), note="number of cells")
        figure = {"DATA1": "Figure 8b", "DATA4": "Figure 5c"}[dataset]
        for name in gene_lists.DIRECTIONS:
            found = gene_scores.correlate(*(table[f"{k}_{name}_DEG_score"] for k in ("Predicted", "Ground_truth")))
            add("r of gene scores", name, [found[k] for k in ("r", "r_low", "r_high")],
                beside=printed[dataset, "pearson_r", f"{figure}_{name}"])  # fmt: skip
    columns = ["dataset", "method", "quantity", "list", "mean", "ci_low", "ci_high", "cells", "atsdp_printed",
               "atsdp_cells", "tier", "note"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


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
