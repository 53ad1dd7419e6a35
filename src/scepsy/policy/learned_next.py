"""Which stage comes next, by how often it came after the last ones and the tool."""

from collections.abc import Mapping

from scepsy.policy.learned_counts import Key, Nodes

PARENT_STEPS = 2.0
"""The parent's distribution counts as so many steps of the node's own."""
MOST_STEPS = 1_024.0
"""A node with more halves its counts."""
MOST_CHOICES = 64
"""Choices that a node tells apart; the rarest leaves first."""

Choice = str
END: Choice = ""
"""No call follows."""


class _Node:
    __slots__ = ("counts", "parent", "total")

    def __init__(self, parent: "_Node | None") -> None:
        self.parent = parent
        self.counts: dict[Choice, float] = {}
        self.total = 0.0

    def saw(self, choice: Choice) -> None:
        counts = self.counts
        counts[choice] = counts.get(choice, 0.0) + 1.0
        if len(counts) > MOST_CHOICES:
            rarest = min((name for name in counts if name != choice), key=counts.__getitem__)
            self.total -= counts.pop(rarest)
        self.total += 1.0
        if self.total > MOST_STEPS:
            self.counts = {name: count / 2 for name, count in counts.items()}
            self.total = sum(self.counts.values())


class NextSteps:
    """Counts of what came next, from the general to the particular."""

    def __init__(self, most_nodes: int) -> None:
        self._nodes: Nodes[_Node] = Nodes(_Node, most_nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def saw(self, key: Key, choice: Choice) -> None:
        """After ``key`` came that choice."""
        node: _Node | None = self._nodes.use(key)
        while node is not None:
            node.saw(choice)
            node = node.parent

    def expected(self, key: Key) -> Mapping[Choice, float]:
        """Probabilities of the known choices; what they lack of 1 is for unknown ones."""
        return _mixed(self._nodes.nearest(key))


def _mixed(node: _Node) -> dict[Choice, float]:
    above = {} if node.parent is None else _mixed(node.parent)
    of = node.total + PARENT_STEPS
    found = {name: PARENT_STEPS * share / of for name, share in above.items()}
    for name, count in node.counts.items():
        found[name] = found.get(name, 0.0) + count / of
    return found
