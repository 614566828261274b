"""How this device trains: what the parameters leave open is chosen, so that it fits."""

from maple_utils import libraries  # first: see there

# isort: split
import os
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import pandas as pd
import psutil
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import is_flash_attn_2_available, is_triton_available

from maple_utils import forecast, models
from maple_utils.errors import ParameterError
from maple_utils.training.trial import largest_divisor


def score_responses_alone() -> None:
    """Let TRL compute the logits of the responses only, on a CPU as on a GPU.

    TRL 1.16 leaves out positions without a label where its Triton kernels run, and
    scores all of them elsewhere, for the sake of devices that compile each new shape.
    The loss and its gradients are the same.
    """
    from trl.trainer import utils  # slow, and notebook 02 alone needs it

    utils._use_triton = lambda device: True


@dataclass(frozen=True)
class Machine:
    """What was found: GPUs that this kernel sees; memory in bytes, free and in all."""

    gpus: int
    free: float
    total: float
    bfloat16: bool = False
    flash: bool = False
    name: str = "this CPU"
    distributed: bool = False


def machine() -> Machine:
    """Look at the device of this process: its GPU, or the processor.

    Raises ParameterError beside an NVIDIA GPU that torch cannot use.
    """
    dtype = models.compute_dtype()
    if not torch.cuda.is_available():
        memory = psutil.virtual_memory()
        return Machine(0, memory.available, memory.total)
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # accelerate sets it
    modern = dtype == torch.bfloat16
    free, total = torch.cuda.mem_get_info()
    return Machine(
        gpus=torch.cuda.device_count(),
        free=free,
        total=total,
        bfloat16=modern,
        # The package `kernels`, if it is there, fetches what flash-attn would compile.
        flash=modern and is_flash_attn_2_available(kernels_fallback_ok=True),
        name=models.device_name(),
        distributed=torch.distributed.is_torchelastic_launched(),
    )


@dataclass(frozen=True)
class Plan:
    """How this device trains: the parameters that were left open, chosen."""

    preset: str
    dtype: torch.dtype
    attn_implementation: str
    optimizer: str
    gradient_checkpointing: bool
    micro_batch: int
    max_length: int
    needs: float  # bytes, estimated
    free: float  # bytes


def plan(run: SimpleNamespace, device: Machine) -> Plan:
    """Choose what the parameters of 02 leave open (0 or "auto"), so that it fits.

    Raises:
        ParameterError: in one line, where it would not fit, naming the nearest setting
            that does; where one kernel sees several GPUs; where a tracker, or what
            Triton compiles with, is absent.
    """
    libraries.check_tracker(run.report_to)
    _check(device)
    if device.gpus and is_triton_available():
        _check_compiler()
    # By all memory: what others hold of it must not change max_length, and so the data.
    usual = forecast.preset(device.total if device.gpus else 0)
    on_gpu = "bfloat16" if device.bfloat16 else "float16"
    chosen = {
        "dtype": on_gpu if device.gpus else "float32",
        "attn_implementation": "flash_attention_2" if device.flash else "sdpa",
        "optimizer": usual["optimizer"],
    }
    chosen |= {n: given for n in chosen if (given := getattr(run, n)) != "auto"}
    width = 4 if chosen["dtype"] == "float32" else 2
    dense = chosen["attn_implementation"] in ("sdpa", "eager")
    asked = forecast.asked_load(vars(run), usual, width, dense)
    load = _fitting(run, asked, device)
    return Plan(
        preset=usual["name"],
        dtype=getattr(torch, chosen["dtype"]),
        attn_implementation=chosen["attn_implementation"],
        optimizer=chosen["optimizer"],
        gradient_checkpointing=load.gradient_checkpointing,
        micro_batch=load.micro_batch,
        max_length=load.max_length,
        needs=forecast.training_bytes(forecast.shape_of(run.base_model), load),
        free=device.free,
    )


def _check(device: Machine) -> None:
    if device.gpus > 1 and not device.distributed:
        raise ParameterError(
            f"CUDA_VISIBLE_DEVICES: this kernel sees {device.gpus} GPUs; allowed: one, "
            "or it would split the model over them; export CUDA_VISIBLE_DEVICES=0, or "
            "see docs/training.md for several GPUs on one cell"
        )


