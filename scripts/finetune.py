#!/usr/bin/env python3
"""Train a LoRA adapter of SmolLM2-135M-Instruct on the committed data.

On CPU this is PEFT with a plain training loop; with a CUDA GPU and the
`unsloth` package installed the model comes from unsloth instead, and
everything else stays the same.

    python scripts/finetune.py --base .models/SmolLM2-135M-Instruct --data math --out sweeps/adapters/math --eval

Rows come from sweeps/data, restricted to the training part of
sweeps/data/split.json; held-out rows are used only by --eval. The loss is
taken on the answer alone. Progress is kept under --state (not committed):
an interrupted run goes on from there when started again with the same
settings, and gives the result that the uninterrupted run would have given.

Use one thread per run on a small machine (OMP_NUM_THREADS=1): more threads
than free cores make torch several times slower.
"""

import argparse
import hashlib
import json
import math
import os
import random
import shlex
import shutil
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
DATA = REPO / "sweeps" / "data"
HELD_OUT = REPO / "sweeps" / "tasks" / "data"
BASE_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# name -> rows it trains on. "mixed" takes both, shuffled together.
MIXES = {"math": ["math"], "code": ["code"], "mixed": ["math", "code"]}
SOURCES = {
    "math": {"file": DATA / "ft_math_gsm8k" / "train.jsonl", "held_out": HELD_OUT / "heldout_math" / "test.jsonl",
             "licence": "MIT", "credit": "GSM8K train rows, OpenAI (Cobbe et al., 2021)"},
    "code": {"file": DATA / "ft_code_alpaca" / "train.jsonl", "held_out": HELD_OUT / "heldout_code" / "test.jsonl",
             "licence": "CC BY 4.0", "credit": "MBPP (Austin et al., Google Research, 2021) and MBXP (Athiwaratkun et al., Amazon, 2022)"},
}


def fail(message):
    sys.exit(f"finetune: {message}")


def prompt_and_answer(kind, row):
    """The text forms of training; the loss tasks in sweeps/tasks use the same ones."""
    if kind == "math":
        return f"Question: {row['question']}\nAnswer:", f" {row['answer']}"
    return f"### Instruction:\n{row['instruction']}\n{row['input']}\n\n### Response:\n", row["output"]


def read_jsonl(path):
    try:
        with open(path, encoding="utf-8") as f:
            return [json.loads(line) for line in f]
    except FileNotFoundError:
        fail(f"{path} is missing; it is part of the repository, restore it with git.")


def training_rows(mix):
    split = json.loads((DATA / "split.json").read_text())
    rows = []
    for kind in MIXES[mix]:
        all_rows = read_jsonl(SOURCES[kind]["file"])
        rows += [(kind, all_rows[i]) for i in split[kind]["train"]]
    return rows


def encode(tokenizer, kind, row, end_of_text):
    """(ids, length of the prompt). Split as lm-evaluation-harness splits a
    log-likelihood request: white space at the end of the prompt belongs to the answer."""
    prompt, answer = prompt_and_answer(kind, row)
    ids = tokenizer(prompt + answer)["input_ids"]
    prompt_length = len(tokenizer(prompt.rstrip())["input_ids"])
    return (ids + [tokenizer.eos_token_id] if end_of_text else ids), prompt_length


