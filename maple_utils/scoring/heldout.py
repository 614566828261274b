"""Bits per byte of held-out responses: what training does to each language.

They move long before any task does, and compare languages whatever the tokenizer.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from maple_utils.instructions import prompt_text
from maple_utils.scoring import loglikelihoods
from maple_utils.scoring.limits import positions


def heldout_bits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    token_budget: int | None = None,
) -> pd.DataFrame:
    """Score the responses of instruction data, each after the prompt of training.

    Args:
        model: the model, switched to what is to be measured.
        tokenizer: its tokenizer.
        rows: instruction data, as `instructions.load` returns them.
        token_budget: tokens per forward pass; by device where None.

    Returns:
        A row per response with its language, nats (summed loss) and bytes (UTF-8). A
        row that is longer than the model's positions is left out.
    """
    table = rows.to_pandas()
    pairs = zip(table["instruction"], table["input"], strict=True)
    table["prompt"] = [prompt_text(*pair) for pair in pairs]
    texts = (table["prompt"] + table["output"]).tolist()
    lengths = np.array([len(tokens) for tokens in tokenizer(texts)["input_ids"]])
    table = table[lengths <= positions(model)]
    requests = [(row.prompt, [row.output]) for row in table.itertuples()]
    with tqdm(total=len(requests), desc="held-out responses", leave=False) as bar:
        values = loglikelihoods(
            model, tokenizer, requests, token_budget=token_budget, progress=bar.update
        )
    return pd.DataFrame(
        {
            "language": table["language"],
            "nats": -np.concatenate(values),
            "bytes": table["output"].str.encode("utf-8").str.len(),
        }
    )


def bits_per_byte(nats: Sequence[float], n_bytes: Sequence[int]) -> tuple[float, float]:
    """Return bits per byte over all texts, and its standard error (NaN for one text).

    `nats` is each text's summed loss, `n_bytes` its length in UTF-8. The value is a
    ratio of sums; its error is that of the linearised ratio.
    """
    bits, lengths = np.asarray(nats) / math.log(2), np.asarray(n_bytes)
    value = bits.sum() / lengths.sum()
    residuals = (bits - value * lengths) / lengths.mean()
    return float(value), standard_error(residuals)


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
