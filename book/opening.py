"""What was found, in a few sentences with their values from the tables of runs: README, landing page, questions.

The sentences are data (``templates/opening.toml``); a function here of the same name finds the values of each, in the
first of several runs that has its tables. Each sentence names the profile of that run.
"""

import json
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from atsdp_utils.data import gdsc
from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting import audit, found, report, rules
from atsdp_utils.reporting.outputs import Missing, Outputs
from atsdp_utils.reporting.verdict import MISSING, UNTESTED

TEMPLATES = Path(__file__).parent / "templates"
DIFFERENCE = ["difference", "ci_low", "ci_high"]
REAL = [spec.name for spec in config.REAL]
#: Settings that transfer is compared with, and what the lead calls them.
CALLED = {"further steps on bulk": "the control", "before transfer": "the network before transfer",
          "PC1, bulk sign": "PC1"}  # fmt: skip
#: Parts of transfer, and the setting of notebook 04 that leaves each out or turns it round.
PARTS = {"no_mmd": "after transfer, no MMD", "no_stage2": "after transfer, no stage 2",
         "no_regulariser": "after transfer, no regulariser",
         "printed": "after transfer, regulariser as printed"}  # fmt: skip
#: Profiles in the order in which they are asked. ``paper`` comes second until its networks are trained anew.
ORDER = ("quick", "paper")
#: Chapters that sentences cite, by what for.
CITED = {"transfer": "04", "averaging": "08", "other_platform": "15", "permuted": "16", "explained": "19"}
#: A fold within an item of a list, which Markdown of the book and of README both know.
FOLD = "\n  <details><summary>the numbers behind it, and what they leave out</summary>\n\n  {}\n\n  </details>\n"
SENTENCES = tomllib.loads((TEMPLATES / "opening.toml").read_text(encoding="utf-8"))


def _interval(values: pd.Series, sign: str = "") -> str:
    """A mean and its limits as text; with a `sign` that of a difference, whose limits may lie close to zero."""
    middle, low, high = map(_signed if sign else "{:.2f}".format, values)
    return f"{middle} ({low}{' to ' if sign else '–'}{high})" if values.notna().all() else middle


def _signed(value: float) -> str:
    """With a sign and three decimals, or the first digit where these would all be zero."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 or not value else f"{value:+.1g}"


def _side(row: pd.Series) -> str:
    """How the first of two names does beside the second, by their difference after Holm's correction."""
    told, (low, high) = row["p_holm"] < 0.05, row[DIFFERENCE[1:]]
    return "better" if told and low > 0 else "worse" if told and high < 0 else "neither significantly better nor worse"


def held_out_clusters(out: Outputs) -> dict:
    """Means over the drugs and clusters on which networks were trained, and the difference to the best simple model."""
    means = out.table("clusters_mean", on="tasks of the networks").set_index("model")
    names = {"atsdp": "ATSDP-NET", "bulk": "ATSDP-NET, bulk only"}
    on = {"on": "tasks of the networks", "model": [*names.values()]}
    tested = out.table("clusters_differences", **on).set_index(["model", "against"])
    if "p_holm" not in tested or tested["p_holm"].isna().any():
        raise Missing("clusters_differences.csv: no corrected p")
    simple = tested[~tested.index.get_level_values("against").str.startswith("ATSDP-NET")]
    row = simple.loc["ATSDP-NET"].iloc[0]
    pairs = ("ATSDP-NET", names["bulk"]), (names["bulk"], row.name), ("ATSDP-NET", "ATSDP-NET, further steps only")
    gain, start, aligned = (tested.loc[pair] for pair in pairs)
    rows = {"difference": row, "gain": gain, "start": start, "aligned": aligned}
    names["best"], side, gain_side = row.name, _side(row), _side(gain)
    lines = out.read("clusters_auc")
    found = {k: _interval(means.loc[name, ["mean", "ci_low", "ci_high"]]) for k, name in names.items()}
    found |= {k: _interval(of[DIFFERENCE], "+") for k, of in rows.items()}
    found |= {f"{k}_p": f"{of['p_holm']:.2g}" for k, of in rows.items()}
    beside = " or than before transfer" if side == gain_side else f", and {gain_side} than before transfer"
    return found | {
        "sides": f"{side} than {row.name}{beside}", "best_name": row.name, "tasks": int(row["tasks"]),
        "drugs": int(row["drugs"]), "clusters": lines["cluster"].nunique(),
        "of_clusters": lines["cluster"][lines["model"] == "ATSDP-NET"].nunique(),
    }  # fmt: skip


