"""Each verdict is one sentence that a reader without statistics understands."""

import pytest

from analysis.claims.criteria import Outcome, Side, Verdict
from analysis.claims.declared import Claim, Part, Study
from analysis.claims.judge import Judged, Verdicts
from analysis.items import names
from analysis.report.sentences import sentence

STUDY = Study(model="minilm", task="movies", regimes=["tuned"])


def part(says: str, verdict: Verdict, seeds: int | None = None, finished: int = 10, ran: bool = True) -> Judged:
    study, regime = (STUDY, "tuned") if ran else (None, None)
    outcome = Outcome(verdict, "A reason.", seeds)
    one = Judged(Part(says=says, test="better"), study, regime, outcome, {}, 0.0, Side.above, None, ())
    return one._replace(finished=finished, expected=10)


def said(verdict: Verdict, *parts: Judged, missing: str | None = None) -> str:
    claim = Claim(id="one", section="1", claim="One is best.", kind="quality", missing=missing)
    return sentence(Verdicts(claim, verdict, list(parts), "proxy", missing, "python -m analysis claims one"), names())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            said(Verdict.supported, part("Rank 1 is enough", Verdict.supported), part("q,v win", Verdict.supported)),
            "Our runs show it on minilm: rank 1 is enough; q,v win.",
        ),
        (
            said(
                Verdict.supported,
                part("Rank 1 is enough", Verdict.supported),
                part("q,v win", Verdict.supported)._replace(is_same=True),
            ),
            "Our runs show it on minilm: rank 1 is enough. Of the other parts nothing was compared, as tuning chose "
            "the value that both arms have.",
        ),
        (
            said(Verdict.supported, part("q,v win", Verdict.supported)._replace(is_same=True)),
            "Nothing was compared on minilm: tuning chose the value that both arms have.",
        ),
        (
            said(Verdict.supported, part("It takes 35 MB", Verdict.supported, ran=False)),
            "A count of weights shows it: it takes 35 MB.",
        ),
        (
            said(
                Verdict.contradicted,
                part("Rank 1 is enough", Verdict.supported),
                part("Full is worse", Verdict.contradicted),
            ),
            "Our runs say otherwise on minilm. It does not hold that full is worse.",
        ),
        (
            said(Verdict.undecided, part("Rank 1 is enough", Verdict.undecided, seeds=24)),
            "Too close to call on minilm is whether rank 1 is enough; about 24 seeds would tell.",
        ),
        (
            said(Verdict.undecided, part("Rank 1 is enough", Verdict.undecided)),
            "Too close to call on minilm is whether rank 1 is enough; more seeds alone would not tell.",
        ),
        (
            said(Verdict.interim, part("Rank 1 is enough", Verdict.interim, finished=3)),
            "Not judged before all runs are there on minilm: 3 of 10 runs are there.",
        ),
        (
            said(Verdict.interim, part("Rank 1 is enough", Verdict.interim)),
            "Not judged yet on minilm: a reason.",
        ),
        (said(Verdict.not_run, missing="GLUE is not here"), "Not tested yet: GLUE is not here."),
        (
            said(Verdict.paper_scale_only, missing="memory of GPT-3"),
            "Only the paper's own model could show it: memory of GPT-3.",
        ),
    ],
)
def test_a_verdict_is_a_sentence(found: str, expected: str) -> None:
    assert found == expected
