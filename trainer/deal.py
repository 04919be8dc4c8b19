"""Who does what: pieces of work shared out by size, the same on every rank, so that nobody need be asked."""

import heapq
from collections.abc import Sequence


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """The indexes of `sizes` that each of `hands` does, largest first: each to whom has least so far, the lowest rank among equals.

    Graham's greedy rule: the fullest hand holds at most 4/3 - 1/(3 hands) of what the best deal's fullest would.
    """
    dealt: list[list[int]] = [[] for _ in range(hands)]
    loads = [(0, hand) for hand in range(hands)]
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        load, hand = heapq.heappop(loads)
        dealt[hand].append(index)
        heapq.heappush(loads, (load + max(1, sizes[index]), hand))
    return dealt
