"""The offline world: tiny base models and generated data for all six tasks.

`world` is what is true and how each language says it, `items` asks about it, `hub`
writes the datasets, `teacher` answers and translates, `pretrain` makes the models.
"""

from maple_utils.miniature.hub import hub, hub_root
from maple_utils.miniature.teacher import answer, check_languages, seeds, translate

__all__ = ["answer", "check_languages", "hub", "hub_root", "seeds", "translate"]
