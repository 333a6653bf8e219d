"""The page beside a person's scores: one HTML file with its pictures inside, nothing to fetch."""

from __future__ import annotations

import base64
import html
import io
from string import Template
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from atsdp_utils.foundation import config
from atsdp_utils.own_cells import company
from atsdp_utils.reporting import plots, report

if TYPE_CHECKING:
    from atsdp_utils.own_cells.predict import Prediction

SCORE = LinearSegmentedColormap.from_list("score", [plots.RESISTANT, "#E8E8E8", plots.SENSITIVE])

#: Look of the pages.
STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1d1d1d; background: #fff; max-width: 52rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th { color: #555; } img { max-width: 100%; height: auto; }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #ddd; font-weight: normal;
         vertical-align: top; }
.warning { background: #fff3c4; border-left: 4px solid #8a5a00; padding: .4rem 1rem; }
"""
PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$drug: scores of $input</title>
<style>$style</style></head><body>
<h1>$drug: sensitivity scores of $cells cells</h1>
<p>Input: $input. $counts</p>
<p class="warning">$company</p>
$warnings
<h2>Cells, coloured by score</h2>
<img alt="UMAP of the cells coloured by the probability of being sensitive" src="$umap">
<p>UMAP of the values of the genes used, standardised over the cells$drawn. The colour is the score; the layout does not
know it.</p>
<h2>Scores</h2>
<img alt="Histogram of the scores and spread of the networks against the score" src="$histogram">
<p>Left: cells by score; 0.5 divides the two labels. Right: how far the networks differ on a cell (standard deviation).
$agreement</p>
$metrics
<h2>Calibrated on cell lines</h2>
<p>$calibrated</p>
<div class="warning"><strong>Promised for cell lines, not for cells.</strong> Cells are no random draw from the lines,
so neither the probability nor the rate is guaranteed for them. $evidence</div>
<h2>Genes</h2>
<img alt="Bars: genes of the bulk, measured by the file, used by the networks" src="$overlap">
<p>$genes</p>
<h2>How unlike the cell lines these cells are</h2>
<table>$unlike</table>
<p>The further apart the two, the more the scores extrapolate. Labels of cells would be needed to know the harm.</p>
<h2>What the score means, and what it does not</h2>
<ul>
<li>It says which cells of <em>this file</em> look more like cell lines that $drug kills. Genes are standardised over
the cells of the file, so a score depends on the company a cell was measured in: do not compare scores of two files, and
expect both labels even in a file of one kind of cells.</li>
<li>P(sensitive) is not a calibrated probability. Networks learned from $lines; on held-out lines their AUC is
$held_out, but nothing guarantees that level on single cells, and 0.5 need not be the right cut.</li>
<li>The deviation shows how far networks with different seeds differ. It does not show the error that they share.</li>
<li>The direction itself can fail to carry over from lines to cells. A few cells of known response are the best check
(<code>--labels</code>).</li>
<li>For research and teaching. Not a statement about a patient.</li>
</ul>
<h2>How it was made</h2>
<table>$facts</table>
</body></html>
""")


