"""What an effect with its interval says of a claim, and of a printed number: two questions, two kinds of words."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Self

import numpy as np
from scipy import stats as sps

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
FAILS, UNTESTED, ILL_POSED = "does not hold", "cannot be tested here", "ill-posed"
MISSING = "not computed in this run"
#: Words for a claim. The first three come from an effect and its interval, or from plain arithmetic on public files or
#: printed numbers; the fourth says that descriptions, equations or printed numbers say otherwise.
VERDICTS = (SUPPORTED, REFUTED, UNDECIDED, FAILS, UNTESTED, ILL_POSED, MISSING)
YES, NO, NOT_TESTED = "yes", "no", "not tested"


@cache
def limit(df: float, tests: int = 1) -> float:
    """Half the width of an interval in standard errors, for so many tests at once."""
    return float(sps.t.isf(0.025 / tests, df))


class Effect(NamedTuple):
    """An estimate with its 95 % limits and the degrees of freedom behind them; `room` is how far it could rise."""

    value: float
    low: float = np.nan
    high: float = np.nan
    df: float = np.inf
    room: float = np.inf

    def widened(self, tests: int) -> Self:
        """With limits that hold for so many tests at once (Bonferroni)."""
        if tests == 1 or np.isnan(self.df):
            return self
        factor = limit(self.df, tests) / limit(self.df)
        low, high = self.value - factor * (self.value - self.low), self.value + factor * (self.high - self.value)
        return self._replace(low=low, high=high)

    def negated(self) -> Self:
        """Of the opposite sign, so that more is always in favour of the claim."""
        return self._replace(value=-self.value, low=-self.high, high=-self.low)


class Found(NamedTuple):
    """What a rule found: the effect that is shown, the two verdicts, a note, and what each of several readings gave."""

    effect: Effect
    verdict: str
    reproduced: str = ""
    note: str = ""
    by_reading: str = ""


def plain(value: float, holds: bool, note: str = "", reproduced: str = "") -> Found:
    """Found where there is no interval: what is claimed of public files or printed numbers holds or does not."""
    return Found(Effect(value), SUPPORTED if holds else FAILS, reproduced, note)


class Untestable(Exception):
    """What a claim speaks of is not in the data, whatever the run."""


def decide(effects: Sequence[Effect], above: float, below: float) -> str:
    """Verdict on a claim that all of the effects are large.

    Supported if every interval lies above `above`; refuted if one lies below `below`, with limits that hold for all of
    them at once and with room for as much; else undecided, as with limits that are NaN.

    Parameters
    ----------
    effects : sequence of Effect
        At least one; turned so that more is in favour of the claim.
    above, below : float
        For a level both are the threshold less the margin. For *better* they are zero and the margin: refuted is an
        advantage that matters.
    """
    if all(e.low > above for e in effects):
        return SUPPORTED
    if any(e.widened(len(effects)).high < below and e.room >= below for e in effects):
        return REFUTED
    return UNDECIDED


def reproduces(effect: Effect, printed: float, margin: float) -> str:
    """Whether a printed number is found again: *yes*, *no* or *undecided*.

    Parameters
    ----------
    effect : Effect
        What was found, with its limits.
    printed, margin : float
        *yes* only if the whole interval lies within the margin around the printed number, *no* only if all of it is
        outside on one side.
    """
    if effect.low >= printed - margin and effect.high <= printed + margin:
        return YES
    return NO if effect.high < printed - margin or effect.low > printed + margin else UNDECIDED


def agreed(found: dict[str, Found]) -> Found:
    """One finding from those of all readings: a verdict is what all of them give; the effect is the first one's."""
    first, *others = found.values()
    if not others:
        return first
    words = ({getattr(f, kind) for f in found.values()} for kind in ("verdict", "reproduced"))
    verdict, reproduced = (given.pop() if len(given) == 1 else UNDECIDED for given in words)
    texts = (
        f"{reading}: {f.verdict or f.reproduced} {interval(*f.effect[:3])}" + f" ({f.note})" * bool(f.note)
        for reading, f in found.items()
    )
    return Found(first.effect, verdict, reproduced, by_reading="; ".join(texts))


def interval(mean: float, low: float, high: float) -> str:
    """Mean and interval as text; empty where nothing was computed."""
    if np.isnan(mean):
        return ""
    return f"{mean:.4g}" if np.isnan(low) or np.isnan(high) else f"{mean:.3f} ({low:.3f} to {high:.3f})"
