"""The claims of a report: verdict, sentence, the paper's numbers and ours; what is not tested stands below."""

from analysis.claims.criteria import Verdict
from analysis.render.report.elements import Element, paragraph, paragraphs, tag, words
from analysis.report.data import ClaimShown, Report

UNTESTED = (Verdict.not_run.value, Verdict.paper_scale_only.value)


def claims(report: Report) -> list[Element]:
    """Returns the part of the page that holds the claims."""
    tested = [each for each in report.claims if each.record["verdict"] not in UNTESTED or each.record["evidence"]]
    rest = [each for each in report.claims if each not in tested]
    found = [paragraph(report.counts, class_="counts"), tag("div", *map(_claim, tested), class_="claims")]
    if rest:
        about = tag("summary", f"{len(rest)} claims that are not tested here")
        entries = (part for each in rest for part in _untested(each))
        found.append(tag("details", about, tag("dl", *entries), class_="rest"))
    return [*found, *(paragraph(note, class_="how") for note in report.notes)]


def _claim(claim: ClaimShown) -> Element:
    record = claim.record
    return tag(
        "article",
        tag("p", _verdict(claim), " ", tag("span", _where(claim), class_="where")),
        tag("h3", record["claim"]),
        tag("p", claim.sentence, class_="sentence"),
        tag(
            "dl",
            *(tag("dt", "the paper's numbers under the same test"), tag("dd", *words(claim.paper))),
            *(tag("dt", "ours"), tag("dd", *words(claim.ours))),
        ),
        *_missing(claim),
        tag("details", tag("summary", "Evidence"), *paragraphs(claim.details)),
        id=f"claim-{record['id']}",
    )


def _missing(claim: ClaimShown) -> list[Element]:
    if claim.command is None:
        return []
    lists = claim.command.startswith("python -m analysis claims")
    label = "The commands for what is missing: " if lists else "Compute what is missing: "
    return [tag("p", label, tag("code", claim.command), class_="command")]


def _verdict(claim: ClaimShown) -> Element:
    verdict = claim.record["verdict"]
    return tag("span", verdict, class_=f"verdict {verdict.replace(' ', '-')}")


def _where(claim: ClaimShown) -> str:
    """Returns what the verdict is about: its model, tier and regime, and where it differs."""
    return claim.verdict.removeprefix(claim.record["verdict"]).strip()


def _untested(claim: ClaimShown) -> list[Element]:
    record = claim.record
    return [tag("dt", record["claim"]), tag("dd", _verdict(claim), f" {claim.sentence}", id=f"claim-{record['id']}")]
