"""Teachers and translators that run on this machine, through transformers."""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from maple_utils.languages import LANGUAGES
from maple_utils.synthesis.teachers import (
    FREE,
    Answer,
    Teacher,
    hash_of,
    plain_translator,
)


class Local:
    """A causal model of transformers on this machine, by hub id or folder.

    Greedy at temperature 0. Otherwise sampled from a seed that depends on the batch.
    """

    price, at_once = FREE, False

    def __init__(
        self,
        model: str,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int = 512,
        batch_size: int = 8,
    ):
        self.name, self.batch_size = model, batch_size
        self.decoding = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
        }
        self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(
            model, dtype="auto", device_map="auto", use_safetensors=True
        )
        self._lock = threading.Lock()

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Generate for all prompts in one batch."""
        is_chat = bool(self._tokenizer.chat_template)
        texts = [self._chat(text) for text in prompts] if is_chat else list(prompts)
        inputs = self._tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=not is_chat,  # a template writes its own begin token
            return_token_type_ids=False,
        ).to(self._model.device)
        with self._lock:
            outputs = self._model.generate(**inputs, **self._generation(prompts))
        new = outputs[:, inputs["input_ids"].shape[1] :]
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return [self._read(*pair) for pair in zip(new.tolist(), lengths, strict=True)]

    def _chat(self, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        return self._tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )

    def _generation(self, prompts: Sequence[str]) -> dict[str, Any]:
        shared = {
            "max_new_tokens": self.decoding["max_tokens"],
            "pad_token_id": self._tokenizer.pad_token_id,
        }
        if not self.decoding["temperature"]:
            return {**shared, "do_sample": False}
        torch.manual_seed(hash_of(*prompts))
        drawn = {name: self.decoding[name] for name in ("temperature", "top_p")}
        return {**shared, "do_sample": True, **drawn}

    def _read(self, ids: list[int], prompt_tokens: int) -> Answer:
        end = self._model.generation_config.eos_token_id
        ends = set(end) if isinstance(end, list) else {end}
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        text = self._tokenizer.decode(ids[:stop], skip_special_tokens=True).strip()
        finish = "length" if stop is None else "stop"
        return Answer(text, finish, prompt_tokens, len(ids[:stop]))


class Nllb:
    """NLLB-200 as a translator, e.g. facebook/nllb-200-distilled-600M; greedy."""

    def __init__(self, model: str, max_tokens: int = 512, batch_size: int = 8):
        self.name, self.max_tokens, self.batch_size = model, max_tokens, batch_size
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._model = AutoModelForSeq2SeqLM.from_pretrained(
            model, dtype="auto", device_map="auto", use_safetensors=True
        )
        self._lock = threading.Lock()

    def between(self, source: str, target: str) -> Teacher:
        """Return the translator from `source` to `target`, codes as in LANGUAGES."""
        longest = {"max_tokens": self.max_tokens}
        make = plain_translator(self.name, self._translate, longest, self.batch_size)
        return make(source, target)

    def _translate(self, texts: list[str], source: str, target: str) -> list[Answer]:
        with self._lock:
            self._tokenizer.src_lang = LANGUAGES[source].flores
            inputs = self._tokenizer(texts, return_tensors="pt", padding=True)
            start = self._tokenizer.convert_tokens_to_ids(LANGUAGES[target].flores)
            outputs = self._model.generate(
                **inputs.to(self._model.device),
                forced_bos_token_id=start,
                max_new_tokens=self.max_tokens,
                do_sample=False,
            )
        written = self._tokenizer.batch_decode(outputs, skip_special_tokens=True)
        ends = (outputs == self._tokenizer.eos_token_id)[:, 1:].any(dim=1).tolist()
        return [
            Answer(text.strip(), "stop" if end else "length")
            for text, end in zip(written, ends, strict=True)
        ]
