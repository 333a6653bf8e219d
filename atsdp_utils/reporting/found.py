"""The picture of what was found, beside the sentences of README and landing page (``book/opening.py``)."""

from contextlib import suppress

from atsdp_utils.foundation import config
from atsdp_utils.reporting import plots
from atsdp_utils.reporting.outputs import Missing, Outputs
from atsdp_utils.reporting.verdict import MISSING

#: Its name; chapter 11 makes it.
PICTURE = "found"
#: Rows of the figure: what a score comes from, in :data:`transfer` and in :data:`clusters_mean`, and its colour.
ROWS = [(m, m, m, plots.SERIES[7]) for m in ("PC1, bulk sign", "logistic regression", "random forest")] + [
    ("support vectors (left only)", "", "support vectors", plots.SERIES[7]),
    ("before transfer", "before transfer", "ATSDP-NET, bulk only", plots.SERIES[3]),
    ("further steps on bulk", "further steps on bulk", "ATSDP-NET, further steps only", plots.SERIES[3]),
    ("after transfer", "after transfer", "ATSDP-NET", plots.SERIES[0]),
]


def figure(out: Outputs):
    """AUC without a label of any cell, a panel a set, a row a score; sets whose table is not there are left out."""
    panels = {}
    with suppress(Missing):
        clusters = out.table("clusters_mean", on="tasks of the networks").set_index("model")
        panels[f"held-out clusters,\n{clusters['tasks'].max()} tasks"] = clusters.reindex([m for _, _, m, _ in ROWS])
    for name in [spec.name for spec in config.REAL]:
        with suppress(Missing):
            rows = out.table("transfer", dataset=name).rename(columns={"auc_mean": "mean"}).set_index("setting")
            panels[name] = rows.reindex([setting for _, setting, *_ in ROWS])
    fig, axes = plots.figure(8, 2.9, columns=max(len(panels), 1), sharex=True, sharey=True, squeeze=False)
    names, colours = [name for name, *_ in ROWS], {name: colour for name, *_, colour in ROWS}
    for ax, (title, rows) in zip(axes[0], panels.items(), strict=False):
        plots.dots(ax, rows.assign(score=names), row="score", chance=0.5, colours=colours)
        ax.set_title(title, fontsize=9)
    fig.supxlabel("AUC, mean and 95 % interval; one half is chance" if panels else MISSING, fontsize=9)
    return fig
