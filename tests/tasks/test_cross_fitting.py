"""Scores on dev of an epoch that other examples chose: by hand, and where choosing on the same examples flatters."""

import numpy as np
import pytest

from lora_repro.tasks.cross_fitting import HALVINGS, cross_fitted, shares_of_right
from lora_repro.tasks.generated import GeneratedConfig
from lora_repro.tasks.targets import MATTHEWS, PEARSON, SPEARMAN, Classes, Example, Scores, Targets


class Task(GeneratedConfig):
    """A task with targets of a test's choice."""

    kind: Targets = Classes()
    by_user: bool = False

    @property
    def has_groups(self) -> bool:
        return self.by_user

    @property
    def targets(self) -> Targets:
        return self.kind


def task(kind: Targets) -> Task:
    made = Task("mine")
    made.kind = kind
    return made


def examples(targets: list[int] | list[float]) -> list[Example]:
    return [Example(str(i), "", target, str(i)) for i, target in enumerate(targets)]


def test_an_epoch_that_is_best_on_every_half_gives_its_own_score() -> None:
    targets = [0, 1] * 20
    right, poor = [*targets[:-4], 1, 0, 1, 0], [1 - target for target in targets]
    found = cross_fitted(task(Classes()), examples(targets), {1: poor, 2: right, 3: poor})
    assert found == {"accuracy": pytest.approx(36 / 40), "majority": 0.5}


def test_two_epochs_that_are_right_on_opposite_halves_score_below_the_better_of_them() -> None:
    """Each is right on 20 of 40 and chance alone says where: chosen elsewhere, the one that fits is not taken."""
    targets = [0, 1] * 20
    first = [target if i < 20 else 1 - target for i, target in enumerate(targets)]
    second = [1 - answer for answer in first]
    found = cross_fitted(task(Classes()), examples(targets), {1: first, 2: second})
    assert found["accuracy"] < 0.5


def test_the_best_of_many_worthless_epochs_is_not_better_than_chance() -> None:
    best, fitted = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        targets = rng.integers(0, 2, 100).tolist()
        answers = {epoch: rng.integers(0, 2, 100).tolist() for epoch in range(12)}
        best.append(max(np.mean(np.array(given) == targets) for given in answers.values()))
        fitted.append(cross_fitted(task(Classes()), examples(targets), answers)["accuracy"])
    assert np.mean(best) > 0.56 and abs(np.mean(fitted) - 0.5) < 0.03


def test_one_epoch_has_its_own_score_on_all_of_dev() -> None:
    targets, answers = [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]
    kind = Classes(MATTHEWS)
    assert cross_fitted(task(kind), examples(targets), {0: answers}) == kind.evaluate(examples(targets), answers)


def test_halves_have_like_targets_and_are_the_same_for_all_runs() -> None:
    from lora_repro.tasks.cross_fitting import _half

    targets = np.array([0.0] * 31 + [1.0] * 10)
    for number in range(HALVINGS):
        half = _half("mine", targets, range(41), number)
        assert abs(half.sum() - 20.5) < 1 and abs(half[31:].sum() - 5) <= 1
        assert (half == _half("mine", targets, range(41), number)).all()
    others = [_half("mine", targets, range(41), n) for n in range(5)]
    assert any((others[0] != other).any() for other in others[1:])


def test_a_group_is_in_one_half_and_single_examples_are_drawn_as_ever() -> None:
    """Ten users with three rows each: without groups nearly every halving divides one of them."""
    from lora_repro.tasks.cross_fitting import _half

    targets, users = np.arange(30) % 2.0, [row // 3 for row in range(30)]
    for number in range(HALVINGS):
        of_user = _half("mine", targets, users, number).reshape(10, 3)
        assert (of_user == of_user[:, :1]).all() and of_user[:, 0].sum() == 5
    # Drawn with the code before groups: the examples of the first half of rows 0 to 7 with targets 0, 1, 0, 1 ...
    assert np.flatnonzero(_half("mine", np.arange(8) % 2.0, range(8), 0)).tolist() == [1, 2, 4, 7]


def test_an_epoch_is_never_chosen_on_rows_of_the_users_that_are_scored() -> None:
    """Each epoch knows the answers of one user alone: chosen on the other user, it is wrong on all rows that count."""
    rows = [Example(str(i), "", i % 2, "ann" if i < 10 else "bob") for i in range(20)]
    ann, bob = ([each.target if (each.document == who) else 1 - each.target for each in rows] for who in ("ann", "bob"))
    grouped = task(Classes())
    assert cross_fitted(grouped, rows, {1: ann, 2: bob})["accuracy"] > 0.2
    grouped.by_user = True
    assert cross_fitted(grouped, rows, {1: ann, 2: bob})["accuracy"] == 0.0


def test_scores_are_cross_fitted_too() -> None:
    targets = [float(i) for i in range(30)]
    found = cross_fitted(task(Scores()), examples(targets), {1: targets, 2: [-target for target in targets]})
    assert found["mse"] == 0.0 and found["pearson"] == pytest.approx(1.0)


def test_epochs_that_answer_on_different_scales_are_not_correlated_together() -> None:
    """Both are all but right, one of them in other units: as a head's outputs grow from epoch to epoch."""
    rng = np.random.default_rng(0)
    targets = rng.uniform(0, 5, 60)
    noise = rng.normal(0, 0.05, (2, 60))
    answers = {1: (targets + noise[0]).tolist(), 2: (10 * (targets + noise[1]) + 40).tolist()}
    found = cross_fitted(task(Scores(PEARSON, SPEARMAN)), examples(targets.tolist()), answers)
    assert found["pearson"] > 0.998 and found["spearman"] > 0.99


def test_baselines_are_those_of_all_of_dev() -> None:
    """A half of three has a majority of 2/3 at least, all six of them have 1/2."""
    targets = [0, 1, 0, 1, 0, 1]
    answers = {epoch: [(i + epoch) % 3 % 2 for i in range(6)] for epoch in range(3)}
    assert cross_fitted(task(Classes()), examples(targets), answers)["majority"] == 0.5
    scores = [0.0, 1.0, 2.0, 7.0]
    found = cross_fitted(task(Scores()), examples(scores), {1: [0.0, 1.0, 9.0, 9.0], 2: [9.0, 9.0, 2.0, 7.0]})
    assert found["variance"] == pytest.approx(np.var(scores))


@pytest.mark.parametrize("by_user", [False, True])
def test_how_often_each_example_is_right_has_the_score_as_its_mean(by_user: bool) -> None:
    """The shares are what a bootstrap over documents draws from; 5 epochs of which none is best on every half."""
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 3, 61).tolist()
    answers = [[t if rng.random() < 0.5 + 0.02 * epoch else (t + 1) % 3 for t in targets] for epoch in range(5)]
    users = [number // 4 for number in range(61)]
    given = [Example(str(i), "", t, str(users[i] if by_user else i)) for i, t in enumerate(targets)]
    own = task(Classes())
    own.by_user = by_user
    shares = shares_of_right(own, targets, answers, users if by_user else list(range(61)))
    fitted = cross_fitted(own, given, dict(enumerate(answers)))
    assert shares.mean() == pytest.approx(fitted["accuracy"], abs=1e-12)
    right = np.array(answers) == targets
    assert (shares[right.all(axis=0)] == pytest.approx(1)) and (shares[~right.any(axis=0)] == 0).all()
    assert len(np.unique(shares.round(6))) > 3  # several epochs have a part in it
    assert shares_of_right(own, targets, answers[:1], users).tolist() == right[0].astype(float).tolist()
