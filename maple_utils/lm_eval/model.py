"""The class that lm-eval calls `maple`."""

import json
import logging
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from maple_utils import models, scoring
from maple_utils.errors import ParameterError
from maple_utils.lm_eval.fit import unfit
from maple_utils.scoring import Generation, TokenPath

try:
    from lm_eval.api.registry import model_registry
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils import (
        handle_stop_sequences,
        normalize_gen_kwargs,
        postprocess_generated_text,
    )
    from lm_eval.models.utils_hf import get_dtype
except ModuleNotFoundError as error:
    if error.name != "lm_eval":
        raise
    raise ModuleNotFoundError(
        "lm_eval: not installed; allowed: version 0.4.13 or later; pip install lm_eval",
        name="lm_eval",
    ) from None

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

NAME = "maple"
WINDOWS = 1024  # of rolling log-likelihoods in a call; the engine packs them by tokens

# What greedy decoding heeds in a request, or has no use for. With anything else, such
# as a penalty for repetition, the likeliest token is not what is written.
GREEDY = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}

log = logging.getLogger(__name__)
Pair = tuple[tuple[str, str] | None, list[int], list[int]]


class MapleLM(HFLM):
    """lm-eval's `HFLM`, with the kit's engine for what can be shared.

    `sharing` holds the model that `create_from_arg_obj` loaded, for the next adapter of
    the same base model, where it is a list.
    """

    sharing: ClassVar[list["MapleLM"] | None] = None

    def __init__(
        self,
        pretrained: Any,
        bits: int | None = None,
        token_budget: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Load a model as `HFLM` does, or, with `bits`, as 03 does.

        Args:
            pretrained: a hub id or folder, a short name of `models.BASE_MODELS`, or a
                model, then with `tokenizer`.
            bits: 4, 8, 16, or None.
            token_budget: new tokens per forward pass; by device where None.
            kwargs: `HFLM`'s arguments.

        Raises:
            ParameterError: for other bits, or several adapters.
        """
        if bits not in (None, 4, 8, 16):
            raise ParameterError(
                f"bits: got {bits!r}; allowed: 4, 8 or 16; e.g. bits=4"
            )
        if "adapters" in kwargs:
            raise ParameterError(
                f"adapters: got {kwargs['adapters']!r}; allowed: with python -m"
                " maple_utils.lm_eval; give one adapter as peft=FOLDER"
            )
        self.bits, self.token_budget = bits, token_budget
        if isinstance(pretrained, str):
            pretrained = models.BASE_MODELS.get(pretrained, pretrained)
        super().__init__(pretrained, **kwargs)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "MapleLM":
        """Make the model from `--model_args`; see `sharing`."""
        if cls.sharing:
            cls.sharing[0].use_adapter(arg_dict["peft"])
            return cls.sharing[0]
        lm = super().create_from_arg_obj(arg_dict, additional_config)
        if cls.sharing is not None:
            cls.sharing.append(lm)
        return lm

    def use_adapter(self, folder: str) -> None:
        """Put another adapter in the place of the one that is loaded."""
        [before] = self.model.peft_config
        name = f"{before}+"  # another name, for its rank may be another
        self.model.load_adapter(folder, adapter_name=name)
        self.model.set_adapter(name)
        self.model.delete_adapter(before)
        self.peft = folder
        self.__dict__.pop("_left_to_hflm", None)  # it may be of another kind

    def _create_model(
        self,
        pretrained: str,
        dtype: str | torch.dtype | None = "auto",
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        """Load the weights."""
        if self.bits:
            if dtype in (None, "auto"):
                on_gpu = self.device.type == "cuda"
                dtype = models.compute_dtype() if on_gpu else torch.float32
            dtype = get_dtype(dtype)
            quantization_config = models.quantisation(self.bits, dtype)
        super()._create_model(
            pretrained, dtype=dtype, quantization_config=quantization_config, **kwargs
        )
        models.disable_cpu_repacking(self._model)

    def loglikelihood_rolling(
        self, requests: list["Instance"], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of every text; many windows in a call."""
        if self._left_to_hflm:
            return super().loglikelihood_rolling(requests, disable_tqdm)
        given, self.batch_size_per_gpu = self.batch_size, WINDOWS
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm)
        finally:
            self.batch_size_per_gpu = given

    def _loglikelihood_tokens(
        self,
        requests: list[Pair],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of every continuation, and whether it is greedy."""
        if self._left_to_hflm:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        paths = [self._path(*request) for request in requests]
        cut = sum(len(c + e) - 1 > self.max_length for _, c, e in requests)
        with self._bar("loglikelihood", len(paths), cut, disable_tqdm) as bar:

            def answered(place: int, answer: tuple[float, bool]) -> None:
                if texts := requests[place][0]:  # None for rolling, which HFLM keeps
                    self.cache_hook.add_partial("loglikelihood", texts, answer)
                bar.update(1)

            return scoring.score_paths(
                *(self.model, paths), token_budget=self.token_budget, answered=answered
            )

    def _path(
        self, texts: tuple[str, str] | None, context: list[int], end: list[int]
    ) -> TokenPath:
        """Return the path to score, cut on the left to what the model can take."""
        if not 0 < len(end) <= self.max_length:
            text = texts[1] if texts else ""
            raise ParameterError(
                f"continuation: got {text[:80]!r} of {len(end)} tokens; allowed: 1 to"
                f" {self.max_length}; look at the options of this task"
            )
        whole = (context + end)[-(self.max_length + 1) :]
        return TokenPath(whole[:-1], len(whole) - len(end), tuple(end))

    def generate_until(
        self, requests: list["Instance"], disable_tqdm: bool = False
    ) -> list[str]:
        """Return what the model writes after every context, up to the first stop."""
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            settings = json.dumps(request.args[1], sort_keys=True, default=str)
            groups.setdefault(settings, []).append(place)
        texts = [""] * len(requests)
        for places in groups.values():
            some = [requests[place] for place in places]
            given = normalize_gen_kwargs(some[0].args[1], self.max_gen_toks)
            greedy = not given["do_sample"] and not given.keys() - GREEDY
            if greedy and not self._left_to_hflm and self.think_end_token is None:
                answers = self._write(some, given, disable_tqdm)
            else:
                answers = super().generate_until(some, disable_tqdm)
            for place, answer in zip(places, answers, strict=True):
                texts[place] = answer
        return texts

    def _write(
        self, requests: list["Instance"], given: Any, disable_tqdm: bool
    ) -> list[str]:
        """Let the engine write greedily; the requests have these settings in common."""
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(given["until"], eos=eos)
        limit = given["max_gen_toks"]
        room = self.max_length - limit
        if limit < 1 or room < 1:
            raise ParameterError(
                f"max_gen_toks: got {limit}; allowed: 1 to {self.max_length - 1}, for"
                " the model has room for prompt and answer together"
            )
        ends = scoring.end_tokens(self.model, self.tokenizer)
        ended = partial(_ended, self.tokenizer, stops, ends, limit)
        prompts = [self._prompt(request.args[0]) for request in requests]
        paths = [TokenPath(p[-room:], len(p[-room:])) for p in prompts]
        cut = sum(len(prompt) > room for prompt in prompts)
        with self._bar("generate_until", len(paths), cut, disable_tqdm) as bar:

            def answered(place: int, answer: Generation) -> None:
                self.cache_hook.add_partial(
                    "generate_until", requests[place].args, answer.text
                )
                bar.update(1)

            written = scoring.grow_paths(
                *(self.model, paths, ended),
                max_new_tokens=limit,
                token_budget=self.token_budget,
                answered=answered,
            )
        return [generation.text for generation in written]

    def _prompt(self, context: str) -> list[int]:
        """Return a prompt's tokens by the rules of `HFLM` for a batch of one."""
        tokens, _ = self.tok_batch_encode([context], truncation=bool(self.truncation))
        return tokens[0].tolist() or [self.prefix_token_id]

    @cached_property
    def _left_to_hflm(self) -> bool:
        """Whether the engine cannot run this model, so that `HFLM` has to."""
        if why := unfit(self):
            log.warning("maple: as slow as HFLM, which runs this model: %s", why)
        return bool(why)

    def _bar(self, kind: str, total: int, cut: int, disable: bool) -> tqdm:
        """Return a progress bar; say how many requests lose their beginning."""
        if cut:
            log.warning("maple: %d of %d requests are cut on the left", cut, total)
        name = f"Running {kind} requests"
        return tqdm(total=total, disable=disable or self.rank != 0, desc=name)


def _ended(
    tokenizer: PreTrainedTokenizerBase,
    stops: list[str],
    end_tokens: set[int],
    limit: int,
    tokens: list[int],
) -> Generation | None:
    """Return the generation if these new tokens end it, else None."""
    written = tokenizer.decode(tokens)  # a stop may be the text of a special token
    finished = tokens[-1] in end_tokens or any(stop in written for stop in stops)
    if not finished and len(tokens) < limit:
        return None
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    text = postprocess_generated_text(text, stops, None)
    return Generation(text, finished, len(tokens))


# With the entry point, a later lm-eval knows the name already.
if NAME not in model_registry:
    model_registry.register(NAME)(MapleLM)
