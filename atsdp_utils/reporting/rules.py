"""Rules that turn tables into verdicts on claims: one evaluator of ``data/paper/rules.csv``, and what needs more.

A rule takes the tables of a run, a claim (a row of ``claims.csv`` with numbers for quoted, threshold and margin) and
one of its readings: protocols S and U where the paper leaves open whether cell labels were used (ambiguity 1).
"""

from contextlib import suppress
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats as sps
from statsmodels.stats.proportion import proportion_confint

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.data import cell_lines, gdsc
from atsdp_utils.experiments.tables import NAIVE
from atsdp_utils.experiments.task import BULK_ONLY, FURTHER, NO_TRANSFER
from atsdp_utils.foundation import checksums, config
from atsdp_utils.reporting import audit, verdict
from atsdp_utils.reporting.outputs import Missing, Outputs, numbers
from atsdp_utils.reporting.verdict import Effect, Found, Untestable, decide, plain, reproduces

OURS = "ATSDP-NET"


# --- rules of rules.csv: effects in named rows and columns of a table -------------------------------------------------


def of_std(std: float, repeats: float) -> Effect:
    """A standard deviation over so many normal repeats."""
    return Effect(std, *std * np.sqrt((repeats - 1) / sps.chi2.ppf((0.975, 0.025), repeats - 1)))


def of_share(hits: float, of: float, tests: float = 1) -> Effect:
    """A share, with exact limits that hold for so many shares at once."""
    return Effect(hits / of, *proportion_confint(hits, of, 0.05 / tests, method="beta"), np.nan)


def of_random_lists(p: float, lists: float, printed: float, tests: float) -> Effect:
    """The share of random lists that do as well, from a p that counts the list itself; limits as of a share."""
    if np.isnan(p):
        raise Missing("no p of the random lists: there is no correlation")
    if lists + 1 <= 1 / printed:
        raise Missing(f"{lists:,.0f} random lists; a p below {printed:g} needs at least {1 / printed:,.0f}")
    return of_share(round(p * (lists + 1)) - 1, lists, tests)


#: Effects from the numbers in a row, by the word in ``rules.csv``.
INTERVALS = {
    "given": Effect,
    "std": of_std,
    "share": of_share,
    "random lists": of_random_lists,
    "none": Effect,  # the value alone, which decides nothing
}


@cache
def named_rule(rule: str, reading: str):
    """The row of ``rules.csv`` for a rule under a reading; nothing where the rule is a function below."""
    rows = checksums.table("paper/rules.csv", dtype=str, keep_default_na=False).query("rule == @rule").itertuples()
    return next((row for row in rows if row.reading in ("", reading)), None)


def estimated(out: Outputs, c, reading: str) -> Found:
    """Effects in the rows and columns that ``rules.csv`` names: at least a level, at most one, or above zero."""
    rule = named_rule(c.rule, reading)
    names = {**c._asdict(), "reading": reading, "genes": len(c.argument.split("|"))}
    rows = out.named(rule.table or c.output, rule.rows, **names)
    effects = [INTERVALS[rule.interval](*row) for row in numbers(rows, rule.columns.format(**names))]
    note, turned = rule.note, rule.side == "at most"
    if rule.enough and not rows.eval(rule.enough).all():
        effects, note = [Effect(effects[0].value)], rule.otherwise  # no limits: undecided
    bounds = {"at least": [c.threshold - c.margin] * 2, "at most": [-(c.threshold + c.margin)] * 2,
              "better": [0.0, c.margin]}  # fmt: skip
    toward = [e.negated() for e in effects] if turned else effects
    decided = decide(toward, *bounds[rule.side]) if rule.side else ""
    shown = min(toward).negated() if turned else min(toward)
    again = reproduces(shown, c.quoted, c.margin) if c.quoted else ""
    if rule.reproduced:
        again = verdict.YES if rows.eval(rule.reproduced.format(**names)).all() else verdict.NO
    return Found(shown, decided, again, note)


