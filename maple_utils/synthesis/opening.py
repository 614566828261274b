"""Teachers and translators by their names: miniature, endpoint:MODEL, local:MODEL."""

from typing import Any

from maple_utils import miniature
from maple_utils.synthesis.local import Local, Nllb
from maple_utils.synthesis.teachers import (
    Endpoint,
    Plain,
    Price,
    Teacher,
    Translator,
    plain_translator,
    prompted_translator,
)


def open_teacher(name: str, price: Price, **decoding: Any) -> Teacher:
    """Open a teacher; `decoding` is temperature, top_p and max_tokens.

    Raises ParameterError where an endpoint's key or address cannot be used.
    """
    kind, _, model = name.partition(":")
    if kind == "miniature":
        return Plain("miniature", miniature.Teacher().answer, at_once=True)
    if kind == "local":
        return Local(model, **decoding)
    return Endpoint(model, price=price, **decoding)


def open_translator(name: str, price: Price, **decoding: Any) -> Translator:
    """Open a translator: nllb:MODEL, or a teacher that is told to translate."""
    kind, _, model = name.partition(":")
    if kind == "miniature":
        translate = miniature.Translator().translate
        return plain_translator("miniature", translate, at_once=True)
    if kind == "nllb":
        return Nllb(model).between
    return prompted_translator(open_teacher(name, price, **decoding))
