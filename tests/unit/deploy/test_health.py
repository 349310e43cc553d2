"""The verdict and its words, from masters' answers."""

import pytest

from deploy.health import Answer, MasterView, judge, merge


def answer(
    by: int, reachable: set[int], *, leader: int = 0, term: int = 5, total: int = 3, controllers: int = 0
) -> Answer:
    """What master ``by`` says when it reaches only the masters in ``reachable``."""
    return Answer(
        f"master{by}",
        tuple(
            MasterView(
                f"master{i}",
                reachable=i in reachable,
                role="" if i not in reachable else "leader" if i == leader else "follower",
                term=term,
                runs_controllers=i == controllers,
            )
            for i in range(1, total + 1)
        ),
    )


@pytest.mark.parametrize(
    ("total", "answers", "writes", "words"),
    [
        (3, [answer(1, {1, 2, 3}, leader=2)], True, "3 of 3 masters: writes possible; losing one more keeps them"),
        (3, [answer(1, {1, 2}, leader=2)], True, "2 of 3 masters: writes possible; losing one more stops them"),
        (3, [answer(1, {1})], False, "1 of 3 masters: no writes until one more is back"),
        (5, [answer(1, {1, 4}, total=5)], False, "2 of 5 masters: no writes until one more is back"),
        (5, [answer(1, {1}, total=5)], False, "1 of 5 masters: no writes until two more are back"),
        (
            5,
            [answer(1, {1, 2, 3, 4}, leader=4, total=5)],
            True,
            "4 of 5 masters: writes possible; losing one more keeps them",
        ),
        (1, [answer(1, {1}, leader=1, total=1)], True, "1 of 1 master: writes possible; losing it stops them"),
        (3, [answer(1, {1, 2, 3})], False, "3 of 3 masters: no leader yet; no writes until one is elected"),
        (3, [], False, "0 of 3 masters answer: no writes until two run"),
    ],
)
def test_words(total: int, answers: list[Answer], *, writes: bool, words: str) -> None:
    health = judge(total, answers)
    assert (health.writes, health.words) == (writes, words)


def test_a_cut_off_old_leader_does_not_speak_for_the_lab() -> None:
    stale, majority = answer(1, {1}, leader=1, term=5), answer(2, {2, 3}, leader=3, term=6)
    health = judge(3, [stale, majority])
    assert health.writes
    assert health.words.startswith("2 of 3")


def test_a_leader_without_a_majority_makes_no_writes_possible() -> None:
    assert not judge(3, [answer(1, {1}, leader=1)]).writes


def test_what_a_cut_off_master_says_of_itself_is_shown() -> None:
    answers = [answer(1, {1}, leader=1, term=5), answer(2, {2, 3}, leader=3, term=6)]
    views = merge(answers, judge(3, answers))
    assert views["master1"].reachable
    assert views["master1"].term == 5
    assert views["master3"].role == "leader"


def test_nobody_answering_leaves_nothing_to_show() -> None:
    assert merge([], judge(3, [])) == {}


@pytest.mark.parametrize("controllers", [0, 2])
def test_on_an_external_store_the_leadership_record_decides(controllers: int) -> None:
    health = judge(3, [answer(1, {1, 2}, controllers=controllers)], external_store=True)
    assert health.writes == bool(controllers)
    assert "external store" in health.words