def batches(lengths, batch_size, steps, seed):
    """`steps` lists of row numbers. Every epoch is shuffled; within a window of
    eight batches rows of like length are put together to save padding."""
    rng = random.Random(seed)
    made = []
    while len(made) < steps:
        order = list(range(len(lengths)))
        rng.shuffle(order)
        order = order[: len(order) // batch_size * batch_size]
        for start in range(0, len(order), 8 * batch_size):
            window = sorted(order[start : start + 8 * batch_size], key=lambda i: lengths[i])
            group = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
            rng.shuffle(group)
            made += group
    return made[:steps]


def learning_rate(step, steps, peak, warm_up):
    """Linear warm-up, then linear decay to 5 % of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 - 0.95 * (step - warm_up) / max(1, steps - 1 - warm_up))


class Trainee:
    """Model, tokenizer and how to compute the answer loss, for PEFT or unsloth."""

    def __init__(self, args):
        import torch

        self.torch = torch
        # unsloth patches transformers and must be imported before it.
        self.unsloth = None
        if torch.cuda.is_available() and not args.no_unsloth:
            try:
                import unsloth
                self.unsloth = unsloth
            except ImportError:
                pass
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(args.seed)
        if self.unsloth:
            self._load_unsloth(args)
        else:
            self._load_peft(args)
        # Adapter weights are trained in float32 whatever the base is held in.
        self.trainable = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        for p in self.trainable.values():
            p.data = p.data.float()

    def _load_peft(self, args):
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(args.base)
        base = AutoModelForCausalLM.from_pretrained(args.base, dtype=self.torch.bfloat16 if self.autocast(args) else self.torch.float32)
        base.config.use_cache = False
        if args.from_adapter:
            self.model = PeftModel.from_pretrained(base, args.from_adapter, is_trainable=True)
        else:
            self.model = get_peft_model(base, LoraConfig(
                r=args.rank, lora_alpha=args.alpha, lora_dropout=0.0, bias="none",
                target_modules=PROJECTIONS, task_type="CAUSAL_LM"))
        self.model.to(self.device)

    def _load_unsloth(self, args):
        from unsloth import FastLanguageModel

        # Given an adapter directory unsloth loads its base with it.
        self.model, self.tokenizer = FastLanguageModel.from_pretrained(
            args.from_adapter or args.base, max_seq_length=args.max_tokens, load_in_4bit=False)
        if not args.from_adapter:
            self.model = FastLanguageModel.get_peft_model(
                self.model, r=args.rank, lora_alpha=args.alpha, lora_dropout=0, bias="none",
                target_modules=PROJECTIONS, random_state=args.seed)

    def autocast(self, args):
        if args.precision == "auto":
            return self.device == "cuda"
        return args.precision == "bf16"

    def sums(self, encoded, args):
        """(sum of the answer's negative log-likelihood, number of its tokens) of one padded batch."""
        torch = self.torch
        width = max(len(ids) for ids, _ in encoded)
        ids = torch.full((len(encoded), width), self.tokenizer.pad_token_id, dtype=torch.long)
        attend = torch.zeros((len(encoded), width), dtype=torch.long)
        answer = torch.zeros((len(encoded), width), dtype=torch.bool)
        for i, (tokens, prompt_length) in enumerate(encoded):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            attend[i, : len(tokens)] = 1
            answer[i, prompt_length : len(tokens)] = True
        ids, attend, answer = ids.to(self.device), attend.to(self.device), answer.to(self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.autocast(args)):
            if self.unsloth:
                labels = torch.where(answer, ids, torch.full_like(ids, -100))
                count = int(answer[:, 1:].sum())
                return self.model(input_ids=ids, attention_mask=attend, labels=labels).loss * count, count
            causal = self.model.get_base_model()
            hidden = causal.model(input_ids=ids, attention_mask=attend, use_cache=False).last_hidden_state
            # The vocabulary is a fifth of this model: project only the
            # positions that predict an answer token.
            logits = causal.lm_head(hidden[:, :-1][answer[:, 1:]])
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][answer[:, 1:]], reduction="sum")
        return loss, int(answer[:, 1:].sum())

    def bits_per_byte(self, kind, documents, args):
        """As the loss tasks define it: bits of the answer given the prompt over bytes of the answer."""
        rows = read_jsonl(SOURCES[kind]["held_out"])[:documents]
        bits = total_bytes = 0.0
        self.model.eval()
        with self.torch.no_grad():
            for row in rows:
                loss, _ = self.sums([encode(self.tokenizer, kind, row, end_of_text=False)], args)
                bits += float(loss) / math.log(2)
                total_bytes += len(prompt_and_answer(kind, row)[1].encode())
        self.model.train()
        return bits / total_bytes


def settings_of(args):
    """What a saved state must agree on before a run goes on from it."""
    keys = ["base", "data", "steps", "seed", "batch_size", "max_tokens", "learning_rate", "warm_up", "rank", "alpha", "precision", "from_adapter", "eval"]
    settings = {k: getattr(args, k) for k in keys}
    settings["split"] = hashlib.sha256((DATA / "split.json").read_bytes()).hexdigest()
    return settings


def save_state(path, trainee, optimizer, step, history, before, seconds, args):
    torch = trainee.torch
    tmp = path.with_suffix(".tmp")
    torch.save({"settings": settings_of(args), "step": step, "history": history, "before": before, "seconds": seconds,
                "weights": {n: p.data for n, p in trainee.trainable.items()}, "optimizer": optimizer.state_dict()}, tmp)
    os.replace(tmp, path)  # a kill during the save leaves the older state


