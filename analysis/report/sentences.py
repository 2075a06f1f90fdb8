"""A verdict in one sentence of plain words."""

from analysis.claims.criteria import Verdict
from analysis.claims.judged import Judged, Verdicts
from analysis.render import claims as render
from analysis.report.data import ClaimShown


def shown(found: Verdicts, names: render.Names) -> ClaimShown:
    """Returns a claim as the report shows it."""
    return ClaimShown(
        sentence=sentence(found, names),
        verdict=render.verdict_cell(found, names),
        paper=render.paper_cell(found, names),
        ours=render.our_cell(found),
        command=render.command(found),
        details=tuple(render.paragraph(found, names)[1:]),
        record=render.record(found),
    )


def sentence(found: Verdicts, names: render.Names) -> str:
    """Says what the verdict means."""
    deciding = found.deciding
    ran = [part for part in found.headline if part.study is not None]
    where = f" on {_model(ran[0], names)}" if ran else ""
    match found.verdict:
        case Verdict.supported if all(part.is_same for part in found.headline):
            return f"Nothing was compared{where}: tuning chose the value that both arms have."
        case Verdict.supported:
            how = "Our runs show it" if ran else "A count of weights shows it"
            compared = [part for part in found.headline if not part.is_same]
            rest = " Of the other parts nothing was compared, as tuning chose the value that both arms have."
            return f"{how}{where}: {_said(compared)}.{rest if len(compared) < len(found.headline) else ''}"
        case Verdict.contradicted:
            how = "Our runs say" if ran else "A count of weights says"
            return f"{how} otherwise{where}. It does not hold that {_said(deciding)}."
        case Verdict.undecided:
            needed = [part.outcome.seeds for part in deciding if part.outcome.seeds is not None]
            would_tell = bool(needed) and len(needed) == len(deciding)
            unit = deciding[0].replicates
            more = f"; about {max(needed)} {unit} would tell" if would_tell else f"; more {unit} alone would not tell"
            return f"Too close to call{where} is whether {_said(deciding, 'and whether')}{more}."
        case Verdict.uninformative:
            return f"These runs cannot tell{where} whether {_said(deciding, 'and whether')}."
        case Verdict.interim:
            if all(part.finished == part.expected for part in deciding):
                return f"Not judged yet{where}: {_inside(deciding[0].outcome.reason)}"
            there = " and ".join(dict.fromkeys(map(_there, deciding)))
            return f"Not judged before all runs are there{where}: {there}.{_elsewhere(found, names)}"
        case Verdict.not_judged:
            return f"Runs of this scale show that everything works{where}, and decide nothing."
        case Verdict.not_run:
            missing = f": {found.missing}" if found.missing is not None and not ran else ""
            return f"Not tested yet{where}{missing}.{_elsewhere(found, names)}"
        case Verdict.paper_scale_only:
            return f"Only the paper's own model could show it: {found.missing}."


def _elsewhere(found: Verdicts, names: render.Names) -> str:
    """Says what is decided in other regimes and on other models; empty if nothing is."""
    decided = (Verdict.supported, Verdict.contradicted, Verdict.undecided, Verdict.uninformative)
    said = [f"{verdict.value} {where}" for where, verdict in render.others(found, names) if verdict in decided]
    return f" Judged so far: {'; '.join(said)}." if said else ""


def _there(part: Judged) -> str:
    """Says how much of a part is there; of one that has all, what it lacks all the same."""
    if part.finished == part.expected:
        return _inside(part.outcome.reason.partition(". ")[0].rstrip("."))
    units = "seeds are measured" if part.part.statistic is not None else "runs are there"
    return f"{part.finished} of {part.expected} {units}"


def _said(parts: list[Judged], joined: str = "") -> str:
    return (f" {joined} " if joined else "; ").join(_inside(part.part.says) for part in parts)


def _inside(says: str) -> str:
    """Writes a statement as part of a sentence; names of methods and matrices stay as they are."""
    first = says.split()[0]
    return says[:1].lower() + says[1:] if first[1:].islower() or len(first) == 1 else says


def _model(part: Judged, names: render.Names) -> str:
    assert part.study is not None
    return names["models"].get(part.study.model, part.study.model)