def _counted(minus: pd.DataFrame) -> str:
    """For each setting compared, the sets on which transfer is significantly better, and worse if there is one."""
    said, of = [], f" of {minus['dataset'].nunique()} data sets"
    for setting, what in CALLED.items():
        told = minus.loc[[setting]].query("told")
        sides = {"better": told[told["difference"] > 0], "worse": told[told["difference"] < 0]}
        # Two names may be one set of cells, so that a count alone says too much.
        for side, rows in sides.items():
            if len(rows) or side == "better":
                named = f" ({', '.join(rows['dataset'])})" * bool(len(rows))
                said.append(f"{side} than {what} on {len(rows)}{of * (not said)}{named}")
    return f"significantly {', '.join(said)}"


def _gains(out: Outputs, settings: Iterable[str] = CALLED) -> pd.DataFrame:
    """Differences on the real sets, after transfer minus each of `settings`, and whether they are significant."""
    by = out.table("transfer_changes", dataset=REAL, setting=[*settings]).set_index("setting")
    minus = by.loc[[*settings]]
    minus[DIFFERENCE] = -minus[["difference", "ci_high", "ci_low"]].to_numpy()  # the table has it the other way round
    return minus.assign(told=minus["p_holm"] < 0.05)


def single_cells(out: Outputs) -> dict:
    """Rows of a table: AUC on each real set, transfer minus control, start and PC1; how many are told from zero."""
    minus, of_set = _gains(out), out.table("transfer_changes", dataset=REAL)["dataset"]
    rows, aucs, auc = [], [], ["auc_mean", "ci_low", "ci_high"]
    for name, of in minus.groupby("dataset"):
        scores = out.table("transfer", dataset=name).set_index("setting")
        cells = out.one("class_sizes", dataset=name)[["sensitive", "resistant"]].sum()
        row = [f"{name}, {cells}, {of['seeds'].max()}", _interval(scores.loc["after transfer", auc])]
        for setting, gain in of.iterrows():
            row += [_interval(scores.loc[setting, auc]), _interval(gain[DIFFERENCE], "+") + r"\*" * bool(gain["told"])]
        rows.append(f"| {' | '.join(row)} |")
        of_both = (scores.loc[setting, "auc_mean"] for setting in ("after transfer", "PC1, bulk sign"))
        aucs.append(f"{name} {' and '.join(f'{mean:.2f}' for mean in of_both)}")
    control = out.table("control_changes", dataset=REAL)
    drift = control[control["first"] == "further steps on bulk"]
    moved = (f"{_interval(row[DIFFERENCE], '+')} on {row['dataset']}" for _, row in drift.iterrows())
    counts: dict[str, object] = {"counted": _counted(minus), "aucs": ", ".join(aucs)}
    family = pd.concat([of_set, control["dataset"]]).map(lambda name: config.DATASETS[name].unit)
    counts["family"] = ", ".join(f"{n} on {unit}" for unit, n in family.value_counts(sort=False).items())
    parts = out.table("transfer_changes", dataset=REAL, setting=[*PARTS.values()]).set_index("setting")
    for part, setting in PARTS.items():
        without = parts.loc[[setting]]
        changed = [f"{_interval(row[DIFFERENCE], '+')} on {row['dataset']}" for _, row in without.iterrows()]
        counts |= {part: ", ".join(changed), f"{part}_told": int((without["p_holm"] < 0.05).sum())}
        counts[f"{part}_aucs"] = ", ".join(f"{row.mean:.2f} ({row.dataset})" for row in without.itertuples())
    clusters = out.table("cluster_labels", dataset=REAL)["of_cluster"]
    counts |= {"cluster_low": clusters.min(), "cluster_high": clusters.max()}
    mean = out.table("gene_scores_real", protocol="U", list="sensitive")
    averaged = " and ".join(f"{auc:.3f} ({name})" for name, auc in zip(mean["dataset"], mean["auc"], strict=True))
    counts |= {"averaged": averaged, "rows": "\n  ".join(rows), "names": len(rows), "moves": ", ".join(moved)}
    return counts | _permuted(out)


