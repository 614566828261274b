"""Two false alarms of the installed releases, removed before they can ring.

To be imported before bitsandbytes, PEFT and transformers' Trainer, which imports both.
"""

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

from maple_utils.errors import ParameterError


def import_bitsandbytes() -> None:
    """Import bitsandbytes without its request to the hub for a kernel.

    On CPUs with bf16 units the import itself asks kernels-community for a 4-bit product
    and warns where it gets none. Only repacked weights would go through it, and the kit
    does not let weights be repacked (`models.disable_cpu_repacking`). So the request is
    answered here, with the None that bitsandbytes takes for "no such kernel".
    """
    stand_in = ModuleType("kernels")
    vars(stand_in)["get_kernel"] = lambda *args, **kwargs: SimpleNamespace(
        gemm_4bit_forward=None
    )
    installed = sys.modules.get("kernels")
    sys.modules["kernels"] = stand_in
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        if installed:
            sys.modules["kernels"] = installed


def rename_deprecated_property() -> None:
    """Let PEFT ask by the old name whether activations are recomputed.

    `PeftModel` reads `is_gradient_checkpointing`, which transformers 5.23 has renamed
    and warns about; the answer is the same.
    """
    from transformers import PreTrainedModel  # after bitsandbytes

    PreTrainedModel.is_gradient_checkpointing = (
        PreTrainedModel.is_activation_checkpointing
    )


def check_tracker(report_to: str) -> None:
    """Raise ParameterError for a tracker that is not installed."""
    if report_to != "none" and not find_spec(report_to):
        raise ParameterError(
            f"report_to: got {report_to!r}, which is not installed; allowed: none, or "
            f"a tracker that is; pip install {report_to}"
        )


import_bitsandbytes()
rename_deprecated_property()
