"""The table of what is served is current, and names what the table of kinds has."""

from api.kinds.table import ROWS
from tools import generate_compatibility


def test_the_document_is_current():
    assert generate_compatibility.PATH.read_text() == generate_compatibility.render()


def test_what_is_published_is_found():
    published = set(generate_compatibility.published())
    assert {("", "v1", "pods"), ("", "v1", "pods/log"), ("apps", "v1", "deployments/scale")} <= published
    unknown = {
        row.plural
        for row in ROWS
        if (row.group, row.version, row.plural) not in published and "beta" not in row.version
    }
    assert unknown == set(), "a served resource that nobody publishes is misspelt"