def need_genes(c) -> None:
    """Refuse a claim about genes that the network cannot read: they are not in the bulk expression."""
    rule = named_rule(c.rule, c.readings)
    if not (rule and rule.genes):
        return
    bulk = gdsc.load_bulk().genes
    if unread := [g for g in c.argument.split("|") if g not in set(bulk)]:
        raise Untestable(
            f"{' and '.join(unread)} not among the {len(bulk):,} genes of the bulk, so the network cannot read "
            f"{'it' if len(unread) == 1 else 'them'}; needs full-gene bulk, whatever the cells (ambiguity 29)"
        )


# --- rules over several tables, models or sets ------------------------------------------------------------------------


def highest(out: Outputs, c, reading: str) -> Found:
    """Of the paper's four sets, which share no cells, this one has the highest mean."""
    level = {d: estimated(out, c._replace(rule="at_least", dataset=d), reading).effect for d in config.TABLE2}
    best, gaps = level.pop(c.dataset), []
    for other in level.values():
        gap, df = best.value - other.value, min(best.df, other.df)
        # Limits of a mean near one are not symmetric, so each limit takes the sides that lead to it (Newcombe 1998).
        down = np.hypot(best.value - best.low, other.high - other.value)
        up = np.hypot(best.high - best.value, other.value - other.low)
        gaps.append(Effect(gap, gap - down, gap + up, df, room=1 - other.value))
    shown, against = min(zip(gaps, level, strict=True))
    return Found(shown, decide(gaps, 0.0, c.margin), reproduces(best, c.quoted, c.margin), f"shown against {against}")


def models(name: str, protocol: str) -> list[str]:
    """Models that a claim means: the eight, those beyond, or ATSDP-NET without transfer and, under U, its control."""
    others = [n for n, b in REGISTRY.items() if not b.paper_name and not b.variant_of and n not in NAIVE]
    others = [n for n in others if (REGISTRY[n].under_u if protocol == "U" else REGISTRY[n].under_s)]
    eight = [n for n, b in REGISTRY.items() if b.paper_name]
    words = {"no transfer": [BULK_ONLY, FURTHER] if protocol == "U" else [NO_TRANSFER], "the eight": eight, "": []}
    return (words | {"beyond the eight": others}).get(name, [name])


def better(out: Outputs, c, reading: str) -> Found:
    """``first|second``: the first is better than each of the second (or than all), paired, in every metric named."""
    first, second = c.argument.split("|")
    names, metrics = models(second, reading), c.metrics.split()
    rows = out.table(c.output, dataset=c.dataset, protocol=reading, metric=metrics)
    rows = rows.astype({"first": str, "second": str})
    if first not in set(rows["first"]):  # the table has the pair the other way round
        turned = {"first": "second", "second": "first", "first_mean": "second_mean", "second_mean": "first_mean"}
        rows = rows[rows["second"] == first].rename(columns=turned)
        rows = rows.assign(difference=-rows["difference"], ci_low=-rows["ci_high"], ci_high=-rows["ci_low"])
    rows = rows[rows["second"].isin(names) if names else rows["second"] != "linear"]
    if len(rows) < max(len(names), 1) * len(metrics):
        raise Missing(f"{c.output}.csv compares {first} with {rows['second'].nunique()} of {len(names) or 'all'}")
    effects = [Effect(*row) for row in numbers(rows, "difference;ci_low;ci_high;df;1 - second_mean")]
    worst = int(np.argmin([e.low for e in effects]))
    note = f"against {rows['second'].iloc[worst]}, {rows['metric'].iloc[worst]}"
    if len(effects) > 1:
        note = f"ahead in {sum(e.low > 0 for e in effects)} of {len(effects)} comparisons; shown {note}"
    if any(e.room < c.margin for e in effects):
        note += "; some leave no room above them"
    if metrics == ["auc"] and len(reversed_ := rows[rows["second_mean"] < 0.5]):
        note += "; reversed here: " + ", ".join(f"{r.second} (AUC {r.second_mean:.3f})" for r in reversed_.itertuples())
        of_set = {"dataset": c.dataset, "protocol": reading, "metric": "auc", "setting": ""}
        with suppress(Missing):
            pc1 = out.one("table3", model="PC1, bulk sign", **of_set)
            note += f", while the first component alone, with the sign of a bulk model, has {pc1['mean']:.3f}"
    return Found(effects[worst], decide(effects, 0.0, c.margin), note=note)


