"""Base models by short name, the dtype this device can do, adapters that fit a base."""

import json
import logging
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from maple_utils.errors import ParameterError
from maple_utils.params import short_name

_MINIATURE = Path(__file__).parent / "miniature"

# LLM.int8 says at each product that it casts float32: 280,000 lines in one notebook.
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

# Short names, as they stand in params files and tables. The miniature models ship with
# the package; that the paper used these checkpoints of Llama-2 and Mistral is inferred.
BASE_MODELS = {
    "miniature-llama": str(_MINIATURE / "llama"),
    "miniature-mistral": str(_MINIATURE / "mistral"),
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
}


def source(base_model: str) -> str:
    """Return the hub id or folder that a base model's name stands for.

    Raises:
        ParameterError: if it is no short name and looks neither like a hub id
            ("owner/name") nor like a folder with a `config.json`.
    """
    if base_model in BASE_MODELS:
        return BASE_MODELS[base_model]
    if (Path(base_model) / "config.json").is_file() or _is_hub_id(base_model):
        return base_model
    raise ParameterError(
        f"base_model: got {base_model!r}; allowed: {', '.join(BASE_MODELS)}, a hub id "
        "owner/name, or a folder with a config.json; e.g. -p base_model miniature-llama"
    )


def _is_hub_id(name: str) -> bool:
    owner, _, rest = name.partition("/")
    return (
        bool(owner.strip(".~") and rest and "/" not in rest) and not Path(name).exists()
    )


def compute_dtype() -> torch.dtype:
    """Return the dtype to compute in: bfloat16 where the GPU has it, else as follows.

    Older GPUs (Colab's T4) have float16 only. CPUs compute in float32: without bf16
    units bfloat16 is about 20 times slower there.
    """
    if not torch.cuda.is_available():
        return torch.float32
    native = torch.cuda.get_device_capability()[0] >= 8
    return torch.bfloat16 if native else torch.float16


def keep_weights_still(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs that have bf16 units.

    There, the first forward pass in eval mode rounds the block scales to bfloat16, for
    good, and the repacked product has no gradient: a model that has been evaluated
    could no longer be trained, and would differ from the same one on another machine.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def device_name() -> str:
    """Name the device for run records: the GPU, or the processor and its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {psutil.cpu_count()} cores"


def peak_memory() -> int:
    """Return the peak memory in bytes: of the GPU, or of this process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    import resource  # not on Windows, and needed on CPUs only

    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def forget_peak_memory() -> None:
    """Let a GPU's peak begin anew; a process on a CPU has one for its whole life."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def check_adapter(adapter: str | Path, base_model: str) -> Path:
    """Return the adapter's folder if it holds an adapter of this base model.

    Raises:
        ParameterError: if the folder is missing, holds no adapter, or was trained on
            another base model.
    """
    folder = Path(adapter)
    config = folder / "adapter_config.json"
    if not config.is_file():
        raise ParameterError(
            f"adapters: got {str(folder)!r}, which holds no adapter_config.json; "
            "allowed: a folder written by 02_train; run 02_train with these parameters"
        )
    trained_on = json.loads(config.read_text())["base_model_name_or_path"]
    known = BASE_MODELS.get(trained_on, trained_on)
    if short_name(known) != short_name(source(base_model)):
        raise ParameterError(
            f"adapters: got {str(folder)!r}, trained on {trained_on}; allowed: "
            f"adapters of base_model {base_model} ({source(base_model)})"
        )
    return folder


def environment() -> dict:
    """Return what a run record must say of the place: versions, git commit, device.

    `git` is None outside a repository; `clean` says whether the commit is all there is.
    """
    packages = "torch transformers peft trl bitsandbytes datasets maple-utils".split()
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "git": _git_state(),
        "device": device_name(),
    }


def _git_state() -> dict | None:
    here = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.check_output(
            [*here, "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL
        )
        changed = subprocess.check_output([*here, "status", "--porcelain"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": head.strip(), "clean": not changed.strip()}
