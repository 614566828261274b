"""The scoring engine as a back end of lm-eval, the evaluation harness.

    python -m maple_utils.lm_eval --model_args pretrained=owner/name --tasks xcopa_sw

is lm-eval's own command line with `--model maple` in place of `hf`: the same arguments,
tasks, caches and results files. Log-likelihoods, flags and greedy texts are those of
lm-eval's `HFLM` (in float32 to rounding), at a fraction of the cost, since what prompts
share runs once; sampling, and models that the engine cannot run, are left to `HFLM`.
To its arguments come

* `bits=4`, `8` or `16`: load the base model as 03 does, instead of as `HFLM` does;
* `adapters=runs/*/adapter`: one results file for each, over one loaded base model (a
  pattern, since `--model_args` splits at commas);
* `token_budget=N`: new tokens per forward pass, in place of a batch size.
"""
