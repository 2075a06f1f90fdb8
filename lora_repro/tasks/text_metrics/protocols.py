"""The metrics of texts as tasks and tables declare them, by the protocol that says how each is computed.

Records hold shares from 0 to 1 under the names of the project: bleu, rouge_l. `python -m analysis score` prints them
under the names and in the units of the official scripts: BLEU in percent, METEOR, ROUGE_L and TER as fractions.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lora_repro.errors import InputError, did_you_mean
from lora_repro.tasks.metrics import Metric, Unit, exact_match
from lora_repro.tasks.text_metrics import any_language, dart, e2e, generation_eval, samsum, tools, wikisql
from lora_repro.tasks.text_metrics.given import EachMeasure, TextMeasure


@dataclass(frozen=True, eq=False)
class TextMetric:
    """A metric of a protocol."""

    metric: Metric
    """As records and tables have it."""
    key: str
    """As the official script prints it."""
    measure: TextMeasure
    settings: str
    """How it is computed, as sacrebleu writes signatures: `case:lc|tok:13a`."""
    needs: tuple[str, ...] = ()
    """Packages and Java, of `tools`."""
    of_each: EachMeasure | None = None
    """Where it is a mean over texts."""
    in_percent: bool = False
    """Whether the official script prints it times 100."""

    def printed(self, value: float) -> float:
        """Returns a value in the unit of the official script."""
        return 100 * value if self.in_percent else value

    @property
    def signature(self) -> str:
        """What decides its value: the settings, and the versions of what computes it."""
        versions = (f"{name}:{version}" for name, version in tools.versions(self.needs).items())
        return "|".join([self.settings, *versions])


@dataclass(frozen=True, eq=False)
class Protocol:
    """Metrics that are reported together."""

    name: str
    about: str
    """Whose protocol it is, for a table's note."""
    metrics: tuple[TextMetric, ...]

    @property
    def declared(self) -> tuple[Metric, ...]:
        """The metrics as a task declares them: `Texts(*E2E.declared)`."""
        return tuple(each.metric for each in self.metrics)

    def refuse_missing_tools(self) -> None:
        """Refuses to go on where a package or Java is missing.

        Raises:
            MissingInputError: With the command that installs it.
        """
        refuse_missing_tools(self.metrics)


def refuse_missing_tools(metrics: Iterable[TextMetric]) -> None:
    """Refuses to go on where something is missing that one of the metrics needs.

    Raises:
        MissingInputError: With the command that installs it.
    """
    for each in metrics:
        tools.refuse_missing(each.needs, each.key)


def _share(name: str, about: str) -> Metric:
    return Metric(name, Unit.percent, low=0.0, high=1.0, about=about)


_COCO = ("pycocoevalcap", tools.JAVA)
_STANFORD = "tok:stanford-3.4.1, no punctuation|case:lc|refs:all"
_SPLIT = r"case:lc|split:(\W)|refs:6, the first repeated"
_NLTK = f"{_SPLIT}|tok:nltk"
_METEOR = "meteor:1.5 -l en -norm"


EXACT_MATCH = TextMetric(_share("exact_match", ""), "exact_match", exact_match, "case:mixed|white space:any")
"""What a task of texts has that declares no other metric."""


def _generation_eval(data: str) -> tuple[TextMetric, ...]:
    """Returns the metrics of GenerationEval, on WebNLG or DART."""
    how = f"as the authors score {data}"
    return (
        TextMetric(
            _share("bleu", f"BLEU-4 {how}: GenerationEval with six references"),
            "BLEU", generation_eval.bleu, f"{_SPLIT}|tok:13a|smooth:none", ("sacrebleu",), in_percent=True,
        ),
        TextMetric(
            _share("meteor", f"METEOR 1.5 {how}"),
            "METEOR", generation_eval.meteor, f"{_METEOR}|{_NLTK}", ("nltk", *_COCO),
        ),
        TextMetric(
            Metric("ter", higher_is_better=False, low=0.0, about=f"edit rate {how}: pyter3, a mean over texts"),
            "TER", generation_eval.ter, f"mean over texts|{_NLTK}", ("nltk", "pyter3"), generation_eval.ter_of_each,
        ),
    )  # fmt: skip


