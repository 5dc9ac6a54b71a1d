#!/usr/bin/env python3
"""Apply LoRA adapters with PEFT and with mergesweep, and fail unless they agree within one unit in the last place.

    python scripts/check_adapter.py target/debug/mergesweep

Needs torch, transformers and peft. Builds a tiny random Llama in every format and adapters of every supported kind.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
    print(__doc__.strip())
    sys.exit(0 if "-h" in sys.argv or "--help" in sys.argv else 2)

import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

ADAPTERS = {
    "plain": {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"},
    "rslora": {"r": 8, "lora_alpha": 4, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "up_proj"],
        "rank_pattern": {"k_proj": 2, r"model.layers.1.self_attn.q_proj": 3},
        "alpha_pattern": {"up_proj": 32},
    },
    "embedding": {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "lm_head", "v_proj"]},
}
BITS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


def ulps(left, right):
    """Largest difference in representable steps."""

    def steps(tensor):
        bits = tensor.view(BITS[tensor.dtype]).to(torch.int64)
        return torch.where(bits < 0, -(1 << (8 * tensor.element_size() - 1)) - bits, bits)

    return (steps(left) - steps(right)).abs().max().item()


def build(folder, dtype, kind, adapter_dtype):
    """A base model, an adapter with weights that are not zero, and PEFT's merge of the two."""
    torch.manual_seed(7)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=120, num_hidden_layers=2, tie_word_embeddings=False, **shape)
    base, adapter = folder / "base", folder / "adapter"
    LlamaForCausalLM(config).to(dtype).save_pretrained(base)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base, dtype=dtype), LoraConfig(**ADAPTERS[kind]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    weights = {name: tensor.to(adapter_dtype) if "lora_" in name else tensor for name, tensor in weights.items()}
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    fresh = LlamaForCausalLM.from_pretrained(base, dtype=dtype)
    return PeftModel.from_pretrained(fresh, adapter).merge_and_unload().state_dict()


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    failed = False
    for dtype in BITS:
        for kind in ADAPTERS:
            for adapter_dtype in [torch.float32, torch.bfloat16]:
                with tempfile.TemporaryDirectory() as text:
                    folder = pathlib.Path(text)
                    expected = build(folder, dtype, kind, adapter_dtype)
                    config = {"merge_method": "passthrough", "models": [{"model": "base+adapter"}]}
                    (folder / "config.yml").write_text(json.dumps(config))
                    command = [program, "merge", "config.yml", "out", "--quiet", "--no-copy-tokenizer"]
                    subprocess.run(command, cwd=folder, check=True)
                    found = load_file(folder / "out/model.safetensors")
                assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
                worst = max(ulps(found[name], expected[name]) for name in found)
                failed |= worst > 1
                print(f"{kind:10} base {dtype} adapter {adapter_dtype}: {worst} ulp", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
