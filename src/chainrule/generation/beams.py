"""Beam search: the best few beginnings of each sequence are kept, and the best end that was found wins."""

import heapq
from typing import NamedTuple

import numpy as np

from chainrule.generation.models import Steps
from chainrule.generation.prompts import Ending


class Ended(NamedTuple):
    """A sequence that is over: its score, a number that settles ties, its log probability and its tokens."""

    score: float
    earlier: int
    log_probability: float
    tokens: np.ndarray


class Search:
    """The beams of one prompt, and the best sequences that have ended.

    The score of a sequence is the log of its probability divided by (number of new tokens) ^ length_penalty.
    """

    def __init__(self, beams: int, start: int, last: int, length_penalty: float, early_stopping: bool) -> None:
        self.beams, self.start, self.last = beams, start, last
        self.length_penalty, self.early_stopping = length_penalty, early_stopping
        self.ended: list[Ended] = []  # a heap: the worst first
        self.count = 0
        self.done = False

    def score(self, log_probability: float, length: int) -> float:
        """Of a sequence of this length, prompt and all."""
        return log_probability / float(max(1, length - self.start)) ** self.length_penalty

    def add(self, log_probability: float, tokens: np.ndarray) -> None:
        """Take note of a sequence that has ended."""
        self.count += 1
        ended = Ended(self.score(log_probability, len(tokens)), -self.count, log_probability, tokens.copy())
        heapq.heappush(self.ended, ended)
        if len(self.ended) > self.beams:
            heapq.heappop(self.ended)

    def settle(self, best_alive: float, length: int) -> None:
        """Whether nothing better can come, if the best beam alive has this log probability and length."""
        if best_alive == -np.inf:
            self.done = True
        elif len(self.ended) == self.beams:
            # Log probabilities only fall, so the best that a beam may reach is its present one, at the length that
            # is divided by most (or least, for a negative penalty).
            bound = self.score(best_alive, self.last if self.length_penalty > 0 else length + 1)
            self.done = self.early_stopping or self.ended[0].score >= bound

    def best(self) -> Ended:
        """The winner; of equals the one that ended first."""
        return max(self.ended)


def beam_search(
    steps: Steps, prompts: np.ndarray, new: int, ending: Ending, beams: int, length_penalty: float, early_stopping: bool
) -> list[tuple[np.ndarray, float]]:
    """For each prompt, all of one length (N, length), the best sequence and its log probability."""
    rows, start = prompts.shape
    last = start + new
    searches = [Search(beams, start, last, length_penalty, early_stopping) for _ in range(rows)]
    tokens = np.full((rows, 1, last), -1, np.int64)
    tokens[:, 0, :start] = prompts
    scores = np.zeros((rows, 1))
    parents: np.ndarray | None = None
    count = beams * (1 + max(1, len(ending.eos)))  # so many that `beams` of them have not ended
    for length in range(start, last):
        flat = tokens.reshape(-1, last)
        found = steps.best(flat, length, parents, scores, count)
        alive = scores.shape[1]
        next_tokens, next_scores = np.zeros((rows, beams, last), np.int64), np.full((rows, beams), -np.inf)
        from_row = np.zeros((rows, beams), np.int64)
        for i, search in enumerate(searches):
            candidates = _sorted_out(search, tokens[i], length + 1, ending, *(x[i] for x in found))
            for j in range(beams):  # beams without a continuation go on as copies that cannot win
                log_p, beam, token = candidates[j] if j < len(candidates) else (-np.inf, 0, 0)
                next_tokens[i, j], next_tokens[i, j, length] = tokens[i, beam], token
                next_scores[i, j], from_row[i, j] = log_p, i * alive + beam
            if not search.done:
                search.settle(float(next_scores[i, 0]), length + 1)
        tokens, scores, parents = next_tokens, next_scores, from_row.reshape(-1)
        if all(search.done for search in searches):
            break
    for i, search in enumerate(searches):
        if not search.done:
            for j in range(beams):
                if np.isfinite(scores[i, j]):
                    search.add(float(scores[i, j]), tokens[i, j, : length + 1])
    return [(winner.tokens, winner.log_probability) for winner in (search.best() for search in searches)]


def _sorted_out(
    search: Search,
    tokens: np.ndarray,
    length: int,
    ending: Ending,
    scores: np.ndarray,
    beams: np.ndarray,
    next_: np.ndarray,
) -> list[tuple[float, int, int]]:
    """The continuations that go on, best first; those that end are noted if they are among the best."""
    alive: list[tuple[float, int, int]] = []
    for rank, (score, beam, token) in enumerate(zip(scores.tolist(), beams.tolist(), next_.tolist(), strict=True)):
        if score == -np.inf or len(alive) == search.beams:
            break
        grown = np.append(tokens[beam, : length - 1], token)
        if ending(grown[search.start :]):
            if rank < search.beams and not search.done:
                search.add(score, grown)
        else:
            alive.append((score, beam, token))
    return alive
