"""Time the search for test items among instruction rows, in processor seconds.

    python benchmarks/contamination.py --hub_root FOLDER

FOLDER mirrors the hub and holds the data and the tasks; the rows are gone through
several times over. Last comes the search alone among as many random n-grams as the
paper's six tasks have, which is mostly XL-Sum's articles.
"""

import argparse
import resource
import time

import numpy as np
from datasets import concatenate_datasets

from maple_utils import instructions
from maple_utils.instructions import contamination
from maple_utils.instructions.ngrams import Known

PAPER = 45_000_000  # n-grams: XL-Sum's 71,669 articles of 500 words (assumed), and more
WORDS = 150_000  # of a thousand rows


def main() -> None:
    """Print a line for each language of the data, and one for the paper's size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hub_root", required=True)
    parser.add_argument("--data", default="alpaca-sample")
    parser.add_argument("--tasks", default="xcopa,xquad,xnli,tydiqa")
    parser.add_argument("--times", type=int, default=10)
    given = parser.parse_args()
    tests = contamination.load_items(given.tasks.split(","), given.hub_root)
    data = instructions.load(given.data, (), given.hub_root)
    start = time.process_time()
    contamination.compare(data.select([0]), tests)
    reading = time.process_time() - start
    items = sum(len(part.examples) for part in tests)
    print(f"{items:,} test items are read in {reading:.1f} s")
    for code in sorted(set(data["language"])):
        own = data.filter(lambda row, code=code: row["language"] == code)
        rows = concatenate_datasets([own] * given.times)
        start = time.process_time()
        table = contamination.compare(rows, tests)
        rate = len(rows) / (time.process_time() - start - reading)
        found = table["overlapping"].sum()
        print(f"{given.data} {code}: {rate:,.0f} rows/s, {found} items overlap")
    rng = np.random.default_rng(0)
    grams = rng.integers(0, 2**64, PAPER, dtype=np.uint64)
    start = time.process_time()
    known = Known(grams)
    ready = time.process_time()
    known.find(rng.integers(0, 2**64, WORDS, dtype=np.uint64))
    end = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{PAPER:,} n-grams: ready after {ready - start:.1f} s; "
        f"{1000 * (end - ready):.0f} ms more per 1,000 rows; {memory:.1f} GiB in all"
    )


if __name__ == "__main__":
    main()
