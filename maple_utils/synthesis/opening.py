"""Teachers and translators by their names: miniature, endpoint:MODEL, local:MODEL.

Those that run on this machine do so through transformers.
"""

import threading
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from maple_utils import miniature
from maple_utils.languages import LANGUAGES
from maple_utils.synthesis.teachers import (
    Answer,
    Price,
    Teacher,
    Translator,
    endpoint,
    hash_of,
    plain_translator,
    prompted_translator,
)


def open_teacher(name: str, price: Price, decoding: dict[str, Any]) -> Teacher:
    """Open a teacher; `decoding` is temperature, top_p and max_tokens.

    Raises ParameterError where an endpoint's key or address cannot be used.
    """
    kind, _, model = name.partition(":")
    if kind == "miniature":
        return Teacher("miniature", miniature.answer, at_once=True)
    if kind == "local":
        return local(model, decoding)
    return endpoint(model, decoding, price)


def open_translator(name: str, price: Price, decoding: dict[str, Any]) -> Translator:
    """Open a translator: nllb:MODEL, or a teacher that is told to translate."""
    kind, _, model = name.partition(":")
    if kind == "miniature":
        return plain_translator("miniature", miniature.translate, at_once=True)
    if kind == "nllb":
        return nllb(model)
    return prompted_translator(open_teacher(name, price, decoding))


def local(model: str, decoding: dict[str, Any], batch_size: int = 8) -> Teacher:
    """Load a causal model of transformers as a teacher, by hub id or folder.

    `decoding` has temperature, top_p and max_tokens. Greedy at temperature 0; otherwise
    sampled from a seed that depends on the batch.
    """
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    network = AutoModelForCausalLM.from_pretrained(
        model, dtype="auto", device_map="auto", use_safetensors=True
    )
    lock = threading.Lock()

    def answer(prompts: list[str]) -> list[Answer]:
        with lock:
            return _generate(network, tokenizer, prompts, decoding)

    return Teacher(model, answer, decoding, batch_size)


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    decoding: dict[str, Any],
) -> list[Answer]:
    """Generate for all prompts in one batch, as chats where there is a template."""
    texts = prompts
    if is_chat := bool(tokenizer.chat_template):
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = tokenizer.apply_chat_template(
            chats, tokenize=False, add_generation_prompt=True
        )
    inputs = tokenizer(
        texts,
        return_tensors="pt",
        padding=True,
        add_special_tokens=not is_chat,  # a template writes its own begin token
        return_token_type_ids=False,
    ).to(model.device)
    drawn = {}
    if decoding["temperature"]:
        torch.manual_seed(hash_of(*prompts))
        drawn = {name: decoding[name] for name in ("temperature", "top_p")}
    outputs = model.generate(
        **inputs,
        **drawn,
        do_sample=bool(drawn),
        max_new_tokens=decoding["max_tokens"],
        pad_token_id=tokenizer.pad_token_id,
    )
    end = model.generation_config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}
    answers = []
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    new = outputs[:, inputs["input_ids"].shape[1] :].tolist()
    for ids, length in zip(new, lengths, strict=True):
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        text = tokenizer.decode(ids[:stop], skip_special_tokens=True).strip()
        finish = "length" if stop is None else "stop"
        answers.append(Answer(text, finish, length, len(ids[:stop])))
    return answers


def nllb(model: str, max_tokens: int = 512, batch_size: int = 8) -> Translator:
    """Load NLLB-200 as a translator, e.g. facebook/nllb-200-distilled-600M; greedy."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSeq2SeqLM.from_pretrained(
        model, dtype="auto", device_map="auto", use_safetensors=True
    )
    lock = threading.Lock()

    def translate(texts: list[str], source: str, target: str) -> list[Answer]:
        with lock:
            tokenizer.src_lang = LANGUAGES[source].flores
            inputs = tokenizer(texts, return_tensors="pt", padding=True)
            start = tokenizer.convert_tokens_to_ids(LANGUAGES[target].flores)
            outputs = network.generate(
                **inputs.to(network.device),
                forced_bos_token_id=start,
                max_new_tokens=max_tokens,
                do_sample=False,
            )
        written = tokenizer.batch_decode(outputs, skip_special_tokens=True)
        ends = (outputs == tokenizer.eos_token_id)[:, 1:].any(dim=1).tolist()
        return [
            Answer(text.strip(), "stop" if end else "length")
            for text, end in zip(written, ends, strict=True)
        ]

    longest = {"max_tokens": max_tokens}
    return plain_translator(model, translate, longest, batch_size=batch_size)
