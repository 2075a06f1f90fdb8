"""Judges the claims by the runs of a store."""

from analysis.claims.arms import JUDGED, Arms
from analysis.claims.counted import counted
from analysis.claims.criteria import Verdict, exactly, together
from analysis.claims.declared import Claim, Claims, Part, Study
from analysis.claims.judged import Judged, Verdicts
from analysis.claims.question import Question
from analysis.claims.weights import judge_weights
from analysis.items import read_item
from analysis.section7.statistics import SWEEP as SECTION7


def judge(claims: Claims, store: str, scale: str, names: frozenset[str] | None = None) -> list[Verdicts]:
    """Judges claims.

    Args:
        claims: What they declare.
        store: The folder that holds runs/.
        scale: A scale of the sweeps.
        names: Ids of the claims; None: all.
    """
    return judged(claims, Arms(store, scale), names)


def judged(claims: Claims, arms: Arms, names: frozenset[str] | None = None) -> list[Verdicts]:
    """Judges claims by arms that others read too."""
    return [_judge(claim, claims, arms) for claim in claims.claims if names is None or claim.id in names]


def sweeps_beside_the_margin(claims: Claims) -> set[str]:
    """Returns the sweeps whose runs claims judge by scores or weights: all that needs the margin."""
    asked = [part for claim in claims.claims for part in claim.parts if part.test not in ("count", "ratio")]
    return {SECTION7 if part.item is None else str(getattr(read_item(part.item), "sweep", "")) for part in asked}


def _judge(claim: Claim, claims: Claims, arms: Arms) -> Verdicts:
    command = arms.command("claims", claim.id)
    if not claim.parts:
        verdict = Verdict.paper_scale_only if claim.paper_only else Verdict.not_run
        return Verdicts(claim, verdict, [], arms.scale, claim.missing, command)
    parts = [_count(part) for part in claim.parts if part.test == "count"]
    for study, regime in _studies(claim, arms.scale):
        asked = [part for part in claim.parts if part.test != "count" and part.is_asked_of(study)]
        parts += [
            _answer(part, on, regime, arms, claims, len(asked)) for part in asked for on in arms.studies(part, study)
        ]
    found = Verdicts(claim, Verdict.not_run, parts, arms.scale, claim.missing, command)
    return found._replace(verdict=together([each.outcome.verdict for each in found.headline]))


def _studies(claim: Claim, scale: str) -> list[tuple[Study, str | None]]:
    """Returns what a claim is judged on; at other scales the first study, with the sweeps as they are."""
    if scale != JUDGED:
        return [(study, None) for study in claim.studies[:1]]
    return [(study, regime) for study in claim.studies for regime in study.regimes]


def _answer(part: Part, study: Study, regime: str | None, arms: Arms, claims: Claims, family: int) -> Judged:
    if part.test == "above_chance":
        return judge_weights(part, study, regime, arms, claims, family)
    return Question(part, study, regime, arms, claims, family).answer()


def _count(part: Part) -> Judged:
    value, how = counted(part)
    return Judged(part, None, None, exactly(value, part.least, part.most, how))
