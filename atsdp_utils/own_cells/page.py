"""The page beside a person's scores: one HTML file with its pictures inside, nothing to fetch."""

import base64
import io
from pathlib import Path

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from atsdp_utils.foundation import config, paths
from atsdp_utils.own_cells import prediction
from atsdp_utils.own_cells.prediction import Prediction, agreement
from atsdp_utils.reporting import plots

SCORE = LinearSegmentedColormap.from_list("score", [plots.CLASS[0], "#E8E8E8", plots.CLASS[1]])
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters |= {"whole": "{:,}".format, "percent": "{:.0%}".format}
TEMPLATES.globals["table"] = TEMPLATES.get_template("table.html").module.table


def render(found: Prediction, y: np.ndarray | None) -> str:
    """The page as text; `y` are the person's labels, drawn beside the scores, or None."""
    facts, auc = found.facts, found.facts["held_out_auc"]
    labels, count = np.unique(found.label, return_counts=True)
    calibrated = found.calibrated[~np.isnan(found.calibrated)]
    sets = found.columns.atsdp_conformal[~np.isnan(found.p)].value_counts(normalize=True)
    against = {k: f"{v:.3f}" for k, v in found.metrics.items() if k in config.METRICS}
    if against and not np.isnan(found.metrics["auc_low"]):
        against["auc"] += f" ({found.metrics['auc_low']:.3f} to {found.metrics['auc_high']:.3f})"
    pictures = {}
    with mpl.rc_context(plots.STYLE):
        for name, figure in {"umap": _umap(found), "histogram": _histogram(found, y)}.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
            pictures[name] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return TEMPLATES.get_template("page.html").render(
        found=found, facts=facts, labelled=y is not None, agree=agreement(found.members),
        counts=", ".join(f"{n:,} {label}" for label, n in zip(labels, count, strict=True)),
        company=prediction.company_said(facts["company"]), drawn=len(found.layout[0]), beside=held_out_clusters(),
        of_drug=of_drugs().get(facts["drug"]),
        held_out="unknown, for they are of one class" if np.isnan(auc) else f"{auc:.2f}",
        calibrated=[f"{q:.2f}" for q in np.quantile(calibrated, (0.05, 0.5, 0.95))] if len(calibrated) else [],
        shares=", ".join(f"{n:.1%} {word}" for word, n in sets.items() if n),
        against=against, made=made(facts), **pictures,
    )  # fmt: skip


def made(facts: dict) -> dict[str, str]:
    """What a page says of how it was made: names and values as text."""
    ways = {"gene_names_found": ", ".join(f"{n:,} {way}" for way, n in facts.get("gene_names_found", {}).items())}
    plain = {k: v for k, v in (facts | ways).items() if k not in ("warnings", "metrics", "company")}
    return {k.replace("_", " "): f"{v:.3f}" if isinstance(v, float) else v for k, v in plain.items()}


def held_out_clusters() -> str:
    """Mean AUC on clusters of lines that no model saw, in the committed reference run."""
    measured = paths.REFERENCE / "clusters_mean.csv"
    if not measured.exists():
        return ""
    table = pd.read_csv(measured).query("on == 'tasks of the networks'").set_index("model")
    rows = table.loc[["logistic regression, all genes", "ATSDP-NET", "ATSDP-NET+"]].itertuples()
    return ", ".join(f"{r.Index} {r.mean:.2f} ({r.ci_low:.2f} to {r.ci_high:.2f})" for r in rows)


def of_drugs() -> pd.Series:
    """Mean AUC of the regression over such clusters, by drug; empty without the reference run."""
    measured = paths.REFERENCE / "clusters_auc.csv"
    if not measured.exists():
        return pd.Series(dtype=float)
    return pd.read_csv(measured).query("model == 'logistic regression, all genes'").groupby("drug")["auc"].mean()


def _umap(found: Prediction) -> Figure:
    rows, xy = found.layout
    ax, size = Figure((7, 4.6)).subplots(), max(3, min(30, 6000 / len(rows)))
    colours = {"c": found.p[rows], "cmap": SCORE, "vmin": 0, "vmax": 1, "edgecolor": "#777777"}
    drawn = ax.scatter(*xy.T, s=size, linewidth=0.2, **colours)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.figure.colorbar(drawn, label="P(sensitive)")
    return ax.figure


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
    right.scatter(found.p, found.columns["atsdp_p_sd"], s=4, color=plots.SERIES[0], linewidth=0, alpha=0.5)
    right.set(xlabel="P(sensitive)", ylabel="sd over models", xlim=(0, 1))
    return figure
