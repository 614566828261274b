"""Rows laid end to end: what varlen kernels compute is what a dense mask computes.

No such kernel runs on a CPU. This one does by hand what they do, row by row, from what
transformers hands to them; the loss and its gradients must be those of sdpa's mask.
"""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from maple_utils import training
from maple_utils.training import Machine
from tests.test_training import asked, trainer_of

NAME = "varlen_by_hand"


def by_row(module, query, key, value, attention_mask, scaling, **given):
    """Attend within each row, which begins where positions do, and in its window."""
    assert attention_mask is None  # nothing tells rows apart but their positions
    heads = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(heads, dim=1) for x in (key, value))
    starts = (given["position_ids"][0] == 0).nonzero()[:, 0].tolist()
    assert len(starts) > 3
    parts = []
    for start, end in zip(starts, [*starts[1:], query.shape[2]], strict=True):
        q, k, v = (x[:, :, start:end] for x in (query, key, value))
        i = torch.arange(end - start)
        seen = i[:, None] >= i
        if window := given.get("sliding_window"):
            seen &= i[:, None] - i < window
        own = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling)
        parts.append(own.transpose(1, 2))
    return torch.cat(parts, dim=1), None


@pytest.mark.parametrize("name", ["miniature-llama", "miniature-mistral"])
def test_rows_end_to_end_have_the_same_loss_by_kernel_and_by_mask(name, tmp_path):
    AttentionInterface.register(NAME, by_row)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    found = {}
    for attention in ("sdpa", NAME):
        trainer = trainer_of(tmp_path, name, padding_free=True, max_length=None)
        trainer.model.get_base_model().set_attn_implementation(attention)
        batch = trainer.data_collator(list(trainer.train_dataset))
        assert batch["input_ids"].shape[1] > 128  # beyond Mistral's window
        loss = trainer.compute_loss(trainer.model.train(), batch)
        loss.backward()
        gradients = [p.grad for p in trainer.model.parameters() if p.requires_grad]
        found[attention] = loss.detach(), torch.cat([g.flatten() for g in gradients])
    (dense, dense_gradient), (varlen, varlen_gradient) = found.values()
    assert float(varlen) == pytest.approx(float(dense), abs=1e-5)
    assert torch.allclose(varlen_gradient, dense_gradient, atol=1e-5)


def test_a_kernel_is_taken_where_one_can_be_had(monkeypatch):
    """Transformers fetches one through the package `kernels`, where that is there."""
    given = []

    def available(kernels_fallback_ok: bool = False) -> bool:
        given.append(kernels_fallback_ok)
        return kernels_fallback_ok

    monkeypatch.setattr(training, "is_flash_attn_2_available", available)
    monkeypatch.setattr(training.models, "compute_dtype", lambda: torch.bfloat16)
    monkeypatch.setattr(training.models, "device_name", lambda: "A100")
    for name, value in {
        "is_available": lambda: True,
        "set_device": lambda number: None,
        "mem_get_info": lambda: (79e9, 85e9),
        "device_count": lambda: 1,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    found = training.machine()
    assert found == Machine(1, 79e9, 85e9, True, True, "A100")
    assert given == [True]
    monkeypatch.setattr(training, "is_triton_available", lambda: False)
    assert training.plan(asked(), found).attn_implementation == "flash_attention_2"
