"""One interactive element: a decision threshold to slide, over values computed beforehand, with no library behind it.

The page shows a static figure of the same values beside it, for print and for readers without scripts.
"""

from __future__ import annotations

import hashlib
import html
import json

import numpy as np

from atsdp_utils.evaluation import metrics
from atsdp_utils.reporting import plots

SHOWN = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
}
_PAGE = """<div class="threshold-slider">
<p><label for="{id}-t">Threshold for calling a cell sensitive: <output id="{id}-v">0.50</output></label><br>
<input id="{id}-t" type="range" min="0" max="100" value="50" style="width:100%;max-width:40rem"></p>
<svg viewBox="0 0 100 32" role="img" aria-label="{label}" style="width:100%;max-width:40rem;background:#fff">
{bars}<line id="{id}-l" x1="50" x2="50" y1="0" y2="32" stroke="#000" stroke-width="0.4"/></svg>
<p>{key}</p>
<p id="{id}-o" aria-live="polite"></p>
<noscript>This slider needs JavaScript; the figure below holds the same values.</noscript>
<script>(function () {{
  const values = {values}, names = {names}, at = s => document.getElementById("{id}-" + s);
  function show() {{
    const i = +at("t").value, row = values[i];
    at("v").textContent = (i / 100).toFixed(2);
    at("l").setAttribute("x1", i); at("l").setAttribute("x2", i);
    at("o").textContent = row[0] + " of {n1} sensitive and " + row[1] + " of {n0} resistant cells are called right; " +
      names.map((n, k) => n + " " + row[k + 2].toFixed(3)).join(", ") + ".";
  }}
  at("t").addEventListener("input", show); show();
}})();</script></div>
"""


def threshold_table(y: np.ndarray, p: np.ndarray) -> list[list[float]]:
    """For thresholds 0, 0.01, … 1: sensitive and resistant cells called right, then the scores of :data:`SHOWN`."""
    rows = []
    for t in np.arange(101) / 100:
        called = p >= t
        scores = metrics.classification_metrics(y, p, threshold=t)
        right = [int((called & (y == 1)).sum()), int((~called & (y == 0)).sum())]
        rows.append(right + [round(scores[k], 4) for k in SHOWN])
    return rows


def threshold_slider(y: np.ndarray, p: np.ndarray, name: str) -> str:
    """HTML of a slider for the decision threshold.

    Parameters
    ----------
    y, p
        Labels and P(sensitive), (cells,).
    name
        What the cells are, for the text that a screen reader speaks.
    """
    bars = []
    for value, base in ((1, 16), (0, 32)):
        counts = np.histogram(p[y == value], bins=40, range=(0, 1))[0]
        for i, n in enumerate(counts / max(counts.max(), 1) * 14):
            if n:
                size = f'x="{2.5 * i + 0.1:.1f}" y="{base - n:.2f}" width="2.3" height="{n:.2f}"'
                bars.append(f'<rect {size} fill="{plots.CLASS[value]}"/>')
    values, names = (json.dumps(v) for v in (threshold_table(y, p), list(SHOWN.values())))
    return _PAGE.format(
        id="ts" + hashlib.sha256(values.encode()).hexdigest()[:8],
        values=values,
        names=names,
        bars="\n".join(bars),
        n1=int((y == 1).sum()),
        n0=int((y == 0).sum()),
        label=html.escape(f"P(sensitive) of {name}"),
        key=f"{html.escape(name)}: P(sensitive) of sensitive cells above, of resistant cells below.",
    )
