"""Whether the engine gives a model's own numbers, asked before it is relied on."""

from typing import TYPE_CHECKING

import torch

from maple_utils import scoring
from maple_utils.errors import first_line
from maple_utils.scoring import TokenPath

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

# Settings of a model's generation_config that leave greedy decoding as it is.
HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens"),
    *("do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p", "use_cache"),
    *("_from_model_config", "transformers_version", "cache_implementation"),
    *("output_attentions", "output_hidden_states", "return_dict_in_generate"),
}
SHARED, OWN = 12, 12  # tokens of the two paths of the trial
WITHIN = {torch.float32: 2e-3}  # nats per token
ROUNDED = 0.1  # the same where numbers are rounded to 16 or 8 bits


def unfit(lm: "HFLM") -> str:
    """Return why the engine cannot stand in for `HFLM` with this model, or nothing.

    Architectures are many, and this list of reasons is short: so two texts that fork
    are scored by the engine and plainly. ALiBi, a state from token to token, learned
    prompts, a mask that is ignored: each shows as an error or another number.
    """
    if lm.backend != "causal" or lm.mixed_precision_dtype is not None:
        return "an encoder, or mixed_precision_dtype"
    changed = lm.model.generation_config.to_diff_dict().keys() - HARMLESS
    if changed:
        return f"its generation_config sets {', '.join(sorted(changed))}"
    try:
        difference = _trial(lm)
    except Exception as error:  # anything may go wrong inside a model's own code
        return first_line(error)
    rounded = bool(getattr(lm.model, "quantization_method", None))
    within = ROUNDED if rounded else WITHIN.get(lm.model.dtype, ROUNDED)
    if difference <= within:
        return ""
    return f"a trial of the engine is {difference:.2g} nats per token off"


def _trial(lm: "HFLM") -> float:
    """Return how far the engine is off in nats per token, on two texts that fork."""
    size = lm.model.config.get_text_config().vocab_size
    tokens = [7919 * place % size for place in range(1, SHARED + 2 * OWN + 1)]
    texts = [tokens[: SHARED + OWN], tokens[:SHARED] + tokens[SHARED + OWN :]]
    paths = [TokenPath(text[:-1], 1, tuple(text[1:])) for text in texts]
    found = scoring.score_paths(lm.model, paths)
    logits = lm._model_call(torch.tensor(texts, device=lm.device)).float()
    after = torch.tensor(texts, device=lm.device)[:, 1:, None]
    plain = logits[:, :-1].log_softmax(-1).gather(2, after).sum((1, 2))
    pairs = zip(found, plain.tolist(), strict=True)
    return max(abs(score - other) for (score, _), other in pairs) / len(texts[0])
