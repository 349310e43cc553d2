"""The index of ranges against a look at each of them."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from raft_store.mvcc import spans
from raft_store.mvcc.model import REST_OF_KEYS, covers
from raft_store.mvcc.spans import Span, Spans

KEYS = st.binary(max_size=2) | st.sampled_from([b"a", b"a\0", b"b", b"\xff\xff"])
SPANS = st.tuples(KEYS, KEYS | st.just(REST_OF_KEYS)).filter(lambda span: span[1] == REST_OF_KEYS or span[0] < span[1])


class Index(RuleBasedStateMachine):
    """Ranges come, go, and come again."""

    def __init__(self) -> None:
        super().__init__()
        self.spans = Spans()
        self.model: set[Span] = set()

    @initialize(many=st.sets(SPANS, max_size=60))
    def begin(self, many: set[Span]) -> None:
        for span in many:
            self.come(span)

    @rule(span=SPANS)
    def come(self, span: Span) -> None:
        if span not in self.model:
            self.spans.add(span)
            self.model.add(span)

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        if self.model:
            span = data.draw(st.sampled_from(sorted(self.model)))
            self.spans.remove(span)
            self.model.remove(span)

    @rule(key=KEYS)
    def look(self, key: bytes) -> None:
        found = list(self.spans.covering(key))
        assert sorted(found) == sorted(span for span in self.model if covers(*span, key))
        assert len(self.spans) == len(self.model)


Index.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
test_index = Index.TestCase


@given(st.integers(spans.FEW + 1, 200))
def test_a_look_passes_over_what_cannot_contain_the_key(count: int) -> None:
    """Of many ranges side by side a few are looked at: those on the way down the tree."""
    looked_at = 0

    class Bytes(bytes):
        def __le__(self, other: bytes) -> bool:
            nonlocal looked_at
            looked_at += 1
            return bytes.__le__(self, other)

    index = Spans()
    for i in range(count):
        index.add((b"%04d" % i, Bytes(b"%04d" % (i + 1))))
    index._build()
    looked_at = 0
    assert list(index.covering(b"%04d" % (count // 2))) == [(b"%04d" % (count // 2), b"%04d" % (count // 2 + 1))]
    assert looked_at <= 4 * count.bit_length()
