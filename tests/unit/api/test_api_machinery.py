"""The table of what clients rely on is current, and names only tests that there are."""

from tools import generate_api_machinery as made


def test_the_document_is_current():
    assert made.PATH.read_text() == made.render()


def test_every_test_that_is_named_is_there():
    missing = [
        f"{path}::{name}"
        for rows in made.ROWS.values()
        for row in rows
        for path, name in made.named(row)
        if name not in made.tests_in(path)
    ]
    assert missing == []


def test_every_file_that_has_a_word_is_used():
    used = {path for rows in made.ROWS.values() for row in rows for path, _ in made.named(row)}
    assert used == set(made.FILES.values())
