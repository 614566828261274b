"""Near-duplicates by ROUGE-L among instructions in any script, exactly."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import LCSseq
from scipy.sparse import csr_matrix
from tqdm.auto import tqdm

from maple_utils.words import tokenize_words

_BLOCK = 256  # candidates that are compared with the pool at a time


def near_duplicates(
    candidates: Sequence[str],
    pool: Sequence[str] = (),
    threshold: float = 0.7,
    progress: bool = False,
) -> list[str | None]:
    """Compare each candidate with the pool and with the candidates kept before it.

    Returns, per candidate, None where it is kept, else a text with which its ROUGE-L F
    is at least `threshold` (above 0, at most 1). The decisions are those of comparing
    all pairs: two texts that similar must share one of their rarest tokens, and only
    pairs that do are compared (prefix filtering; Chaudhuri et al., 2006).
    """
    texts = [*pool, *candidates]
    split = [tokenize_words(text) for text in texts]
    coded = _code(split)
    lengths = np.array([len(item) for item in split])
    rare = _rarest(split, threshold)
    kept = np.ones(len(texts), dtype=bool)
    original: list[str | None] = [None] * len(candidates)
    blocks = range(len(pool), len(texts), _BLOCK)
    for start in tqdm(blocks, desc="Comparing", disable=not progress):
        end = min(start + _BLOCK, len(texts))
        pairs = (rare[start:end] @ rare[:end].T).tocsr()
        for row in range(start, end):
            others = pairs.indices[
                pairs.indptr[row - start] : pairs.indptr[row - start + 1]
            ]
            others = others[(others < row) & kept[others]]
            match = _first_similar(row, np.sort(others), coded, lengths, threshold)
            if match is not None:
                kept[row] = False
                original[row - len(pool)] = texts[match]
    return original


def _first_similar(row, others, coded, lengths, threshold: float) -> int | None:
    """Return the first of `others` similar to `row`, trying lengths before tokens."""
    total = lengths[row] + lengths[others]
    possible = 2 * np.minimum(lengths[row], lengths[others]) / total >= threshold
    for other, length in zip(
        others[possible].tolist(), total[possible].tolist(), strict=True
    ):
        least = math.ceil(threshold * length / 2 - 1e-9)
        common = LCSseq.similarity(coded[row], coded[other], score_cutoff=least)
        if 2 * common / length >= threshold:
            return other
    return None


def _code(split: list[list[str]]) -> list[str]:
    """Write each token as one character: strings compare faster than lists."""
    vocabulary: dict[str, str] = {}
    for item in split:
        for token in item:
            # Beginning beyond the surrogates, which are no characters.
            vocabulary.setdefault(token, chr(0xE000 + len(vocabulary)))
    return ["".join([vocabulary[token] for token in item]) for item in split]


def _rarest(split: list[list[str]], threshold: float) -> csr_matrix:
    """Mark the rarest tokens of each text: texts x tokens, as many as can decide.

    The n-th occurrence of a token counts as a token of its own. For F >= t the common
    subsequence has at least t n / (2 - t) of the n tokens of either text, so both must
    share one of their n - ceil(t n / (2 - t)) + 1 rarest.
    """
    marked = [_numbered(item) for item in split]
    count = Counter(token for item in marked for token in item)
    order = {token: i for i, token in enumerate(sorted(count, key=count.get))}
    indices, indptr = [], [0]
    for item in marked:
        n = len(item)
        needed = math.ceil(threshold * n / (2 - threshold) - 1e-9)
        indices += sorted(order[token] for token in item)[: n - needed + 1]
        indptr.append(len(indices))
    shape = (len(split), max(len(order), 1))
    ones = np.ones(len(indices), dtype=np.int32)
    return csr_matrix((ones, indices, indptr), shape=shape)


def _numbered(item: list[str]) -> list[tuple[str, int]]:
    seen: Counter[str] = Counter()
    numbered = []
    for token in item:
        numbered.append((token, seen[token]))
        seen[token] += 1
    return numbered
