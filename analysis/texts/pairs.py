"""Puts a system's texts beside their references, and refuses what does not fit together."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from analysis.texts.lines import TRAILING
from analysis.texts.predictions import Predictions
from analysis.texts.references import Example, References
from analysis.texts.wikisql import is_object
from lora_repro.errors import InputError, shown
from lora_repro.tasks.corpora.webnlg import SEEN

CATEGORIES = ("all", "seen", "unseen")
"""Of WebNLG: whether they are in its training files."""


class Pairs(NamedTuple):
    """Texts beside their references."""

    texts: list[str]
    examples: list[Example]
    places: list[str]
    """Where each text stands."""
    notes: list[str]
    """What a reader of the scores must know."""

    @property
    def references(self) -> list[list[str]]:
        """The references of each text."""
        return [example.references for example in self.examples]


def paired(written: Predictions, right: References, categories: str = "all", *, are_queries: bool = False) -> Pairs:
    """Puts texts beside their references.

    Those of a run go by the references in its record, others by ids or meanings where both files say them, and
    otherwise in order.

    Args:
        written: The texts. They may be those of the chosen categories alone, with or without those of examples that do
            not count.
        right: The references. Examples with the same input are one, as in the authors' gpt2_decode.py, if there are as
            many texts as different inputs.
        categories: Which of WebNLG's categories count: all, seen or unseen in training.
        are_queries: Whether they are WikiSQL's, of which an object numbers columns. Any other text may be JSON.

    Raises:
        InputError: If they do not fit together. The message names the place.
    """
    if are_queries:
        _refuse_other_kind(written, right)
    of_categories = _of_categories(right, categories)
    counted = [i for i, example in enumerate(right.examples) if example.references]
    among = {*of_categories} & {*counted}
    kept = sorted(among)
    chosen = [right.examples[i] for i in kept]
    if written.references is not None:
        return _by_references(written, written.references, right, chosen)
    if written.ids is not None and all(example.id for example in right.examples):
        return _by_id(written, written.ids, right, chosen)
    if written.sources is not None and all(example.input for example in chosen):
        return _by_source(written, written.sources, right, chosen)
    count, notes = len(written.texts), [*([written.note] if written.note else []), *right.notes]
    merged = _merged(chosen)
    for given in (kept, of_categories, counted, range(len(right.examples))):
        if count == len(given):
            rows = [row for row, number in enumerate(given) if number in among]
            if len(merged) < len(chosen):
                notes.append(
                    f"{right.name}: each of {len(chosen):,} examples has a text of its own, and {len(merged):,} inputs "
                    "differ. The authors' gpt2_decode.py, which the paper's tables follow, writes one text an input."
                )
            return Pairs([written.texts[row] for row in rows], chosen, [written.places[row] for row in rows], notes)
    if count == len(merged):
        notes.append(
            f"{right.name}: {len(chosen):,} examples have {count:,} different inputs, and there are as many texts. So "
            "examples with the same input are one, with the references of all, as in the authors' gpt2_decode.py."
        )
        return Pairs(written.texts, merged, written.places, notes)
    raise _other_number(written, right, len(chosen), len(merged))


def _by_references(
    written: Predictions, references: Sequence[Sequence[str]], right: References, chosen: Sequence[Example]
) -> Pairs:
    """Finds each text of a run, which has the examples in an order of its own, by the references in its record.

    Examples with the same references may change places, which changes no score.
    """
    keys = [_key(own) for own in references]
    pools = [_by_key(right.examples), _by_key(_merged(right.examples))]
    fits = [all(len(pool.get(key, ())) >= number for key, number in Counter(keys).items()) for pool in pools]
    if not any(fits):
        row = next((row for row, key in enumerate(keys) if not any(key in pool for pool in pools)), 0)
        raise InputError(
            f"{written.name}, {written.places[row]}: no example of {right.name} has its references alone "
            f"({shown(' / '.join(references[row]))}).\nGive the file that the run's task reads."
        )
    pool, counted = pools[fits.index(True)], {example.place for example in chosen}
    found = [pool[key].pop() for key in keys]
    rows = [row for row, example in enumerate(found) if example.place in counted]
    if not rows:
        raise InputError(f"{written.name}: none of its texts is of an example of {right.name} that counts.")
    notes = [*([written.note] if written.note else []), *right.notes]
    if len(rows) < len(found):
        notes.append(f"{written.name}: {len(found) - len(rows):,} texts are of examples that do not count.")
    left = sum(example.place in counted for examples in pool.values() for example in examples)
    if left:
        notes.append(f"{right.name}: {left:,} of its examples are not the run's, and do not count.")
    texts, places = ([each[row] for row in rows] for each in (written.texts, written.places))
    return Pairs(texts, [found[row] for row in rows], places, notes)


def _by_key(examples: Sequence[Example]) -> dict[tuple[str, ...], list[Example]]:
    """Returns examples by what is right for them, the first one last."""
    found: dict[tuple[str, ...], list[Example]] = {}
    for example in reversed(examples):
        if example.references:
            found.setdefault(_key(example.references), []).append(example)
    return found


def _key(references: Sequence[str]) -> tuple[str, ...]:
    """Returns references without their order and the amount of white space."""
    return tuple(sorted(" ".join(text.split()) for text in references))


def _by_id(written: Predictions, ids: Sequence[str], right: References, chosen: Sequence[Example]) -> Pairs:
    """Finds the references of each text by the name of its example."""
    of_text = _places_of(written.name, ids, written.places, "the id of")
    known = [example.id for example in right.examples]
    of_reference = _places_of(right.name, known, [example.place for example in right.examples], "the id of")
    if unknown := [each for each in ids if each not in of_reference]:
        raise InputError(
            f"{written.name}, {of_text[unknown[0]]}: {right.name} has no example with its id ({shown(unknown[0])})."
        )
    if left := [example for example in chosen if example.id not in of_text]:
        raise InputError(
            f"{right.name}, {left[0].place}: there is no text for its id in {written.name} ({shown(left[0].id)}), nor "
            f"for {len(left) - 1} others.\nEach example needs a text; an empty one counts as such."
        )
    rows = {each: row for row, each in enumerate(ids)}
    texts, places = ([each[rows[example.id]] for example in chosen] for each in (written.texts, written.places))
    return Pairs(texts, list(chosen), places, list(right.notes))


def _places_of(name: str, keys: Sequence[str], places: Sequence[str], alike: str) -> dict[str, str]:
    """Returns where each id or meaning stands.

    Args:
        name: Of the file.
        keys: The ids or meanings.
        places: Of each.
        alike: What two have in common that are equal: "the id of".

    Raises:
        InputError: If one stands there twice.
    """
    found: dict[str, str] = {}
    for each, place in zip(keys, places, strict=True):
        if each in found:
            raise InputError(f"{name}, {place}: has {alike} {found[each]} ({shown(each)}).")
        found[each] = place
    return found


def _by_source(written: Predictions, sources: Sequence[str], right: References, chosen: Sequence[Example]) -> Pairs:
    """Finds the references of each text by its meaning, as measure_scores.py does."""
    of_source = {example.input: example for example in _merged(chosen)}
    uncounted = {example.input for example in right.examples if not example.references} - of_source.keys()
    rows = [row for row, source in enumerate(sources) if source not in uncounted]
    texts, places, meanings = ([each[row] for row in rows] for each in (written.texts, written.places, sources))
    seen = _places_of(written.name, meanings, places, "the same meaning as")
    if unknown := [source for source in meanings if source not in of_source]:
        raise InputError(
            f"{written.name}, {seen[unknown[0]]}: there is no reference for it in {right.name} ({shown(unknown[0])})."
        )
    if left := [example for source, example in of_source.items() if source not in seen]:
        raise InputError(
            f"{right.name}, {left[0].place}: there is no text for it in {written.name} ({shown(left[0].input)}), nor "
            f"for {len(left) - 1} others.\nEach example needs a text; an empty one counts as such."
        )
    return Pairs(texts, [of_source[source] for source in meanings], places, list(right.notes))


def _merged(examples: Sequence[Example]) -> list[Example]:
    """Takes examples with the same input for one, in the order in which the inputs first occur."""
    found: dict[str, Example] = {}
    for number, example in enumerate(examples):
        key = example.input or f"without input {number}"
        before = found.get(key)
        references = example.references if before is None else [*before.references, *example.references]
        found[key] = (before or example)._replace(references=references)
    return list(found.values())


def _of_categories(right: References, categories: str) -> list[int]:
    """Returns the numbers of the examples that count."""
    if categories == "all":
        return list(range(len(right.examples)))
    found = [
        i
        for i, each in enumerate(right.examples)
        if each.category and (each.category in SEEN) == (categories == "seen")
    ]
    if not found:
        raise InputError(
            f"--categories {categories}: {right.name} names no such category of WebNLG.\n"
            "Give its JSON or XML as --references, or files of these categories alone, without --categories."
        )
    return found


def _refuse_other_kind(written: Predictions, right: References) -> None:
    """Refuses queries that name columns beside queries that number them, which only the tables could compare."""
    for i, example in enumerate(right.examples):
        numbered = any(map(is_object, example.references))
        if i < len(written.texts) and (text := written.texts[i]) and is_object(text) != numbered:
            one, other = ("names columns", "numbers them") if numbered else ("numbers columns", "names them")
            raise InputError(
                f"{written.name}, {written.places[i]}: {one} ({shown(text)}), and {right.name}, {example.place}, "
                f"{other}: only the tables tell which is which.\n"
                "Give both as SQL, or both as objects with sel, agg and conds."
            )


def _other_number(written: Predictions, right: References, count: int, different: int) -> InputError:
    """Says how many texts and examples there are, and where the difference may come from."""
    texts = written.texts
    merged = f" with {different:,} different inputs" if different != count else ""
    said = f"{written.name}: has {len(texts):,} texts, and {right.name} has {count:,} examples{merged}."
    if len(texts) > count and not any(texts[count:]):
        return InputError(f"{said}\nRemove what follows {written.places[count - 1]}, which is empty. {TRAILING}")
    if "" in texts:
        place = written.places[texts.index("")]
        return InputError(f"{said}\nThe first empty text is at {place}: does it belong there?")
    more = (
        "A text with line breaks is several here: write it into a .jsonl, or without them."
        if count < len(texts)
        else ""
    )
    return InputError(f"{said}\n{more or 'Each example needs a text; an empty one is an empty line.'}")
