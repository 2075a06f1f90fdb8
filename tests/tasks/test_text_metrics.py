"""Metrics of generated texts: by hand, and beside what the official scripts say of the same texts.

The official numbers are of e2e-metrics at 1b9c4d8 (measure_scores.py with and without -p) and of GenerationEval as
github.com/microsoft/LoRA has it, on tests/helpers/generated_texts.py written as the authors' gpt2_decode.py writes it.
"""

import math
import random
import sys
from importlib import util
from itertools import pairwise

import pytest
from helpers.generated_texts import PREDICTIONS, REFERENCES, needs_java

from lora_repro.errors import MissingInputError
from lora_repro.tasks.targets import OF_TEXTS, Example, Texts, metric_of_any_kind
from lora_repro.tasks.text_metrics import any_language, dart, e2e, generation_eval, samsum, tools, treebank
from lora_repro.tasks.text_metrics.edit_rate import Distance, edit_rates
from lora_repro.tasks.text_metrics.protocols import PROTOCOLS, TextMetric, protocol

SELDOM_JAVA = [each for each in PROTOCOLS.values() for each in each.metrics if tools.JAVA not in each.needs]


def test_bleu_of_e2e_is_that_of_the_perl_script() -> None:
    """0.3393 by mteval-v13a-sig.pl; pymteval.py says 0.3616, as it counts n-grams that a text of one word lacks."""
    assert e2e.bleu(PREDICTIONS, REFERENCES) == pytest.approx(0.3393, abs=5e-5)


def test_nist_is_pymtevals_to_the_last_digit() -> None:
    assert e2e.nist(PREDICTIONS, REFERENCES) == 4.629535030390832


def test_nist_by_hand_counts_the_union_of_references() -> None:
    """The references have 8 words, among them twice `the` and `cat`, once `sat`; always `cat` after `the`."""
    right = ["the cat ran", "the cat has not sat"]
    bits_of_words = math.log2(8 / 2) + math.log2(8 / 2) + math.log2(8 / 1)
    bits_of_pairs = math.log2(2 / 2)
    brevity = math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(3 / 4) ** 2)  # 3 words for 4 on average
    assert e2e.nist(["the cat sat"], [right]) == pytest.approx((bits_of_words / 3 + bits_of_pairs / 2) * brevity)
    assert e2e.nist(["the cat sat"], [right[:1]]) == pytest.approx(2 * math.log2(3 / 1) / 3)


def test_bleu_by_hand() -> None:
    """Of 6, 5, 4 and 3 n-grams 5, 4, 3 and 2 are right, and a reference is as long. Without one of four BLEU is 0."""
    right = ["there is a cat on the mat", "The cat sat on THE mat"]
    assert e2e.bleu(["the cat sat on the rug"], [right]) == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    assert e2e.bleu(["the cat sat on a mat"], [["the cat lay on the mat"]]) == 0


def test_generation_eval_is_equalled() -> None:
    assert 100 * generation_eval.bleu(PREDICTIONS, REFERENCES) == pytest.approx(42.48, abs=0.005)
    assert generation_eval.ter(PREDICTIONS, REFERENCES) == 0.6337995337995338


def test_references_that_are_missing_are_no_empty_references() -> None:
    """An empty line in a reference file counts as a reference of length 0, and excuses a short text.

    As in mosesdecoder's pull request 185: to "I do" a reference of no words is nearer than one of five.
    """
    written, right = ["i do"] * 9 + ["this is a long reference"], [["this is a long reference"]] * 10
    with_empty = [[*texts, ""] for texts in right]
    kept, left_out = dart.bleu(written, with_empty), generation_eval.bleu(written, right)
    assert left_out == pytest.approx((5 / 23 * 4 / 13 * 3 / 3 * 2 / 2) ** 0.25 * math.exp(1 - 50 / 23))
    assert kept == pytest.approx((5 / 23 * 4 / 13 * 3 / 3 * 2 / 2) ** 0.25)
    assert generation_eval.bleu(written, with_empty) == pytest.approx(kept)
    assert e2e.bleu(written, [*right[:9], [*right[9], "another one"]]) == pytest.approx(left_out)