def _permuted(out: Outputs) -> dict[str, object]:
    """AUCs after the labels of lines were permuted: means, draws that reach the own mean, distances from one half."""
    rows = out.table("permuted_labels_summary", dataset=REAL, model=["ATSDP-NET", "PC1, bulk sign"])
    of, pc1 = (part.set_index("dataset") for _, part in rows.groupby("model"))
    named = {"null_mean": of["permuted_mean"], "null_far": of["permuted_distance"], "own_far": of["own_distance"]}
    said = {key: ", ".join(f"{value:.2f} ({name})" for name, value in own.items()) for key, own in named.items()}
    reached = {"null_reached": of["draws_that_reach_own_mean"], "null_pc1": pc1["draws_that_reach_own_mean"]}
    said |= {key: ", ".join(f"{n} ({name})" for name, n in own.items()) for key, own in reached.items()}
    return said | {"null_draws": int(rows["seeds"].iloc[0])}


def short(out: Outputs) -> dict:
    """What single cells and held-out clusters say of the method, and what no set here can say."""
    of = out.table("transfer", dataset=REAL, setting=["after transfer", PARTS["printed"]]).set_index("setting")
    scores, printed = (of.loc[[setting]] for setting in ("after transfer", PARTS["printed"]))
    plain = out.table("table1", dataset=REAL, protocol="U", metric="auc", setting="none")
    gains = _gains(out, [*CALLED, "logistic regression"])
    told = gains["difference"].where(gains["told"], 0)
    rivals = out.table("rivals_changes", dataset=REAL, second="ATSDP-NET")
    moved = rivals[rivals["p_holm"] < 0.05].itertuples()
    moved = [f"{of.difference:+.3f} {of.first.removeprefix('ATSDP-NET ')} on {of.dataset}" for of in moved]
    return held_out_clusters(out) | _signs(scores, scores["auc_count"]) | _permuted(out) | _eight(out) | {
        "plain": _signs(plain, plain["n"]), "own_line": _own_line(out),
        "better": (told > 0).groupby(level=0).sum(), "worse": (told < 0).groupby(level=0).sum(),
        "pc1_above": (gains.loc["PC1, bulk sign", "ci_high"] < 0).sum(),
        "rivals": ", ".join(moved) or "none", "rivals_told": len(moved), "rivals_asked": len(rivals),
        "printed_low": printed["auc_mean"].min(), "printed_high": printed["auc_mean"].max(),
    }  # fmt: skip


def _own_line(out: Outputs) -> dict[str, dict]:
    """Mean AUC over the seeds whose lines have the one of the cells among them, and over the others."""
    by = out.table("own_line", setting="after transfer", trains_on_it=[True, False]).set_index("trains_on_it")
    return by.rename({True: "with", False: "without"}).to_dict("index")


def _signs(rows: pd.DataFrame, seeds: pd.Series) -> dict[str, int]:
    """Sets whose interval lies above one half, of how many; trainings that rank the cells backwards, of how many."""
    runs, right = int(seeds.sum()), int((rows["right"] * seeds).round().sum())
    return {"above": int((rows["ci_low"] > 0.5).sum()), "names": len(rows), "runs": runs, "turned": runs - right}


def larger(out: Outputs) -> dict:
    """What ATSDP-NET reaches without labels on the real sets, and beside what it is better, as chapter 4 has it."""
    rows = out.table("transfer", dataset=REAL, setting="after transfer")
    aucs = (f"{_interval(row[['auc_mean', 'ci_low', 'ci_high']])} on {row['dataset']}" for _, row in rows.iterrows())
    without = out.table("transfer_changes", dataset=REAL, setting=PARTS["no_regulariser"])
    told = {"counted": _counted(_gains(out)), "no_regulariser_told": int((without["p_holm"] < 0.05).sum())}
    return {"aucs": ", ".join(aucs), "own_line": _own_line(out), **_signs(rows, rows["auc_count"]), **told}


