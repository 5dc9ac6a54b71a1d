"""Makes tiny random models and adapters in place of real ones; answers with one line of JSON.

A model's folder holds a narrow config.json and the real tokenizer already. Names and dtypes of its tensors are those of the
real weights where these are there, in whole or only by their index; else those that transformers makes.
"""

import glob
import json
import os
import re
import struct
import sys
import tempfile

MOST_HEADER = 100 << 20


def header(path):
    """Names, dtypes and shapes of the tensors of a safetensors file."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MOST_HEADER:
            raise ValueError(f"{path}: no safetensors header")
        table = json.loads(file.read(length))
    return {name: info for name, info in table.items() if name != "__metadata__"}


def real_tensors(folder, stem):
    """What is known of a folder's weights, by name: all of it, or the name alone where its file is not there."""
    tensors = {}
    index = os.path.join(folder, f"{stem}.safetensors.index.json")
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            tensors.update({name: {} for name in json.load(file)["weight_map"]})
    for path in glob.glob(os.path.join(glob.escape(folder), f"{stem}*.safetensors")):
        tensors.update(header(path))
    return tensors


def dtypes():
    import torch

    return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def model(job):
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    folder, trust = job["folder"], job["trust_remote_code"]
    torch.manual_seed(job["seed"])
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    known = getattr(transformers, (config.architectures or [""])[0], None)
    made = known(config) if known else transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    dtype = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None) or torch.float32
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        written = file.read()
    with tempfile.TemporaryDirectory() as scratch:
        made.to(dtype).save_pretrained(scratch, max_shard_size="1TB")
        tensors = load_file(os.path.join(scratch, "model.safetensors"))
    tensors = like(tensors, real_tensors(job["real"], "model"), config)
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        file.write(written)


def like(made, real, config):
    """The tensors that the real model has, as far as they can be told; those of transformers where nothing is known."""
    import torch

    if not set(made) & set(real):
        return made
    n_rows = getattr(config, "vocab_size", None)
    tensors = {}
    for name, info in real.items():
        shape = info.get("shape")
        tensor = made.get(name)
        if tensor is None and name == "lm_head.weight" and "model.embed_tokens.weight" in made:
            tensor = made["model.embed_tokens.weight"].clone()
        if tensor is None and shape is not None and torch.Size(shape).numel() <= 1 << 20:
            tensor = torch.zeros(shape)
        if tensor is None:
            continue
        if shape and tensor.dim() == 2 and tensor.shape[0] == n_rows != shape[0]:
            # The embedding may have other rows than the config says: that is for the merge to see.
            tensor = tensor.repeat(-(-shape[0] // n_rows), 1)[: shape[0]]
        tensors[name] = tensor.to(dtypes().get(info.get("dtype"), tensor.dtype)).contiguous()
    return tensors


def adapter(job):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(job["seed"])
    weights = {name: info["shape"] for name, info in real_tensors(job["base"], "model").items()}
    if not weights:
        raise ValueError("its base model was not made")
    with open(os.path.join(job["folder"], "adapter_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    tensors = {}
    for name, dtype, rank in halves(job, config, weights):
        module = re.sub(r"\.lora_(embedding_)?[AB](\.weight)?$", "", name).removeprefix("base_model.model.")
        shape = weights.get(f"{module}.weight", [8, 8])
        # Conv1D and embeddings have rows and columns the other way round.
        turned = config.get("fan_in_fan_out") or "lora_embedding_" in name
        n_out, n_in = reversed(shape) if turned else shape
        is_a = re.search(r"\.lora_(embedding_)?A(\.weight)?$", name)
        tensors[name] = (torch.randn([rank, n_in] if is_a else [n_out, rank]) * 0.02).to(dtype)
    if not tensors:
        raise ValueError(f"target_modules {config.get('target_modules')} match no tensor of the base model")
    save_file(tensors, os.path.join(job["folder"], "adapter_model.safetensors"), metadata={"format": "pt"})


def halves(job, config, weights):
    """Name, dtype and rank of every tensor of an adapter: the real one's, else those that its config speaks of."""
    import torch

    real = real_tensors(job["real"], "adapter_model")
    for name, info in real.items():
        if re.search(r"\.lora_(embedding_)?[AB](\.weight)?$", name):
            is_a = re.search(r"\.lora_(embedding_)?A(\.weight)?$", name)
            rank = info["shape"][0 if is_a else 1] if info else config.get("r", 8)
            yield name, dtypes().get(info.get("dtype"), torch.float32), rank
    if real:
        return
    targets = config.get("target_modules") or []
    for name, shape in weights.items():
        module = name.removesuffix(".weight")
        if name == module or len(shape) != 2 or not targeted(module, targets):
            continue
        for half in ("A", "B"):
            yield f"base_model.model.{module}.lora_{half}.weight", torch.float32, config.get("r", 8)


def targeted(module, targets):
    if targets == "all-linear":
        return re.search(r"\.\d+\.", module) is not None
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def main():
    answers = []
    for job in json.load(open(sys.argv[1], encoding="utf-8")):
        try:
            {"model": model, "adapter": adapter}[job["kind"]](job)
            answers.append(None)
        except Exception as error:
            answers.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
    print("\nmergesweep-answer " + json.dumps(answers), flush=True)


main()
