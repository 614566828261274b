"""A model on a task in a language.

`answers` asks and judges, `subjects` says who is asked (`serving` if behind a server),
`saving` keeps the tables.

model, tokenizer = models.load("miniature-llama", 16, models.compute_dtype())
cell = Cell("miniature-llama", "", 0, 16)
evaluate(model, tokenizer, cell, "xcopa", "sw", Options(hub_root=miniature.hub()))
"""

from maple_utils.evaluation.answers import (
    Options,
    ask,
    evaluate,
    fewest_resources,
    load,
    new_tokens,
    notes,
)
from maple_utils.evaluation.saving import finish, heldout_scores, save, track
from maple_utils.evaluation.serving import connect, costs
from maple_utils.evaluation.subjects import (
    Subject,
    evaluate_pair,
    is_done,
    loading,
    part_of,
    subjects,
)
from maple_utils.served import spent