def _eight(out: Outputs) -> dict:
    """Comparisons with the paper's eight baselines without labels, and how many are told in either direction."""
    eight = {"dataset": REAL, "protocol": "U", "metric": "auc", "model": rules.models("the eight", "U")}
    sides = out.table("baselines_against_atsdp", **eight).set_index("dataset").apply(_side, axis=1)  # of the baseline
    told, tried = sides == "worse", int(out.table("tuning_choices", protocol="U")["tried"].min())
    by = ", ".join(f"{n.sum()} of {len(n)} on {name}" for name, n in told.groupby(level=0, sort=False))
    return {"eight": len(sides), "eight_better": told.sum(), "eight_worse": (sides == "better").sum(), "eight_by": by,
            "tried": tried}  # fmt: skip


def _ranks(rows: pd.DataFrame, of: pd.Series) -> pd.Series:
    """Rank of each value of `of` among those of its data set and draw, the highest first."""
    above = rows["auc"] > of.reindex(pd.MultiIndex.from_frame(rows[["dataset", "draw"]])).to_numpy()
    return 1 + above.groupby([rows["dataset"], rows["draw"]]).sum()


def right_drug(out: Outputs) -> dict:
    """Rank of the right drug among all drugs by AUC on each real set, with permuted labels too, and on CCLE lines."""
    rows, of_network = out.read("drugs_on_real_sets"), out.read("drugs_on_real_sets_network")
    own, own_network = (t[t["is_right"]].set_index(["dataset", "draw"])["auc"] for t in (rows, of_network))
    ranks, said = _ranks(rows, own), []
    first = rows[rows["draw"] == -1].set_index("drug").groupby("dataset")["auc"].idxmax()
    own_ranks = ranks.xs(-1, level="draw")
    for name, own_rank in own_ranks.items():
        permuted = pd.DataFrame({"rank": ranks, "auc": own}).loc[[name]].drop(-1, level="draw")
        told = f"{own_rank} ({name}, AUC {own[name, -1]:.2f}; {first[name]} is first"
        if draws := len(permuted):
            as_good, as_high = (permuted["rank"] <= own_rank).sum(), (permuted["auc"] >= own[name, -1]).sum()
            told += f"; with permuted labels its rank is as good or better in {as_good}, its AUC as high or higher in "
            told += f"{as_high} of {draws} draws"
        said.append(f"{told})")
    of_network = _ranks(of_network, own_network).xs(-1, level="draw")
    named = {"network": ", ".join(f"{rank} ({name})" for name, rank in of_network.items())}
    over_cells = out.read("drugs_on_real_sets_rank")[["dataset", "rank", "rank_low", "rank_high"]].to_numpy()
    named["own"] = ", ".join(f"{name} {rank:.0f} ({low:.0f}–{high:.0f})" for name, rank, low, high in over_cells)
    counts = {"first_of": int((own_ranks == 1).sum()), "names": len(own_ranks), "drugs": rows["drug"].nunique()}
    ccle = out.read("ccle_drugs_rank")
    firsts = ccle["drug"][ccle["rank"] == 1]
    counts |= {"ccle_first": len(firsts), "ccle_firsts": ", ".join(firsts), "ccle_drugs": len(ccle),
               "ccle_chance": (1 / ccle["models"]).sum()}  # fmt: skip
    ccle = ccle[["auc", "outranked"]].mean().add_prefix("ccle_")
    return named | counts | {"ranks": ", ".join(said)} | ccle.to_dict()


def few_labels(out: Outputs) -> dict:
    """AUC with five labelled cells a class, and for each number of them on how many sets the difference is told."""
    rows = out.read("few_shot_paired").query("tier == 'real'")
    rows = rows.assign(side=rows.apply(_side, axis=1))
    counts = pd.crosstab(rows["k"], rows["side"]).reindex(columns=["better", "worse"], fill_value=0).apply(_listed)
    k = 5 if 5 in set(rows["k"]) else rows["k"].max()
    real = rows[rows["k"] == k]
    aucs = [f"{row.dataset} {row.first_mean:.3f} and {row.second_mean:.3f}" for row in real.itertuples()]
    said = [f"{_interval(row[DIFFERENCE], '+')} ({row['dataset']})" for _, row in real.iterrows()]
    sure = rows[rows["side"].isin(["better", "worse"])]
    named = [f"{row.side} on {row.dataset} with {row.k}" for row in sure.itertuples()]
    return {"aucs": ", ".join(aucs), "differences": ", ".join(said), "k": int(k), "ks": _listed(sorted(set(rows["k"]))),
            **counts, "named": f"It is {', '.join(named)}. " * bool(named), "names": len(real),
            "draws": int(real["pairs"].min())}  # fmt: skip


