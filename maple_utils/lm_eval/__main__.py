"""lm-eval's command line with `--model maple`, and one results file per adapter."""

import argparse
import copy
import sys
from collections.abc import Iterator
from glob import glob

from maple_utils.errors import ParameterError
from maple_utils.models import check_adapter


def main() -> None:
    """Run lm-eval: once, or once for each adapter, over one base model."""
    try:
        # It says so where lm_eval is missing.
        from maple_utils.lm_eval.model import MapleLM
    except ModuleNotFoundError as error:
        sys.exit(str(error))
    from lm_eval._cli import HarnessCLI

    command = HarnessCLI()
    args = command.parse_args()
    if getattr(args, "command", "") != "run":  # ls, validate
        return command.execute(args)
    MapleLM.sharing = []
    try:
        for run in list(_runs(args)):
            command.execute(run)
    except ParameterError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    finally:
        MapleLM.sharing = None


def _runs(args: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Yield lm-eval's arguments for every adapter that `adapters` names, or as given.

    Each has its own cache of answers, whose keys tell nothing of the model.
    """
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import sanitize_model_name, simple_parse_args_string

    from maple_utils.lm_eval.model import NAME

    if args.model not in (None, NAME):
        raise ParameterError(
            f"--model: got {args.model!r}; allowed: {NAME}, which need not be given;"
            " for others use lm_eval itself"
        )
    file = EvaluatorConfig.load_yaml_config(args.config) if args.config else {}
    given = args.model_args or file.get("model_args") or {}
    settings = simple_parse_args_string(given) if isinstance(given, str) else {**given}
    pattern = settings.pop("adapters", None)
    args.model, args.model_args = NAME, settings
    if pattern is None:
        yield args
        return
    for folder in _adapters(str(pattern), settings):
        run = copy.copy(args)
        run.model_args = settings | {"peft": folder}  # lm-eval names its files after it
        if cache := args.use_cache or file.get("use_cache"):
            run.use_cache = f"{cache}_{sanitize_model_name(folder)}"
        yield run


def _adapters(pattern: str, settings: dict) -> list[str]:
    """Return the folders that a pattern names, all of them adapters of the base model.

    Raises:
        ParameterError: for none, for one of another model, and beside `peft`.
    """
    folders = sorted(glob(pattern))
    if not folders:
        raise ParameterError(
            f"adapters: got {pattern!r}, which names no folder; allowed: a pattern of"
            " adapters' folders; e.g. adapters=runs/*/adapter"
        )
    if "peft" in settings or "pretrained" not in settings:
        raise ParameterError(
            f"adapters: got {pattern!r} with {', '.join(settings) or 'nothing'};"
            " allowed: with pretrained, and without peft"
        )
    for folder in folders:
        check_adapter(folder, str(settings["pretrained"]))
    return folders


if __name__ == "__main__":
    main()