E2E = Protocol(
    "e2e",
    "the E2E challenge's measure_scores.py -p",
    (
        TextMetric(
            _share("bleu", "BLEU-4 of the E2E challenge"),
            "BLEU", e2e.bleu, "case:lc|tok:13a|smooth:none|refs:all", ("sacrebleu",), in_percent=True,
        ),
        TextMetric(
            Metric("nist", low=0.0, about="NIST-5 of the E2E challenge"),
            "NIST", e2e.nist, "case:lc|tok:13a|order:5|refs:all, their union|as:pymteval",
        ),
        TextMetric(
            _share("meteor", "METEOR 1.5 of the E2E challenge"), "METEOR", e2e.meteor, f"{_METEOR}|{_STANFORD}", _COCO,
        ),
        TextMetric(
            _share("rouge_l", "ROUGE-L of the E2E challenge"),
            "ROUGE_L", e2e.rouge_l, f"beta:1.2|{_STANFORD}", _COCO, e2e.rouge_l_of_each,
        ),
        TextMetric(
            Metric("cider", low=0.0, about="CIDEr-D of the E2E challenge"),
            "CIDEr", e2e.cider, f"df:these references|{_STANFORD}", _COCO,
        ),
    ),
)  # fmt: skip
WEBNLG = Protocol(
    "webnlg", "the LoRA authors' pipeline: gpt2_decode.py, then GenerationEval", _generation_eval("WebNLG")
)
DART = Protocol(
    "dart",
    "the LoRA authors' pipeline: gpt2_decode.py, then GenerationEval; what Table 13 follows",
    _generation_eval("DART"),
)
DART_LEADERBOARD = Protocol(
    "dart_leaderboard",
    "DART's own run_eval_on_dart.sh with three references; its TER needs tercom 0.7.25, which is not here",
    (
        TextMetric(
            _share("bleu", "BLEU-4 of DART's own script"), "BLEU", dart.bleu,
            r"split:(\W)|case:lc|tok:none|smooth:none|refs:3, those missing empty", ("sacrebleu",), in_percent=True,
        ),
        TextMetric(
            _share("meteor", "METEOR 1.5 of DART's own script"),
            "METEOR", dart.meteor, rf"{_METEOR}|split:(\W)|case:lc|refs:3", _COCO,
        ),
    ),
)  # fmt: skip
SAMSUM = Protocol(
    "samsum",
    "rouge-score with stemming; the paper does not say which ROUGE it took",
    tuple(
        TextMetric(
            _share(name, f"{title}: the mean F over texts"), key, measure,
            "F, mean over texts|stem:porter|tok:a-z0-9|case:lc", ("rouge-score",), of_each,
        )
        for name, title, key, measure, of_each in (
            ("rouge_1", "ROUGE-1", "ROUGE_1", samsum.rouge_1, None),
            ("rouge_2", "ROUGE-2", "ROUGE_2", samsum.rouge_2, None),
            ("rouge_l", "ROUGE-L", "ROUGE_L", samsum.rouge_l, samsum.rouge_l_of_each),
        )
    ),
)  # fmt: skip
WIKISQL = Protocol(
    "wikisql",
    "WikiSQL's logical form accuracy, without its tables",
    (
        TextMetric(
            _share("logical_form", "the same column, aggregator and set of conditions"), "logical_form",
            wikisql.logical_form, "column, aggregator, set of conditions|case:lc", (), wikisql.logical_form_of_each,
        ),
        EXACT_MATCH,
        TextMetric(
            _share("match_in_any_case", "equal but for case and white space"), "match_in_any_case",
            wikisql.match_in_any_case, "case:lc|white space:any",
        ),
    ),
)  # fmt: skip

ANY_LANGUAGE = Protocol(
    "any_language",
    "ROUGE-L by words of any script; of English what rouge-score with stemming gives",
    (
        TextMetric(
            _share("rouge_l", "ROUGE-L in any language: the mean F over texts"), "ROUGE_L", any_language.rouge_l,
            "F, mean over texts|stem:porter of a-z|tok:unicode, letters of unspaced scripts, no lone marks|case:lc",
            ("rouge-score",), any_language.rouge_l_of_each,
        ),
    ),
)  # fmt: skip

PROTOCOLS = {each.name: each for each in (E2E, WEBNLG, DART, DART_LEADERBOARD, SAMSUM, WIKISQL, ANY_LANGUAGE)}


def protocol(name: str) -> Protocol:
    """Returns a protocol.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in PROTOCOLS:
        raise InputError(
            f"there is no protocol {name!r}.{did_you_mean(name, PROTOCOLS)}\nProtocols: {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]