def train(args):
    import torch

    args.state.mkdir(parents=True, exist_ok=True)
    state_file = args.state / "state.pt"
    saved = None
    if args.resume != "never" and state_file.is_file():
        saved = torch.load(state_file, weights_only=True)
        if saved["settings"] != settings_of(args):
            differing = [k for k, v in settings_of(args).items() if saved["settings"].get(k) != v]
            if args.resume == "always":
                fail(f"the state in {args.state} belongs to a run with other settings ({', '.join(differing)}).")
            fail(f"the state in {args.state} belongs to a run with other settings ({', '.join(differing)}). "
                 "Go on with the same settings, give another --state, or start over with --resume never.")
    elif args.resume == "always":
        fail(f"there is no saved state in {args.state}; leave --resume out to start from the beginning.")

    started = time.time()
    trainee = Trainee(args)
    rows = training_rows(args.data)
    encoded = []
    for kind, row in rows:
        ids, prompt_length = encode(trainee.tokenizer, kind, row, end_of_text=True)
        if prompt_length < args.max_tokens - 16:  # something must be left to learn from
            encoded.append((ids[: args.max_tokens], prompt_length))
    plan = batches([len(ids) for ids, _ in encoded], args.batch_size, args.steps, args.seed)
    optimizer = torch.optim.AdamW(trainee.trainable.values(), lr=args.learning_rate, weight_decay=0.0)

    step, history, before, seconds = 0, [], {}, 0.0
    if saved:
        step, history, before, seconds = saved["step"], saved["history"], saved["before"], saved["seconds"]
        for name, p in trainee.trainable.items():
            p.data.copy_(saved["weights"][name])
        optimizer.load_state_dict(saved["optimizer"])
        print(f"going on from step {step}", flush=True)
    elif args.eval:
        before = {kind: trainee.bits_per_byte(kind, args.eval_documents, args) for kind in SOURCES}
        print("held-out bits per byte before: " + ", ".join(f"{k} {v:.4f}" for k, v in before.items()), flush=True)

    print(f"{len(encoded)} training rows, {args.steps} steps of {args.batch_size}, "
          f"{sum(p.numel() for p in trainee.trainable.values())} trained weights, "
          f"{'unsloth' if trainee.unsloth else 'PEFT'} on {trainee.device}", flush=True)
    trainee.model.train()
    while step < args.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.learning_rate, args.warm_up)
        batch = [encoded[i] for i in plan[step]]
        # The loss is the mean over all answer tokens of the batch. Going
        # through it in small parts gives the same gradient in less memory.
        count = sum(len(ids) - prompt_length for ids, prompt_length in batch)
        total = 0.0
        for start in range(0, len(batch), args.micro_batch):
            loss, _ = trainee.sums(batch[start : start + args.micro_batch], args)
            (loss / count).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trainee.trainable.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        history.append(round(total / count, 4))
        recent = history[-10:]
        print(f"step {step}/{args.steps}  loss {history[-1]:.4f}  mean of last {len(recent)} {sum(recent) / len(recent):.4f}  "
              f"{seconds + time.time() - started:.0f} s", flush=True)
        if step % args.save_every == 0 or step == args.steps:
            save_state(state_file, trainee, optimizer, step, history, before, seconds + time.time() - started, args)
    seconds += time.time() - started

    after = {kind: trainee.bits_per_byte(kind, args.eval_documents, args) for kind in SOURCES} if args.eval else {}
    if after:
        print("held-out bits per byte after: " + ", ".join(f"{k} {v:.4f}" for k, v in after.items()), flush=True)
    write_adapter(trainee, args, history, before, after, seconds, len(encoded))


