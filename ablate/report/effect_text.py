"""One contrast in one sentence: what it adds or loses, with its interval, or its estimate where it is unclear."""

import math
from dataclasses import dataclass

from ablate.report.formatting import percent
from ablate.report.row_words import reference_name
from ablate.report.score_text import (
    difference_text,
    is_share,
    number_text,
    places_of,
    round_difference,
    score_text,
    unit_text,
)
from ablate.report.words import capitalised, say
from ablate.results.collect import Metric, RowResult
from ablate.results.effects import Effect
from ablate.results.gap_recovered import Gap
from ablate.results.verdicts import Finding, Verdict, sign_of

CLEAR = ("better", "worse", "suggestive")
"""Verdicts with a direction: that of one seed is in the interval, and how little one seed is, is said once a page."""


@dataclass(frozen=True)
class Gain:
    """What a contrast comes to by one metric, in the metric's own direction."""

    metric: Metric
    name: str
    """Of the metric, as people write it."""
    value: float
    low: float
    high: float
    verdict: Verdict
    sign: int
    """-1 where lower is better."""
    delta: float
    """Differences inside do not matter."""

    @property
    def is_clear(self) -> bool:
        return self.verdict in CLEAR

    @property
    def is_ahead(self) -> bool:
        """Whether it is clearly on the better side."""
        return self.is_clear and self.value * self.sign > 0

    @property
    def is_behind(self) -> bool:
        return self.is_clear and self.value * self.sign < 0

    @property
    def is_known(self) -> bool:
        """Whether it has an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def sizes(self) -> dict[str, str]:
        """-> size, low and high of a clear one, as positive numbers where it is one: `16 points`, `6`, `26`."""
        ends = (self.low, self.high) if self.value > 0 else (-self.high, -self.low)
        places = places_of(self.metric, *ends)
        low, high = (number_text(self.metric, end, places) for end in ends)
        return {"size": difference_text(self.metric, abs(self.value), places), "low": low, "high": high}

    def ends(self) -> dict[str, str]:
        """-> low and high of an unclear one, with their signs: `-3`, `+9 points`."""
        places = places_of(self.metric, self.low, self.high, shows_signs=False)
        texts = [number_text(self.metric, end, places, is_signed=True) for end in (self.low, self.high)]
        low, high = (text if text.strip("+0.\N{MINUS SIGN}") else text[1:] for text in texts)
        return {"low": low, "high": high + unit_text(self.metric, high)}

    def signed(self) -> dict[str, str]:
        """-> size, low and high of an unclear one, with their signs: `+3 points`, `-3`, `+9`."""
        places = places_of(self.metric, self.low, self.high, shows_signs=False)
        values = {"size": self.value, "low": self.low, "high": self.high}
        texts = {name: number_text(self.metric, value, places, is_signed=True) for name, value in values.items()}
        bare = {name: text if text.strip("+0.\N{MINUS SIGN}") else text[1:] for name, text in texts.items()}
        return bare | {"size": bare["size"] + unit_text(self.metric, bare["size"].strip("+\N{MINUS SIGN}"))}

    @property
    def unsigned_size(self) -> str:
        """-> of an unclear one: `12 points`."""
        places = places_of(self.metric, self.low, self.high, shows_signs=False)
        return difference_text(self.metric, abs(self.value), places)

    @property
    def limit(self) -> str:
        """-> within which differences do not matter: `1 point`."""
        return round_difference(self.metric, self.delta)


def gain_of_effect(effect: Effect, name: str, delta: float) -> Gain:
    sign = sign_of(effect.rows[0][0], effect.metric)
    return Gain(effect.metric, name, effect.contrast.value, effect.low, effect.high, effect.verdict, sign, delta)


def gain_of_finding(finding: Finding, name: str, delta: float) -> Gain | None:
    """-> None of what cannot be compared."""
    contrast = finding.contrast
    if contrast is None:
        return None
    return Gain(finding.metric, name, contrast.value, finding.low, finding.high, finding.verdict, finding.sign, delta)


def gain_text(gain: Gain, subject: str, more: str = "") -> str:
    """-> `Fine-tuning the teacher first adds 16 points on tiny_letters (6 to 26).`; `more` ends the sentence."""
    more += "" if gain.sign > 0 else say("more.lower")
    return capitalised(_gain_text(gain, {"subject": subject, "metric": gain.name, "more": more}))


def _gain_text(gain: Gain, values: dict[str, str]) -> str:
    if gain.is_clear:
        return say(f"effect.{verb_of(gain)}", **values, **gain.sizes())
    if gain.verdict == "equivalent":
        return say("effect.equivalent", **values, delta=gain.limit)
    return say("effect.unclear", **values, **gain.signed()) if gain.is_known else say("effect.no_error", **values)


def verb_of(gain: Gain) -> str:
    """-> what a clear one does: points are added or lost, a metric with a unit of its own is raised or lowered."""
    verbs = ("adds", "loses") if is_share(gain.metric) and gain.sign > 0 else ("raises", "lowers")
    return verbs[gain.value < 0]


def gap_text(gap: Gap | None, metric: Metric) -> str:
    """-> the end of a sentence; empty where there is no gap, or its interval reaches to none of it."""
    if gap is None or gap.why or not gap.low > 0 or gap.control is None:
        return ""
    values = {
        "percent": percent(gap.value),
        "control": reference_name(gap.control.row) + _bracketed(gap.control, metric),
        "teacher": _bracketed(gap.teachers[0], metric) if len(gap.teachers) == 1 else "",
    }
    return say("more.whole_gap" if gap.value >= 1 else "more.gap", **values)


def _bracketed(row: RowResult, metric: Metric) -> str:
    """-> ` (77.1 %)`."""
    score = row.score(metric)
    return f" ({score_text(metric, score.value)})" if score else ""
