"""Base models at 4, 8 or 16 bits, with or without adapters, on this device."""

from maple_utils import libraries  # noqa: F401  (first: see there)

# isort: split
import json
import logging
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import singledispatch
from pathlib import Path

import psutil
import torch
from huggingface_hub import HfApi
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from maple_utils.errors import ParameterError
from maple_utils.params import short_name
from maple_utils.provenance import content_of

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
    is_id = bool(owner.strip(".~") and rest and not {"/", ":"} & set(rest + owner))
    return is_id and not Path(name).exists()


def base_revision(base_model: str) -> str:
    """Return the commit of a model of the hub, as loaded, or a digest of a folder.

    The cache knows the commit, once the model has been loaded.
    """
    name = source(base_model)
    if Path(name).is_dir():
        return f"sha256:{content_of(Path(name))}"
    return HfApi().resolve_revision(name, local_files_only=True).resolved


def compute_dtype() -> torch.dtype:
    """Return the dtype to compute in: bfloat16 where the GPU has it, else as follows.

    Older GPUs (Colab's T4) have float16 only. CPUs compute in float32: without bf16
    units bfloat16 is about 20 times slower there.

    Raises:
        ParameterError: beside an NVIDIA GPU that torch cannot use, where a run would
            be planned on the CPU, and take days.
    """
    if not torch.cuda.is_available():
        _check_no_gpu()
        return torch.float32
    native = torch.cuda.get_device_capability()[0] >= 8
    return torch.bfloat16 if native else torch.float16


def _check_no_gpu() -> None:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # none is wanted
        return
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # a machine without one
        return
    driver, cuda = found.stdout.split("\n")[0], torch.version.cuda
    raise ParameterError(
        f"CUDA_VISIBLE_DEVICES: an NVIDIA GPU with driver {driver} is here, but torch "
        f"{torch.__version__}, built for CUDA {cuda}, cannot use it; allowed: a build "
        "for this driver (the README's Install says where from), a newer driver, or "
        "the CPU; export CUDA_VISIBLE_DEVICES= for the CPU"
    )


def load(
    base_model: str, bits: int, dtype: torch.dtype, attn_implementation: str = "sdpa"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model, ready to evaluate, and its tokenizer.

    The same weights, dtype and attention as 02 trains on, given the dtype and attention
    that `train.json` recorded.

    Args:
        base_model: a short name, a hub id or a folder.
        bits: 4, 8 or 16.
        dtype: to compute in, and what 4-bit weights are unpacked to.
        attn_implementation: a name that transformers knows.

    Raises:
        ParameterError: for a name that `source` does not know.
    """
    name = source(base_model)
    model = AutoModelForCausalLM.from_pretrained(
        name,
        dtype=dtype,
        quantization_config=quantisation(bits, dtype),
        attn_implementation=attn_implementation,
        device_map={"": 0} if torch.cuda.is_available() else None,
        use_safetensors=True,
    )
    disable_cpu_repacking(model)
    return model.eval(), load_tokenizer(name)


def quantisation(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return how weights of 4, 8 or 16 bits are kept; `dtype` is computed in."""
    nf4 = BitsAndBytesConfig(  # as in QLoRA
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    int8 = BitsAndBytesConfig(load_in_8bit=True)  # LLM.int8
    return {4: nf4, 8: int8, 16: None}[bits]


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model, by hub id or folder.

    Of a folder that has nothing but a `tokenizer.model`, transformers would take a
    generic class, without a begin token and with other tokens at the start of a text.
    """
    others = ("tokenizer.json", "tokenizer_config.json")
    is_bare = (Path(name) / "tokenizer.model").is_file()
    if is_bare and not any((Path(name) / other).is_file() for other in others):
        return LlamaTokenizer.from_pretrained(name, add_bos_token=True)
    return AutoTokenizer.from_pretrained(name)


def disable_cpu_repacking(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs that have bf16 units.

    There, the first forward pass in eval mode rounds the block scales to bfloat16, for
    good, and the repacked product has no gradient: a model that has been evaluated
    could no longer be trained, and would differ from the same one on another machine.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@singledispatch
@contextmanager
def switched_to(
    model: PreTrainedModel | PeftModel, adapter: str | None
) -> Iterator[PreTrainedModel | PeftModel]:
    """Give the model with one of its adapters on, by name; None: the base model."""
    if adapter:
        model.set_adapter(adapter)
        yield model
    elif isinstance(model, PeftModel):
        with model.disable_adapter():
            yield model
    else:
        yield model


def device_name() -> str:
    """Name the device for run records: the GPU, or the processor and its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {psutil.cpu_count()} cores"


def peak_memory() -> int:
    """Return the peak memory in bytes: of the GPU, or of this process on a CPU.

    Of a GPU it is what tensors held: what torch reserved besides is free to be used.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if (status := Path("/proc/self/status")).exists():
        [high] = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(high) * 1024
    import resource  # not on Windows

    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def forget_peak_memory() -> None:
    """Let the peak begin anew, at what is held now; where the system cannot, not."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif (process := Path("/proc/self/clear_refs")).exists():
        with suppress(OSError):
            process.write_text("5")  # Linux: the peak, and no other count


def check_adapter(adapter: str | Path, base_model: str) -> Path:
    """Return the adapter's folder if it holds an adapter of this base model.

    Raises:
        ParameterError: if the folder is missing, holds no adapter, or was trained on
            another base model.
    """
    folder = Path(adapter)
    config = folder / "adapter_config.json"
    needed = [config, folder / "adapter_model.safetensors"]
    if absent := [file.name for file in needed if not file.is_file()]:
        raise ParameterError(
            f"adapters: got {str(folder)!r}, which holds no {absent[0]}; allowed: a "
            "folder written by 02_train; run 02_train with these parameters"
        )
    trained_on = json.loads(config.read_text())["base_model_name_or_path"] or ""
    known = BASE_MODELS.get(trained_on, trained_on)
    if short_name(known) != short_name(source(base_model)):
        raise ParameterError(
            f"adapters: got {str(folder)!r}, trained on {trained_on}; allowed: "
            f"adapters of base_model {base_model} ({source(base_model)})"
        )
    return folder