def _listed(values: Iterable) -> str:
    """Values in a sentence: commas, and *and* before the last."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last


def attention(out: Outputs) -> dict:
    """Comparisons of networks with and without attention, one a unit of cells, and where those told apart lie."""
    rows = out.table("heads_tests", metric="auc")
    units = {spec.name: spec.unit for spec in config.REAL}
    rows = rows.assign(unit=rows["dataset"].map(units).fillna(rows["dataset"]), told=rows["p_holm"] < 0.05)
    once = rows.drop_duplicates(["unit", "setting"])
    linear, once = (once[(once["setting"] == "linear") == other] for other in (True, False))
    real = once[once["dataset"].isin(units)]
    side = once.loc[once["told"], "difference"]
    without = rows.loc[rows["dataset"].isin(units), "second_mean"]
    tiers = once["dataset"].map(config.TIERS).value_counts(sort=False)
    counts = {"all": len(once), "tiers": " and ".join(f"{n} are on {tier}" for tier, n in tiers.items()),
              "kinds": " and ".join(tiers.index),
              "linear": len(linear), "linear_told": int(linear["told"].sum()),
              "perfect": int((real[["first_mean", "second_mean"]] == 1).all(axis=1).sum())}  # fmt: skip
    return counts | {"without_low": without.min(), "without_high": without.max(),
            "favour": int((side > 0).sum()), "against": int((side < 0).sum())}  # fmt: skip


def gene_scores(out: Outputs) -> dict:
    """Correlation of gene scores with those of labels that are partly wrong: medians of the lower list, by set."""
    rows = out.read("gene_score_wrong_labels").groupby(["dataset", "wrong"], sort=False)[["r", "draws"]].min().dropna()
    said = {name: ", ".join(f"{r:.2f} with {wrong:.0%}" for (_, wrong), r in of.items())
            for name, of in rows["r"].groupby("dataset", sort=False)}  # fmt: skip
    few = rows.loc[rows.index.get_level_values("wrong") == 0.1, "r"].min()
    return {"spans": "; ".join(f"{name} {of}" for name, of in said.items()), "draws": int(rows["draws"].min()),
            "few": few, "kinds": " and ".join(dict.fromkeys(config.TIERS[name] for name in said))}  # fmt: skip


def printed(out: Outputs) -> dict:
    """What the rows of Table 4 seem to be."""
    return {"table4": audit.table4_said()}


FIRST = (held_out_clusters, single_cells, few_labels, right_drug, attention)
MORE = (gene_scores, printed)


def runs(data: str, profile: str) -> dict[str, Outputs]:
    """By profile, the runs that are asked for a finding, in their order: this run's own of its profile, else committed.

    A run on the paper's own cells stands alone.
    """
    own = paths.figures_dir(data, profile)
    if data != "embedded":
        return {profile: Outputs(own)}
    return {name: Outputs(own if name == profile else paths.COMMITTED[name]) for name in ORDER}


def _told(of_runs: dict[str, Outputs], values: Callable[[Outputs], dict]) -> tuple[str, dict]:
    """The first profile whose run has the tables of a sentence, and the sentence's values; else neither."""
    for profile, out in of_runs.items():
        with suppress(Missing):
            return profile, values(out)
    return "", {}