def _check_compiler() -> None:
    """Look for what Triton needs to compile TRL's loss, in the first pass on a GPU."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not (os.environ.get("CC") or which("gcc") or which("clang")):
        found, advice = "no C compiler", "apt-get install gcc, or export CC"
    elif not header.is_file():
        found, advice = f"no {header}", "apt-get install python3-dev"
    else:
        return
    raise ParameterError(
        f"CC: {found} is here; allowed: gcc, clang or one that CC names, and Python's "
        f"headers, for Triton compiles the loss; {advice}"
    )


def _fitting(
    run: SimpleNamespace, asked: forecast.TrainingLoad, device: Machine
) -> forecast.TrainingLoad:
    """Return the load, or the nearest that fits and changes nothing that was given."""
    shape = forecast.shape_of(run.base_model)
    near = forecast.nearest_fit(shape, asked, device.free)
    # Rows per pass and recomputation change no result, so these two may give way.
    free_to_choose = [
        name
        for name in ("micro_batch", "gradient_checkpointing")
        if getattr(run, name) in (0, "auto")
    ]
    given_way = {name: getattr(near, name) for name in free_to_choose if near}
    if near == replace(asked, **given_way):
        return near
    needs = forecast.training_bytes(shape, asked) / 1e9
    raise ParameterError(
        f"base_model: {run.base_model} with {asked} needs about {needs:.1f} GB; "
        f"allowed: the {device.free / 1e9:.1f} GB that are free on {device.name}; "
        + (f"the nearest that fits: {near}" if near else "no setting of it fits")
    )


def count_fitting(lengths: pd.DataFrame, max_length: int) -> pd.DataFrame:
    """Count, by language, rows of at most `max_length` tokens, and those too long.

    Args:
        lengths: a row per training row, with language and tokens.
        max_length: in tokens.

    Returns:
        The columns rows and too_long, by language.

    Raises:
        ParameterError: where no row of a language is left to train on.
    """
    fits = lengths["tokens"] <= max_length
    counts = fits.groupby(lengths["language"]).agg(rows="sum", too_long="size")
    counts["too_long"] -= counts["rows"]
    if gone := list(counts.index[counts["rows"] == 0]):
        shortest = lengths[lengths["language"].isin(gone)]["tokens"].min()
        raise ParameterError(
            f"max_length: got {max_length}, which no row of {', '.join(gone)} fits; "
            f"allowed: from {shortest}, or leave them out of languages"
        )
    return counts


def rows_per_step(
    run: SimpleNamespace, plan: Plan, mean_length: float, processes: int = 1
) -> tuple[int, int]:
    """Return each process's rows per step, and per forward pass, which divides those.

    A packed row holds several examples: so many of them are taken that a step sees
    `batch_size` examples on average. Where rows are not packed and `micro_batch` was
    left open, as many go through at once as the plan's rows of `max_length` would hold.
    Raises ParameterError where the processes cannot share `batch_size` evenly.
    """
    if run.batch_size % processes:
        raise ParameterError(
            f"batch_size: got {run.batch_size}; allowed: a multiple of the {processes} "
            f"processes; e.g. -p batch_size {processes * 16}"
        )
    examples = plan.max_length / mean_length  # in a full row
    rows = run.batch_size // processes
    rows = max(1, round(rows / examples)) if run.packing else rows
    whole = run.packing or run.micro_batch
    most = plan.micro_batch if whole else max(1, int(plan.micro_batch * examples))
    return rows, largest_divisor(rows, most)


def tokenizing_processes(rows: int) -> int | None:
    """Return how many processes turn rows into tokens; None for this one alone.

    TRL does it row by row, 1.5 million rows in about 25 minutes on one core. A process
    takes a second or so to start, which few rows do not pay for.
    """
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    processes = min(cores, rows // 20_000)
    return processes if processes > 1 else None


def pad_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a token to pad with that is never the end token: its own, or unknown's.

    Raises ParameterError for a tokenizer that has neither.
    """
    own = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token)
    found = next((t for t in own if t and t != tokenizer.eos_token), None)
    if found is None:
        raise ParameterError(
            f"base_model: the tokenizer of {tokenizer.name_or_path} has only its end "
            f"token {tokenizer.eos_token!r} to pad with; allowed: a pad, unknown or "
            "begin token of its own; set one in its tokenizer_config.json"
        )
    return found