def test_only_the_first_six_references_count_on_webnlg_and_dart() -> None:
    texts = [["a b c d e"] * 6 + ["v w x y z"]]
    assert generation_eval.bleu(["v w x y z"], texts) == 0 and e2e.bleu(["v w x y z"], texts) == 1
    assert generation_eval.ter(["v w x y z"], texts) == 1


def test_texts_are_split_as_the_authors_split_them() -> None:
    assert generation_eval.split('It\'s "A_b"—£3.5…') == 'it \' s " a_b " — £ 3 . 5 …'
    assert generation_eval.split("Cafe\u0301\u00a0X") == "cafe \u0301 x"


def test_texts_are_split_as_darts_own_files_have_them() -> None:
    """They were split before they were written small, so a capital I with a dot stays in its word."""
    assert dart.split("İzmir's (big) A_b") == "i̇zmir ' s ( big ) a_b" == dart.split(dart.split("İzmir's (big) A_b"))
    assert dart.bleu(["İzmir is (very) big."], [["i̇zmir is ( very ) big .", "x"]]) == 1
    assert generation_eval.split("İzmir") == "i ̇ zmir"


def test_sentences_make_no_difference_to_the_words_of_a_split_text() -> None:
    """How nltk's word_tokenize finds sentences is in a model that is downloaded. Any division gives the same words."""
    from nltk.tokenize import NLTKWordTokenizer

    find = NLTKWordTokenizer().tokenize
    text = generation_eval.split(
        'He said: "It cannot be." Then (at 3.5 p.m., in St. Louis) they\'re gonna... "go" \'now\'?'
    )
    words = text.split()
    ends = [place + 1 for place, word in enumerate(words[:-1]) if word in ".?!"]
    assert len(ends) == 8
    for number in range(2 ** len(ends)):
        chosen = [0, *(end for bit, end in enumerate(ends) if number >> bit & 1), len(words)]
        parts = [" ".join(words[first:last]) for first, last in pairwise(chosen)]
        assert [word for part in parts for word in find(part)] == find(text)


def test_edit_rate_by_hand() -> None:
    """Moving a part of any length is one edit; the rate is that to the nearest reference, over its words."""
    written, moved, longer, rest = map(
        str.split, ("on the mat the cat sat", "the cat sat on the mat", "a b c d e", "a b")
    )
    assert edit_rates([written], [[moved]]) == edit_rates([written], [[longer, moved]]) == [1 / 6]
    assert edit_rates([[], [], rest], [[rest], [[]], [longer, []]]) == [1, 1, 3 / 5]


def test_edit_rates_are_pyter3s() -> None:
    import pyter

    draw = random.Random(0)
    for _ in range(400):
        text, other = (draw.choices("abcdef", k=draw.randrange(12)) for _ in range(2))
        assert Distance(other)(text) == pyter.edit_distance(text, other)
        texts = [draw.choices("abcdefg", k=draw.randrange(1, 12)) for _ in range(3)]
        assert edit_rates([text], [texts]) == [min(pyter.ter(text, each) for each in texts)]


def test_rouge_by_hand_takes_the_nearest_reference_and_stems() -> None:
    """Of `hannah needs number` two words and no pair are in the first reference, three of five in the second."""
    written, right = ["Hannah needs numbers"], [["Hannah has a number.", "Larry says Hannah needs a number"]]
    assert samsum.rouge_1(written, right) == pytest.approx(2 * (3 / 3) * (3 / 6) / (3 / 3 + 3 / 6))
    assert samsum.rouge_2(written, right) == pytest.approx(2 * (1 / 2) * (1 / 5) / (1 / 2 + 1 / 5))
    assert samsum.rouge_l(written * 2, [right[0], ["x"]]) == pytest.approx(1 / 3)


def test_rouge_refuses_a_reference_of_which_it_sees_no_word() -> None:
    """rouge-score knows a to z and 0 to 9 alone, and says 0 of equal texts (huggingface/evaluate, issue 256)."""
    with pytest.raises(ValueError, match=r"example 2.*a to z"):
        samsum.rouge_1(["ok", "結果"], [["ok"], ["結果"]])
    assert samsum.rouge_1(["ok", ""], [["ok"], [""]]) == 0.5