def sentences(
    of_runs: dict[str, Outputs], cited: Callable[[str], str], of: tuple[Callable[[Outputs], dict], ...] = FIRST
) -> tuple[str, list[str]]:
    """Sentences as items of a Markdown list, what no run computed says so; and the profiles that they name."""
    lines, used = [], []
    for values in of:
        entry = SENTENCES[values.__name__]
        profile, found_there = _told(of_runs, values)
        also = {what: cited(number) for what, number in CITED.items()}
        parts = (entry.get(part, "") for part in ("lead", "text", "more"))
        lead, text, more = (part.format(**found_there, **also) if found_there else "" for part in parts)
        title = entry["title"].format(**{"kinds": "real and simulated"} | found_there)
        title = f"**{title}{': ' * bool(lead)}{lead}**"
        at = f"; profile `{profile}`" * bool(profile)
        lines.append(f"- {title}. {text or MISSING} ({cited(entry['chapter'])}{at})")
        lines += [FOLD.format(more)] * bool(more)
        used.append(profile)
    return "\n".join(lines), [profile for profile in of_runs if profile in used]


def _amounts(profile: str) -> str:
    """How much a profile computes, as an item of a Markdown list."""
    spec, all_genes = config.profile(profile), len(gdsc.load_bulk().genes)
    most = f"{spec.max_genes:,} most variable of {all_genes:,}"
    drawn, drawn4 = ("once" if n == 1 else f"{n} times" for n in (spec.repeats, spec.repeats_table4))
    return (TEMPLATES / "amounts.md").read_text(encoding="utf-8").strip().format(
        of=spec, cfg=spec.training, genes=f"all {all_genes:,}" if spec.max_genes == all_genes else f"the {most}",
        drawn=drawn, drawn4=drawn4,
    )  # fmt: skip


def opening(
    of_runs: dict[str, Outputs], verdicts: pd.Series, cited: Callable[[str], str], picture: Callable[[Path | None], str]
) -> str:
    """What README and landing page begin with, as Markdown.

    `cited` makes a link to a chapter of its number, `picture` shows a drawing, if there is one.
    """
    printed_auc = audit.reported().query("where == 'Table 3' and metric == 'auc'")["value"]
    said, used = sentences(of_runs, cited)
    profile, in_short = _told(of_runs, short)
    where = f" Profile `{profile}`, but where another is named:" * bool(profile)
    _, at_paper = _told({name: out for name, out in of_runs.items() if name == "paper"}, larger)
    words, more = ((TEMPLATES / f"{name}.md").read_text(encoding="utf-8") for name in ("in_short", "larger"))
    chapters = {what: cited(number) for what, number in CITED.items()}
    more = more.format(**at_paper, **chapters) if at_paper else ""
    in_short = words.strip().format(**in_short, **chapters, larger=more) if in_short else MISSING
    drawn = drawing(of_runs, found.PICTURE)
    of_picture = next((profile for profile, out in of_runs.items() if drawn and out.folder == drawn.parent), "")
    shown = f"The picture is of profile `{of_picture}`.\n\n" if of_picture and used != [of_picture] else ""
    return (TEMPLATES / "opening.md").read_text(encoding="utf-8").strip().format(
        paper_low=printed_auc.min(), paper_high=printed_auc.max(), sentences=said, short=in_short, where=where,
        picture=picture(drawn), shown=shown,
        amounts="\n".join(map(_amounts, used)), paper_epochs=config.PAPER_EPOCHS,
        units=report.units(config.REAL), claims=len(verdicts),
        untestable=int((verdicts == UNTESTED).sum()), ten=cited("11"), own=cited("13"), scores=cited("08"),
        bit=cited("04"), hour=", ".join(map(cited, ("03", "04", "16"))),
    )  # fmt: skip


def drawing(of_runs: dict[str, Outputs], name: str) -> Path | None:
    """The file of a figure in the first run that has drawn it."""
    drawn = (out.folder / f"{name}.svg" for out in of_runs.values())
    return next((path for path in drawn if path.exists()), None)


def chapters_of(folder: Path) -> list[int]:
    """Numbers of the chapters whose outputs a committed run has."""
    outputs = json.loads((folder / "manifest.json").read_text())["outputs"]
    return sorted({int(made["notebook"][:2]) for made in outputs.values()})


def chapters_said(ran: list[int], of: int) -> str:
    """Which of so many chapters a run has, as text."""
    return f"all {of} chapters" if len(ran) == of else f"chapters {', '.join(map(str, ran))} of {of}"