def render(found: Prediction, y: np.ndarray | None) -> str:
    """The page as text; `y` are the person's labels, drawn beside the scores, or None."""
    facts = found.facts
    rows, _ = found.layout
    labels, count = np.unique(found.label, return_counts=True)
    fill = {
        "drug": facts["drug"], "input": facts["input"], "cells": f"{facts['cells']:,}",
        "counts": ", ".join(f"{n:,} {label}" for label, n in zip(labels, count, strict=True)) + ".",
        "drawn": f" ({len(rows):,} cells drawn at random)" if len(rows) < facts["cells_scored"] else "",
        "agreement": _agreement(found), "genes": _genes(facts), "held_out": _auc(facts),
        "company": _company(facts), "calibrated": _calibrated(found), "evidence": _evidence(found),
        "lines": f"{found.bulk_classes[1]} sensitive and {found.bulk_classes[0]} resistant lines",
    }  # fmt: skip
    fill = {k: html.escape(v) for k, v in fill.items()} | {"style": STYLE}
    with mpl.rc_context(plots.STYLE):
        fill |= {
            "umap": _picture(_umap(found)),
            "histogram": _picture(_histogram(found, y)),
            "overlap": _picture(_bars(facts)),
        }
    warned = "".join(f"<li>{html.escape(w)}</li>" for w in facts["warnings"])
    fill["warnings"] = (
        f'<div class="warning"><strong>Before you use the scores</strong><ul>{warned}</ul></div>' if warned else ""
    )
    fill["unlike"] = as_rows(_unlike(found.unlike))
    fill["metrics"] = "" if y is None else _against_labels(found.metrics)
    plain = {k: v for k, v in facts.items() if k not in ("warnings", "metrics", "company")}
    fill["facts"] = as_rows(
        {k.replace("_", " "): f"{v:.3f}" if isinstance(v, float) else str(v) for k, v in plain.items()}
    )
    return PAGE.substitute(fill)


def as_rows(rows: dict[str, str]) -> str:
    """Rows of a table of two columns, in HTML."""
    return "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())


def _against_labels(metrics: dict[str, float]) -> str:
    named = {k: f"{metrics[k]:.3f}" for k in config.METRICS}
    return (f"<h2>Against your labels</h2><table>{as_rows(named)}</table><p>Over {metrics['cells']:,} labelled cells. "
            "Precision, recall and F1 are means of both classes weighted by their size, at a cut of 0.5. "
            "Labels were used for this table and the coverage below, for nothing else.</p>")  # fmt: skip


def _company(facts: dict) -> str:
    """The sentence on company, as a sentence of its own."""
    said = company.sentence(facts["company"])
    return f"{said[0].upper()}{said[1:]}."


def _agreement(found: Prediction) -> str:
    from atsdp_utils.own_cells.predict import agreement

    a = agreement(found.members)
    if np.isnan(a["mean"]):
        return "There is one network, so nothing to compare."
    return (f"The {len(found.members)} networks rank the cells with a mean correlation of {a['mean']:.2f} (lowest pair "
            f"{a['lowest']:.2f}) and give {a['same']:.0%} of the cells the same label.")  # fmt: skip


def _calibrated(found: Prediction) -> str:
    """What the held-out lines make of the scores."""
    facts, p = found.facts, found.calibrated[~np.isnan(found.calibrated)]
    lines = f"{facts['held_out_sensitive']} sensitive and {facts['held_out_resistant']} resistant lines"
    if not len(p):
        return f"Not possible: there are {lines} that no training saw, and both classes are needed."
    low, middle, high = np.quantile(p, (0.05, 0.5, 0.95))
    text = (f"{lines} that no training saw calibrate the score. The share of them with such a score that is sensitive "
            f"(atsdp_p_calibrated) is {middle:.2f} for the median cell and between {low:.2f} and {high:.2f} for nine "
            "cells of ten. ")  # fmt: skip
    if found.sets is None:
        return text + "They are too few for conformal sets (see the warnings)."
    words = pd.Series(found.conformal[~np.isnan(found.p)])
    shares = ", ".join(f"{n:.1%} {word}" for word, n in words.value_counts(normalize=True).items() if n)
    return text + (f"The conformal set (atsdp_conformal) holds the labels that the lines do not rule out; of new lines "
                   f"of either class it misses {facts['conformal_alpha']:.0%} at most on average. Sets of the cells: "
                   f"{shares}.")  # fmt: skip