@pytest.mark.parametrize("metric", SELDOM_JAVA, ids=lambda each: f"{each.signature}"[:20])
def test_equal_texts_have_the_best_value_and_empty_ones_the_worst(metric: TextMetric) -> None:
    """Records call a BLEU above 1 damaged, and sacrebleu says 100.00000000000004 of equal texts (its issue 275)."""
    texts = ["select a from t where b = 'it costs 5'", "select count c from t", "select über from t"]
    right = [[text] for text in texts]
    best, worst = metric.measure(texts, right), metric.measure([""] * 3, right)
    assert type(best) is float and type(worst) is float
    if metric.metric.name == "ter":
        assert (best, worst) == (0, 1)
    else:
        assert worst == 0 and (best == 1 or (metric.metric.name == "nist" and best > 1))
    assert metric.metric.low <= min(best, worst) and max(best, worst) <= metric.metric.high
    assert type(metric.measure(["x"], [["select y from t"]])) is float


@pytest.mark.parametrize("metric", list(OF_TEXTS.values()), ids=lambda each: f"{each.key}")
@pytest.mark.parametrize(
    ("predictions", "references", "said"),
    [
        (["a"], [["a"], ["b"]], "1 predictions?, and references of 2"),
        (["a", ""], [["a"]], "2 predictions?, and references of 1"),
        ([], [], "0 predictions?, and"),
        (["a", "b"], [["a"], []], "example 2 needs a list of at least one reference"),
        (["a", "b"], ["a", "b"], "example 1 needs a list of at least one reference .given: the text 'a'"),
    ],
)
def test_texts_that_do_not_fit_their_references_are_refused(
    metric: TextMetric, predictions: list[str], references: list[list[str]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        metric.measure(predictions, references)


@needs_java
def test_words_are_stanfords_and_stay_with_their_texts() -> None:
    """Line ends of any kind are spaces: one user had 90 lines more than texts (Labbeti/aac-metrics, issue 6)."""
    written = ["It's £5-6 —\u2028“cosy”!\r\nGröße", "", "a\x85b\u2029c\vd e", "?", "TAIL", ""]
    found, right = treebank.tokenized(written, [["x"], ["y", ""], ["zoo."], ["u"], ["v"], ["w"]])
    assert found == ["it 's # 5-6 cosy größe", "", "a b c d e", "", "tail", ""]
    assert right == [["x"], ["y", ""], ["zoo"], ["u"], ["v"], ["w"]]


@needs_java
def test_rouge_l_and_cider_are_those_of_the_official_script(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANG", "LC_ALL"):  # the Java programs read and write UTF-8 wherever they run
        monkeypatch.setenv(name, "C")
    treebank._tokenized.cache_clear()
    assert e2e.rouge_l(PREDICTIONS, REFERENCES) == pytest.approx(0.4015010503188516, abs=1e-15)
    assert e2e.cider(PREDICTIONS, REFERENCES) == pytest.approx(2.3974576927438616, abs=1e-15)
    assert e2e.cider(PREDICTIONS[:1], REFERENCES[:1]) == 0  # of one example nothing is known to be rare
    assert e2e.cider(["?", "a"], [["."], ["!"]]) == 0
    assert e2e.rouge_l_of_each(["the cat"], [["the dog sat", "a cat"]]) == [
        pytest.approx((1 + 1.2**2) * 0.5 * 0.5 / (0.5 + 1.2**2 * 0.5))
    ]


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "pyter" else there(name))
    with pytest.raises(MissingInputError, match=r"TER: needs pyter3.*\n.*pip install 'lora_repro\[text\]'"):
        Texts(*protocol("webnlg").declared).refuse_missing_tools()
    Texts(*protocol("samsum").declared).refuse_missing_tools()
    Texts().refuse_missing_tools()


def test_missing_java_is_told_before_anything_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    tools.java_version.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingInputError, match=r"METEOR: needs Java.*PATH.\n.*apt-get install default-jre-headless"):
        Texts(*protocol("e2e").declared).refuse_missing_tools()
    monkeypatch.undo()
    tools.java_version.cache_clear()


def test_a_java_that_does_not_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS /usr/bin/java is there without a runtime, and says so."""
    tools.java_version.cache_clear()
    monkeypatch.setattr(tools, "_java", lambda: sys.executable)
    with pytest.raises(MissingInputError, match="-version says"):
        tools.refuse_missing([tools.JAVA], "METEOR")
    tools.java_version.cache_clear()


def test_signatures_say_what_decides_the_value() -> None:
    signatures = {each.key: each.signature for each in protocol("webnlg").metrics}
    assert signatures["BLEU"].startswith(
        "case:lc|split:(\\W)|refs:6, the first repeated|tok:13a|smooth:none|sacrebleu:2."
    )
    assert "pyter3:0.3" in signatures["TER"] and "-l en -norm" in signatures["METEOR"]
    assert {each.key: each.signature for each in protocol("dart").metrics} == signatures
    leaderboard = {each.key: each.signature for each in protocol("dart_leaderboard").metrics}
    assert leaderboard["BLEU"] != signatures["BLEU"] and "TER" not in leaderboard


def test_texts_take_their_metrics_as_classes_do() -> None:
    targets = Texts(*protocol("wikisql").declared)
    examples = [Example("0", "", ["SELECT a FROM t"], ""), Example("1", "", ["SELECT b FROM t"], "")]
    found = targets.evaluate(examples, ["select a from t", "SELECT c FROM t"])
    assert found == {"logical_form": 0.5, "exact_match": 0.0, "match_in_any_case": 0.5}
    assert targets.score("logical_form", examples, ["select a from t", ""]) == 0.5
    assert [metric.name for metric in Texts().metrics] == ["exact_match"] == [metric.name for metric in Texts.metrics]


def test_every_metric_of_texts_is_known_by_its_name() -> None:
    names = {metric.name for metric in OF_TEXTS}
    assert names == {
        *("bleu", "nist", "meteor", "rouge_l", "cider", "ter", "rouge_1", "rouge_2"),
        *("exact_match", "match_in_any_case", "logical_form"),
    }
    ter, bleu = metric_of_any_kind("ter"), metric_of_any_kind("bleu")
    assert ter is not None and bleu is not None and not ter.higher_is_better and bleu.format(0.7038) == "70.4"
    assert len(OF_TEXTS) == sum(len(each.metrics) for each in PROTOCOLS.values())
    by_name = {name: {each.unit for each in OF_TEXTS if each.name == name} for name in names}
    assert all(len(units) == 1 for units in by_name.values())


def test_rouge_l_in_any_language_is_that_of_rouge_score_in_english() -> None:
    written = ["The cats were sitting_on 2 mats!", "nothing alike", ""]
    right = [["A cat sat on the mats.", "the cat sits on 2 mats"], ["The dogs"], ["one"]]
    assert any_language.rouge_l_of_each(written, right) == samsum.rouge_l_of_each(written, right)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("今天 is 好。", ["今", "天", "is", "好"]),
        ("ありがとう", ["あ", "り", "が", "と", "う"]),
        ("Größe, déjà-vu", ["größe", "déjà", "vu"]),
        ("de\u0301ja\u0300", ["déjà"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Привет, мир!", ["привет", "мир"]),
        ("? !", ["?", "!"]),
        ("\U0001f600 ", ["\U0001f600"]),
        ("yes \u2600\ufe0fYES \u2764\ufe0f", ["yes", "yes"]),
        ("\u2600\ufe0f \u2764\ufe0f", ["\u2600", "\u2764"]),
        ("\U0001f469\u200d\U0001f680", ["\U0001f469", "\U0001f680"]),
        ("ปี", ["ป", "ี"]),
        ("", []),
    ],
)
def test_words_are_found_in_any_script(text: str, words: list[str]) -> None:
    assert any_language.Words().tokenize(text) == words


def test_different_emoji_are_not_equal_by_the_mark_that_asks_for_colours() -> None:
    sun, heart, plain = "\u2600\ufe0f", "\u2764\ufe0f", "\u2600"
    written, right = [sun, f"yes {sun}", sun, plain], [[heart], [f"no {heart}"], [sun], [sun]]
    assert any_language.rouge_l_of_each(written, right) == [0, 0, 1, 1]
