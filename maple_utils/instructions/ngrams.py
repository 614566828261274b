"""Word n-grams as numbers: of many texts at once, and looked up among many others.

An n-gram is known by a hash of 64 bits, so that two different ones count as the same
in about one of 10^19 pairs. Hashes differ from process to process: they are not kept.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_PER_SLOT = 16  # at least so many slots per gram in the filter before the search


class Hashed:
    """Texts, each a list of words, whose n-grams of any length can be had at once."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        hashes = map(hash, chain.from_iterable(texts))
        flat = np.fromiter(hashes, np.int64, sizes.sum()).view(np.uint64)
        self._text = np.repeat(np.arange(len(texts)), sizes)
        self._end = np.repeat(np.cumsum(sizes), sizes)  # of the text of each word
        powers, self._inverse = _powers(1 << int(sizes.sum()).bit_length())
        self._sums = np.zeros(len(flat) + 1, np.uint64)
        np.cumsum(flat * powers[: len(flat)], out=self._sums[1:])

    def grams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the hashes of all n-grams within a text, and which text each is of."""
        start = np.arange(max(0, len(self._text) - n + 1))
        start = start[start + n <= self._end[: len(start)]]
        differences = self._sums[start + n] - self._sums[start]
        return differences * self._inverse[start], self._text[start]


@lru_cache(maxsize=2)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the powers 0, 1, ... of the base modulo 2^64, and those of its inverse."""
    bases = np.array([_BASE, pow(_BASE, -1, 1 << 64)], np.uint64)
    powers = np.repeat(bases[:, None], size, axis=1)
    powers[:, 0] = 1
    return tuple(np.cumprod(powers, axis=1))


class Known:
    """n-grams of one length to look for."""

    def __init__(self, grams: np.ndarray) -> None:
        ordered = np.sort(grams)  # np.unique takes ten times as long
        self._grams = ordered[
            np.append(True, ordered[1:] != ordered[:-1])[: len(grams)]
        ]
        self._seen = np.zeros(len(self._grams), bool)
        # A number's first bits are a slot; most of what is not known falls in an empty
        # one, which costs much less than a search.
        bits = min(28, max(1, (_PER_SLOT * len(self._grams)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._filled = np.zeros(1 << bits, bool)
        self._filled[self._grams >> self._shift] = True

    def find(self, grams: np.ndarray) -> np.ndarray:
        """Return the places of those grams that are known, and remember these."""
        places = np.flatnonzero(self._filled[grams >> self._shift])
        at = np.searchsorted(self._grams, grams[places])
        at = np.minimum(at, len(self._grams) - 1)
        is_known = self._grams[at] == grams[places]
        self._seen[at[is_known]] = True
        return places[is_known]

    def found(self) -> "Known":
        """Return those that `find` has come upon."""
        return Known(self._grams[self._seen])