def enriched(out: Outputs, c, reading: str) -> Found:
    """For each name a set holds more key genes than expected, by a false discovery rate of 5 % over the whole table.

    Refuted if all sets of a name hold less than the margin more (exact limits of a Poisson count, for all at once).
    """
    rows, effects, passed, small = out.table(c.output), [], [], []
    rows = rows.assign(padj=sps.false_discovery_control(rows["p"]))
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
    decided = verdict.SUPPORTED if all(passed) else verdict.REFUTED if any(small) else verdict.UNDECIDED
    return Found(min(effects), decided, note="times the genes expected; best set of the name that has fewer")


# --- rules that need public files or the printed numbers only: no interval, so they hold or do not --------------------


def _sizes(reading: str = "holiday cells sensitive") -> dict[str, tuple[int, int]]:
    """Sensitive and resistant cells of each set, under a reading of the cells on a drug holiday (ambiguity 20)."""
    found, of = {}, audit.CLASS_SIZES
    for dataset in config.TABLE2:
        sensitive, resistant = of[dataset, "labelled cells"]
        without, _ = of.get((dataset, "without holiday cells"), (sensitive, resistant))
        moved = (sensitive - without) * (reading == "holiday cells resistant")
        found[dataset] = sensitive if reading == "holiday cells sensitive" else without, resistant + moved
    return found


def most_imbalanced(out: Outputs, c, reading: str) -> Found:
    """Its ratio of classes is the largest of the four."""
    ratios = {d: max(n) / min(n) for d, n in _sizes(reading).items()}
    most = max(ratios, key=ratios.get)
    return plain(ratios[c.dataset], most == c.dataset, f"ratio of classes; {most} has {ratios[most]:.2f}")


def resistant_rare(out: Outputs, c, reading: str) -> Found:
    """Fewer resistant than sensitive cells."""
    sensitive, resistant = _sizes(reading)[c.dataset]
    return plain(resistant / (sensitive + resistant), resistant < sensitive, "share resistant")


def ibet_cells(out: Outputs, c, reading: str) -> Found:
    """As many wells after quality control, or cells with a label, as the number quoted."""
    n = sum(audit.CLASS_SIZES[c.dataset, "all 1,419 wells"] if reading == "wells" else _sizes()[c.dataset])
    return plain(n, n == c.quoted, "", verdict.YES if n == c.quoted else verdict.NO)


def bulk_count(out: Outputs, c, reading: str) -> Found:
    """The public files hold as many lines, drugs or genes; where they hold fewer, the paper's file is unknown."""
    rows, of_both = gdsc.labels_of_both_databases(), gdsc.label_table().index.intersection(cell_lines.load_ccle().lines)
    read = {"rows": len(rows), "distinct lines": len(rows) - len(of_both),
            "drugs": len(gdsc.drugs()), "genes": len(gdsc.load_bulk().genes)}  # fmt: skip
    n = read[reading or c.argument]
    words = (verdict.SUPPORTED, verdict.YES) if n == c.quoted else (verdict.UNTESTED, verdict.NOT_TESTED)
    return Found(Effect(n), *words)