def write_adapter(trainee, args, history, before, after, seconds, rows):
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    torch = trainee.torch
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tmp = args.out.parent / f".{args.out.name}.tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir()
    # PEFT saves float32; 16 bit is half of that and loses nothing that a 16-bit merge could keep.
    tensors = {n: t.detach().to("cpu", torch.bfloat16).contiguous() for n, t in get_peft_model_state_dict(trainee.model).items()}
    weights = tmp / "adapter_model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    config = trainee.model.peft_config["default"].to_dict()
    config = {k: (sorted(v) if isinstance(v, (set, frozenset)) else v) for k, v in config.items()}
    config.update(base_model_name_or_path=BASE_ID, inference_mode=True, target_modules=PROJECTIONS)
    write_json(tmp / "adapter_config.json", {k: getattr(v, "value", v) for k, v in sorted(config.items())})
    record = {
        "command": args.command, "base": BASE_ID, "data": args.data, "training_rows": rows, "seed": args.seed, "steps": args.steps,
        "batch_size": args.batch_size, "max_tokens": args.max_tokens, "rank": args.rank, "alpha": args.alpha,
        "learning_rate": args.learning_rate, "warm_up": args.warm_up, "precision": args.precision,
        "engine": "unsloth" if trainee.unsloth else "peft", "device": trainee.device, "seconds": round(seconds),
        "held_out_documents": args.eval_documents if args.eval else 0,
        "held_out_bits_per_byte": {"before": {k: round(v, 4) for k, v in before.items()}, "after": {k: round(v, 4) for k, v in after.items()}},
        "loss": history,
    }
    write_json(tmp / "training.json", record)
    (tmp / "README.md").write_text(model_card(args.out.name, record), encoding="utf-8")
    shutil.rmtree(args.out, ignore_errors=True)
    tmp.rename(args.out)
    print(f"{args.out}: done", flush=True)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def model_card(name, record):
    kinds = MIXES[record["data"]]
    loss, width = record["loss"], max(1, record["steps"] // 15)
    curve = "\n".join(f"| {start + 1}-{min(start + width, len(loss))} | {sum(loss[start:start + width]) / len(loss[start:start + width]):.3f} |"
                      for start in range(0, len(loss), width))
    bpb = record["held_out_bits_per_byte"]
    table = ""
    if bpb["after"]:
        rows = "\n".join(f"| {label} | " + " | ".join(f"{bpb[when][k]:.3f}" for k in SOURCES) + " |"
                         for label, when in (("base", "before"), ("with this adapter", "after")))
        table = (f"\n## Held-out bits per byte\n\nOf the answer given the prompt, first {record['held_out_documents']} held-out documents of each task "
                 "(lower is better), as measured by the training script:\n\n"
                 f"| | math | code |\n|---|---|---|\n{rows}\n")
    data = "; ".join(f"{SOURCES[k]['credit']}, licence {SOURCES[k]['licence']}, `sweeps/data/{SOURCES[k]['file'].parent.name}`" for k in kinds)
    licence = " and ".join(f"{SOURCES[k]['credit']} ({SOURCES[k]['licence']})" for k in kinds)
    return f"""---
base_model: {BASE_ID}
library_name: peft
license: apache-2.0
tags: [lora]
---

# {name}: a LoRA adapter of SmolLM2-135M-Instruct

- Base: {BASE_ID} as made by `scripts/fetch_model.py` (de-quantised from Q4_1, so not the hub's exact weights).
- Data: {data}; the {record['training_rows']} training rows of `sweeps/data/split.json` that leave room for an answer. No held-out row and no evaluation item is among them (`scripts/check_split.py`).
- Adapter: rank {record['rank']}, alpha {record['alpha']}, all seven projections, stored in bfloat16.
- Training: {record['steps']} steps of {record['batch_size']} rows, at most {record['max_tokens']} tokens, seed {record['seed']}, AdamW, peak learning rate {record['learning_rate']:g} with {record['warm_up']} warm-up steps and linear decay to 5 %; loss on the answer only; {record['engine']} on {record['device']}, {record['seconds'] / 60:.0f} minutes.
- Command:

```
{record['command']}
```
{table}
## Training loss

Mean per token of the answer; every step is in `training.json`.

| steps | loss |
|---|---|
{curve}

## Licence

Apache-2.0, like the base model. Trained on {licence}.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="directory of the base model (scripts/fetch_model.py makes it) or hub id")
    parser.add_argument("--data", required=True, choices=sorted(MIXES))
    parser.add_argument("--out", required=True, type=Path, help="adapter directory to write; replaced when training is complete")
    parser.add_argument("--from-adapter", help="go on training this adapter instead of starting a new one")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=2, help="rows computed at once; changes memory and speed, not the result")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--alpha", type=int, default=8)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto",
                        help="auto: float32 on CPU (bfloat16 is some ten times slower on CPUs without instructions for it), bfloat16 autocast on a GPU")
    parser.add_argument("--eval", action="store_true", help="held-out bits per byte before and after")
    parser.add_argument("--eval-documents", type=int, default=32)
    parser.add_argument("--state", type=Path, help="where an interrupted run is kept (default: .models/ft-NAME of --out)")
    parser.add_argument("--save-every", type=int, default=10, help="steps between saved states")
    parser.add_argument("--resume", nargs="?", const="always", choices=["auto", "always", "never"], default="auto",
                        help="auto: go on if there is a saved state; always: fail without one; never: start over")
    parser.add_argument("--no-unsloth", action="store_true", help="use PEFT even where unsloth could be used")
    args = parser.parse_args()
    args.command = shlex.join(["python", "scripts/finetune.py", *sys.argv[1:]])
    args.state = args.state or REPO / ".models" / f"ft-{args.out.name}"
    if args.steps < 1:
        fail("--steps must be at least 1")
    looks_local = args.base.startswith((".", "/", "~")) or Path(args.base).exists()
    if looks_local and not (Path(args.base) / "config.json").is_file():
        fail(f"{args.base} holds no model. Make the base with: python scripts/fetch_model.py")
    try:
        train(args)
    except ImportError as error:
        fail(f"{error}. Install the packages of scripts/requirements.lock in {sys.executable}.")
    except OSError as error:
        fail(f"{error}")


if __name__ == "__main__":
    main()
