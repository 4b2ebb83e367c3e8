"""Long sums into few results are made in portions, each a sum of its own, which are added up in the end.

Threads can share them out without adding up in another order: portions follow from sizes alone.
"""

SHORTEST = 256
"""Rows of a portion at the least;"""
MOST = 8
"""and how many portions there are at the most,"""
MEMORY = 1 << 20
"""if their results take no more than so many bytes."""


def portions(rows: int, nbytes: int) -> int:
    """Into how many portions a sum over so many rows is cut, whose result takes `nbytes`: a power of two.

    >>> portions(100_000, 1_000), portions(1_000, 1_000), portions(100_000, 1 << 19), portions(100_000, 1 << 22)
    (8, 2, 2, 1)
    """
    count = MOST
    while count > 1 and (rows < count * SHORTEST or count * nbytes > MEMORY):
        count //= 2
    return count