def evaluated_alike(out: Outputs, c, reading: str) -> Found:
    """The rows of Table 4 that are one confusion matrix were averaged in one way; else undecided: no proof."""
    ways = audit.table4_rows().query("one_unit").groupby(["auc", *audit.AVERAGINGS]).ngroups
    return Found(Effect(ways), verdict.SUPPORTED if ways == 1 else verdict.UNDECIDED)


def f1_one_averaging(out: Outputs, c, reading: str) -> Found:
    """No F1 of Tables 3 and 4 is larger than one averaging with its precision and recall allows."""
    rows = audit.checked("not_one_averaging").query("where in ('Table 3', 'Table 4')")
    above = rows["flagged"].sum()
    return plain(above, above == 0, f"of {len(rows)} printed rows")


def _leads() -> pd.Series:
    """ATSDP-NET's printed value less that of the next model, by set and metric."""
    four = audit.table4()
    return four[OURS] - four.drop(columns=OURS).max(axis=1)


def largest_printed(out: Outputs, c, reading: str) -> Found:
    """ATSDP-NET has the largest printed value in every row of Table 4, or in those of a set and metrics."""
    first = _leads()[c.dataset][c.metrics.split()] > 0 if c.dataset else _leads() > 0
    return plain(first.sum(), first.all(), f"of {len(first)} printed rows")


def slight_lead(out: Outputs, c, reading: str) -> Found:
    """In each metric named, the printed lead is slight, at most the margin, or at least there is one."""
    leads = _leads()[c.dataset][c.metrics.split()]
    note = f"smallest of the leads in the metrics named, which go up to {leads.max():.3f}"
    return plain(leads.min(), (leads <= c.margin if reading == "at most slight" else leads > 0).all(), note)


def particular_lead(out: Outputs, c, reading: str) -> Found:
    """The printed lead in this metric, or the printed value, is at least the median of the set's five."""
    leads = _leads() if reading == "a large lead" else audit.table4()[OURS]
    own, metric = leads[c.dataset], c.metrics
    note = f"place {int(own.rank(ascending=False)[metric])} of the set's {len(own)}"
    note += ", the smallest of the table" * bool(reading == "a large lead" and own[metric] == leads.min())
    return plain(own[metric], own[metric] >= own.median(), note)


def poor(out: Outputs, c, reading: str) -> Found:
    """Each model named is below ATSDP-NET in this metric, or in the lower half of the eight."""
    row, names = audit.table4().loc[(c.dataset, c.metrics)], c.argument.split("|")
    best, places = row[names].max(), row.drop(OURS).rank(ascending=False)
    if reading == "against ATSDP-NET":
        return plain(best, best < row[OURS], f"the larger of their values; ATSDP-NET prints {row[OURS]:.4f}")
    note = ", ".join(f"{n} in place {places[n]:.0f}" for n in names) + f" of the {len(places)} other models"
    return plain(best, (places[names] > len(places) / 2).all(), note)


def lower_printed(out: Outputs, c, reading: str) -> Found:
    """The model named has a lower printed value than ATSDP-NET in all metrics; said is where it is the runner-up."""
    four = audit.table4().loc[c.dataset]
    gap = four[OURS] - four[c.argument]
    second = int((four[c.argument] == four.drop(columns=OURS).max(axis=1)).sum())
    note = f"smallest printed difference; the model is the runner-up in {second} of {len(four)} metrics"
    return plain(gap.min(), (gap > 0).all(), note + " (odd, not contradicted)" * (second > len(four) / 2))


_OWN = (highest, better, enriched, most_imbalanced, resistant_rare, ibet_cells, bulk_count, evaluated_alike,
        f1_one_averaging, largest_printed, slight_lead, particular_lead, poor, lower_printed)  # fmt: skip
FUNCTIONS = {f.__name__: f for f in _OWN}


def find(out: Outputs, c, reading: str) -> Found:
    """What the rule of a claim finds under one of its readings."""
    return FUNCTIONS.get(c.rule, estimated)(out, c, reading)