def _evidence(found: Prediction) -> str:
    """Coverage that was measured on cells: the person's, and those of the committed reference run."""
    said, promised = "", 1 - found.facts["conformal_alpha"]
    if "conformal_coverage" in found.metrics:
        m = {k: f"{v:.0%}" for k, v in found.metrics.items() if k.startswith("conformal")}
        said = (f"In your labelled cells the sets hold the true label of {m['conformal_coverage']} "
                f"({m['conformal_coverage_sensitive']} of the sensitive, {m['conformal_coverage_resistant']} of the "
                f"resistant cells), where lines are promised {promised:.0%}. ")  # fmt: skip
    measured = report.REFERENCE / "plus_coverage.csv"
    if not measured.exists():
        return said + "Notebook 12 of the book measures both on real labelled sets."
    rows = {(row.dataset, row.asked): row for row in pd.read_csv(measured).itertuples()}
    each = {
        key: f"coverage {row.coverage:.0%}, calibration error {row.ece_calibrated:.2f}" for key, row in rows.items()
    }
    sets = "; ".join(f"{d}: {each[d, 'cells']} (lines: {each[d, 'lines']})" for d in dict.fromkeys(d for d, _ in rows))
    return f"{said}Notebook 12 of the book measured both on real labelled sets. {sets}."


def _auc(facts: dict) -> str:
    auc = facts["held_out_auc"]
    return "unknown, for they are of one class" if np.isnan(auc) else f"{auc:.2f}"


def _genes(facts: dict) -> str:
    return (f"The file names {facts['genes_in_file']:,} genes ({facts['gene_names']} in {facts['gene_names_in']}); "
            f"{facts['genes_shared']:,} of the {facts['genes_in_bulk']:,} genes of the bulk are there "
            f"({facts['gene_overlap']:.0%}); the {facts['genes_used']:,} most variable are used.")  # fmt: skip


def _unlike(u: dict[str, float]) -> dict[str, str]:
    shift = "hidden: the values were centred per gene before" if np.isnan(u["gene_shift"]) else (
        f"{u['gene_shift']:.2f} standard deviations over lines (median over genes)")  # fmt: skip
    return {
        "MMD² between lines and cells": f"{u['mmd2']:.4f} (two halves of the lines: {u['mmd2_lines']:.4f})",
        "A random forest told to separate them": f"AUC {u['auc']:.3f} (0.5: cannot, 1: always)",
        "Shift of the level of a gene, before standardisation": shift,
    }


def _picture(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _umap(found: Prediction) -> Figure:
    rows, xy = found.layout
    figure = Figure((7, 4.6))
    ax = figure.subplots()
    size = max(3, min(30, 6000 / len(rows)))
    colours = {"c": found.p[rows], "cmap": SCORE, "vmin": 0, "vmax": 1, "edgecolor": "#777777"}
    drawn = ax.scatter(*xy.T, s=size, linewidth=0.2, **colours)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    figure.colorbar(drawn, label="P(sensitive)")
    return figure


def _histogram(found: Prediction, y: np.ndarray | None) -> Figure:
    figure = Figure((7, 2.8))
    left, right = figure.subplots(1, 2)
    groups = {-1: found.p} if y is None else {label: found.p[y == label] for label in (1, 0)}
    for label, p in groups.items():
        name = "all cells" if y is None else f"labelled {plots.CLASS_NAME[label]}"
        left.hist(p[~np.isnan(p)], bins=np.linspace(0, 1, 31), color=plots.CLASS[label], alpha=0.65, label=name)
    left.axvline(0.5, color="#222222", linewidth=1, linestyle=":")
    left.set(xlabel="P(sensitive)", ylabel="cells", xlim=(0, 1))
    left.legend()
    right.scatter(
        found.p, found.columns["atsdp_p_sd"], s=4, color=plots.SERIES[0], linewidth=0, alpha=0.5, rasterized=True
    )
    right.set(xlabel="P(sensitive)", ylabel="sd over networks", xlim=(0, 1))
    return figure


def _bars(facts: dict) -> Figure:
    figure = Figure((7, 1.6))
    ax = figure.subplots()
    names = {"in the bulk": "genes_in_bulk", "and in the file": "genes_shared", "and used": "genes_used"}
    bars = ax.barh(list(names), [facts[k] for k in names.values()], color=plots.SERIES[3])
    ax.bar_label(bars, fmt="{:,.0f}", padding=3)
    ax.invert_yaxis()
    ax.set(xlabel="genes", xlim=(0, facts["genes_in_bulk"] * 1.12))
    return figure
