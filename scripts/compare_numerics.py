#!/usr/bin/env python3
"""Merge random small models with mergekit and with mergesweep in both numerics, and count the elements that differ.

Run by hand, in an interpreter with mergekit 0.1.5 (it is imported once and merges in this process, so hundreds of configs
take a minute or two):

    python scripts/compare_numerics.py --mergesweep target/release/mergesweep --configs 8 --threads 1

Every deterministic method is asked for with random parameters on models of float32, bfloat16, float16 and mixed formats,
with and without `dtype` and `out_dtype`; tensors have 16 to 280,000 elements, an embedding has more rows than 2^16, and
changes are light or heavy. Printed for every method and working format: configs, those of which every bit agrees,
elements, elements that differ, and the largest difference in units in the last place of the larger of the two numbers.
`--oracle` prints instead how far both programs (ours in `f32` numerics, the default) are from the exact result, which
exact_merge.py computes in 64 bits: the largest distance in units in the last place of the working format at the size of the
exact number. Elements that a method decides by a comparison (a cut, a sign, a threshold) and that came out otherwise than
exactly computed are counted apart: those more than four units, of the largest number that went into them, away.
`--fixtures` makes the cases of tests/fixtures/mergekit-numerics anew instead, from the models of mergekit-parity.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import logging
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import warnings
from collections import defaultdict

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import exact_merge
import torch
import yaml
from compare_mergekit import tensors
from safetensors.torch import save_file

SHAPES = {
    "model.embed_tokens": [70_000, 4],
    "self_attn.q_proj": [48, 96],
    "self_attn.k_proj": [16, 96],
    "self_attn.v_proj": [16, 96],
    "self_attn.o_proj": [96, 48],
    "mlp.up_proj": [200, 190],
    "mlp.gate_proj": [40, 33],
    "mlp.down_proj": [33, 40],
    "input_layernorm": [96],
    "post_attention_layernorm": [17],
    "model.norm": [16],
    "lm_head": [300, 257],
}
OUTSIDE = ("model.embed_tokens", "model.norm", "lm_head")
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MANTISSA = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}
SMALLEST = {torch.float32: -126, torch.bfloat16: -126, torch.float16: -14}
FIXTURES = pathlib.Path(__file__).parent.parent / "tests/fixtures"
# What is merged for the fixtures, in bfloat16 and float16 each: (method, has a base, models, shared parameters).
CASES = {
    "linear": ("linear", False, {"math": 0.7, "code": 0.45, "chat": -0.2}, {}),
    "slerp": ("slerp", True, {"math": None}, {"t": 0.35}),
    "nuslerp": ("nuslerp", True, {"math": 0.6, "code": 0.3}, {}),
    "nuslerp_rows": ("nuslerp", False, {"math": 0.6, "code": 0.3}, {"nuslerp_flatten": False}),
    "multislerp": ("multislerp", True, {"math": 0.5, "code": 0.3, "chat": 0.4}, {}),
    "multislerp_plain": ("multislerp", False, {"math": 0.5, "code": 0.3, "chat": 0.4}, {}),
    "karcher": ("karcher", False, {"math": None, "code": None, "chat": None}, {}),
    "model_stock": ("model_stock", True, {"math": None, "code": None, "chat": None}, {}),
    "model_stock_rows": ("model_stock", True, {"math": None, "code": None}, {"filter_wise": True}),
    "sce": ("sce", True, {"math": None, "code": None, "chat": None}, {"select_topk": 0.3}),
    "ram": ("ram", True, {"math": None, "code": None, "chat": None}, {}),
    "ramplus_tl": ("ramplus_tl", True, {"math": None, "code": None, "chat": None}, {}),
    "ties": ("ties", True, {"math": 0.6, "code": 0.5}, {"density": 0.4}),
    "breadcrumbs_ties": ("breadcrumbs_ties", True, {"math": 0.6, "code": 0.5}, {"density": 0.5, "gamma": 0.05}),
}
METHODS = [
    "linear", "task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "slerp", "nuslerp",
    "multislerp", "karcher", "model_stock", "nearswap", "sce", "ram", "ramplus_tl", "arcee_fusion", "passthrough",
]  # fmt: skip


def draw(shapes, seed, base=None, scale=0.02):
    """Numbers of a model; with a base, small changes of it, none at all in some tensors."""
    generator = torch.Generator().manual_seed(seed)
    model = {}
    for name, shape in shapes.items():
        name = f"{name}.weight" if name in OUTSIDE else f"model.layers.0.{name}.weight"
        numbers = torch.randn(shape, generator=generator) * scale
        if base is not None:
            sparse = torch.rand(shape, generator=generator) < 0.8
            same = "k_proj" in name and seed % 2 == 0
            numbers = base[name] + (torch.zeros(shape) if same else numbers * sparse)
        model[name] = numbers
    return model


def write(folder, model, dtype):
    """A checkpoint of one layer."""
    folder.mkdir(parents=True)
    save_file({name: numbers.to(dtype) for name, numbers in model.items()}, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 200,
        "num_hidden_layers": 1, "num_attention_heads": 6, "num_key_value_heads": 2,
        "vocab_size": model["model.embed_tokens.weight"].shape[0], "tie_word_embeddings": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def write_models(folder, shapes):
    """base, and light and heavy changes of it, in every format."""
    base = draw(shapes, 1)
    models = {"base": base}
    for seed, name, scale in [(2, "a", 2e-3), (3, "b", 2e-3), (4, "c", 1e-3), (5, "x", 2e-2), (6, "y", 3e-2), (7, "z", 2e-2)]:
        models[name] = draw(shapes, seed, base, scale)
    for name, model in models.items():
        for dtype in FORMATS:
            write(folder / f"{name}-{dtype}", model, FORMATS[dtype])


def config(method, rng):
    """A random config, and the working format it has in every tensor."""
    stored = rng.choice([*FORMATS, *FORMATS, "mixed"])
    light, heavy = ["a", "b", "c"], ["x", "y", "z"]
    models = rng.choice([light, heavy, ["a", "x", "b"]])
    name = lambda model: f"{model}-{rng.choice(list(FORMATS)) if stored == 'mixed' else stored}"
    base = name("base")
    number = lambda low, high: round(rng.uniform(low, high), 3)
    count = rng.choice([2, 3])
    shared, own = {}, [{} for _ in models]
    weights = lambda: [item.update(weight=number(-0.3, 1.2)) for item in own]
    with_base = True
    if method == "linear":
        with_base = False
        weights()
        shared["normalize"] = rng.choice([True, True, False])
    elif method in ("task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "dare_linear"):
        weights()
        shared = {"normalize": rng.choice([True, False]), "lambda": rng.choice([1.0, number(0.3, 1.5)])}
        shared["rescale"] = rng.choice([True, False, False])
        if method == "dare_linear":
            shared["density"] = 1.0
        elif method != "task_arithmetic":
            [item.update(density=number(0.05, 0.95)) for item in own]
        if method.startswith("breadcrumbs"):
            [item.update(gamma=rng.choice([0.0, number(0.01, 0.2)])) for item in own]
    elif method in ("slerp", "nearswap"):
        count = 1
        shared["t"] = number(-0.2, 1.2) if method == "slerp" else rng.choice([1e-4, 1e-3, 5e-3])
    elif method == "arcee_fusion":
        count = 1
    elif method == "nuslerp":
        count = 2
        weights()
        with_base = rng.choice([True, False])
        shared = {"nuslerp_flatten": rng.choice([True, False]), "nuslerp_row_wise": rng.choice([True, False])}
    elif method == "multislerp":
        weights()
        [item.update(weight=abs(item["weight"]) + 0.1) for item in own]
        with_base = rng.choice([True, False])
        shared["normalize_weights"] = rng.choice([True, True, False])
    elif method == "karcher":
        with_base = False
        shared = {"max_iter": rng.choice([1, 3, 10])}
    elif method == "model_stock":
        shared["filter_wise"] = rng.choice([True, False])
    elif method == "sce":
        shared["select_topk"] = rng.choice([1.0, number(0.05, 0.95), number(0.001, 0.014)])
    elif method in ("ram", "ramplus_tl"):
        shared["epsilon"] = rng.choice([1e-5, 1e-4])
        if method == "ramplus_tl":
            shared.update(r=number(0.05, 0.5), alpha=number(0.1, 1.5))
    elif method == "passthrough":
        count, with_base = 1, False
        own[0]["scale"] = number(-0.5, 1.5)
    listed = [{"model": name(model), "parameters": item} for model, item in list(zip(models, own))[:count]]
    document = {"merge_method": method}
    if with_base:
        document["base_model"] = base
    if method in ("slerp", "nearswap", "arcee_fusion"):
        listed.append({"model": base})
    document |= {"models": listed, "parameters": shared}
    working = rng.choice([None, *FORMATS]) if stored == "mixed" else rng.choice([None, stored, *FORMATS])
    if working:
        document["dtype"] = working
    if rng.random() < 0.2:
        document["out_dtype"] = rng.choice(list(FORMATS))
    return document, working or (stored if stored != "mixed" else "promoted")


def mergekit(document, out):
    """Merge in this process."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    options = MergeOptions(random_seed=1, write_model_card=False, copy_tokenizer=False, quiet=True, clone_tensors=True)
    run_merge(MergeConfiguration.model_validate(document), str(out), options)


def write_fixtures():
    """The configs of CASES with what mergekit makes of them, and where that is from."""
    import transformers

    folder = FIXTURES / "mergekit-numerics"
    for name, (method, has_base, models, shared) in CASES.items():
        for short, dtype in [("bf16", "bfloat16"), ("fp16", "float16")]:
            if (name, short) == ("multislerp", "fp16"):
                continue  # the default eps is zero in float16, and tensors that no model changes come out as NaN
            stored = lambda model: f"inputs/{model}" if model == "chat" else f"inputs/{model}-{short}"
            listed = [
                {"model": stored(model)} | ({} if weight is None else {"parameters": {"weight": weight}})
                for model, weight in models.items()
            ]
            document = {"merge_method": method} | ({"base_model": stored("base")} if has_base else {})
            if method == "slerp":
                listed.append({"model": stored("base")})
            document |= {"models": listed} | ({"parameters": shared} if shared else {}) | {"dtype": dtype}
            case = folder / "cases" / f"{name}_{short}"
            case.mkdir(parents=True, exist_ok=True)
            (case / "config.yml").write_text(yaml.safe_dump(document, sort_keys=False, default_flow_style=None))
            with tempfile.TemporaryDirectory() as out, contextlib.chdir(FIXTURES / "mergekit-parity"):
                mergekit(document, out)
                numbers = dict(tensors(out))
            save_file(numbers, case / "expected.safetensors")
    (folder / "README.md").write_text(
        "# What mergekit makes of half-precision models, to the bit\n\n"
        "Made by `scripts/compare_numerics.py --fixtures` with mergekit "
        f"{importlib.metadata.version('mergekit')}, torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()} on Linux, one thread. `cases/<name>/config.yml` is the config, its models are those of "
        "`../mergekit-parity/inputs`; `expected.safetensors` is every tensor of the output. Equality to the bit is demanded in "
        "`--numerics mergekit` (`tests/it/numerics.rs`).\n"
    )


def mergesweep(program, file, out, numerics, threads):
    """Merge with ours; the message where that fails."""
    command = [program, "merge", "--numerics", numerics, "--no-copy-tokenizer", "--no-write-model-card"]
    done = subprocess.run([*command, "-j", str(threads), file, out], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[0]


def ulps(theirs, ours):
    """Difference in units in the last place of the larger magnitude; 0 where both are NaN or equal."""
    dtype, (left, right) = ours.dtype, (theirs.double(), ours.double())
    larger = torch.maximum(left.abs(), right.abs())
    exponent = torch.frexp(larger).exponent.clamp(min=SMALLEST[dtype] + 1) - 1 - MANTISSA[dtype]
    difference = (left - right).abs() / torch.ldexp(torch.ones_like(larger), exponent)
    same = (left == right) | (left.isnan() & right.isnan())
    return torch.where(same, torch.zeros_like(difference), difference)


def compare(expected, found):
    """Elements, elements that differ, largest difference, tensors of another format, and where most differ."""
    ours = dict(tensors(found))
    total = differ = formats = 0
    worst, places = 0.0, {}
    for name, theirs in tensors(expected):
        mine = ours[name]
        formats += mine.dtype != theirs.dtype
        apart = ulps(theirs.to(mine.dtype), mine)
        total, differ, worst = total + apart.numel(), differ + (apart > 0).sum().item(), max(worst, apart.max().item())
        if (apart > 0).any():
            places[name] = f"{(apart > 0).sum().item()} ({apart.max().item():.3g})"
    return total, differ, worst, formats, places


def unit(magnitude, dtype):
    """The unit in the last place of a format at that magnitude."""
    exponent = torch.frexp(magnitude).exponent.clamp(min=SMALLEST[dtype] + 1) - 1 - MANTISSA[dtype]
    return torch.ldexp(torch.ones_like(magnitude), exponent)


def distances(document, loaded, outputs):
    """For every output of one config: largest distance from the exact result, its tensor, and elements decided otherwise."""
    working = document.get("dtype")
    found = [[0.0, "", 0] for _ in outputs]
    for name in next(iter(loaded.values())):
        inputs = {model: numbers[name] for model, numbers in loaded.items()}
        dtype = FORMATS.get(working) or functools.reduce(torch.promote_types, (numbers.dtype for numbers in inputs.values()))
        inputs = {model: numbers.to(dtype).double() for model, numbers in inputs.items()}
        exact = exact_merge.merged(document, inputs)
        size = functools.reduce(torch.maximum, (numbers.abs() for numbers in inputs.values()), exact.abs())
        for output, row in zip(outputs, found):
            apart = (output[name].double() - exact).abs()
            otherwise = torch.zeros_like(apart, dtype=torch.bool)
            if document["merge_method"] in exact_merge.DECIDING:
                otherwise = apart > 4 * unit(size, dtype)
            ulps = torch.where(otherwise, torch.zeros_like(apart), apart / unit(exact.abs(), dtype))
            row[2] += int(otherwise.sum())
            if ulps.max().item() > row[0]:
                row[0], row[1] = ulps.max().item(), name
    return found


def oracle(args, program, folder):
    """The table of `--oracle`."""
    rows, larger = defaultdict(lambda: [0, 0.0, 0.0, 0, 0]), []
    read = functools.cache(lambda model: dict(tensors(folder / "models" / model)))
    for method in args.methods:
        for number in range(args.configs):
            document, working = config(method, random.Random(f"{args.seed} {method} {number}"))
            document.pop("out_dtype", None)
            names = [entry["model"] for entry in document["models"]] + [document[key] for key in ("base_model",) if key in document]
            loaded = {name: read(name) for name in names}
            place = lambda name: str(folder / "models" / name)
            placed = document | {"models": [entry | {"model": place(entry["model"])} for entry in document["models"]]}
            if "base_model" in document:
                placed["base_model"] = place(document["base_model"])
            (folder / "config.yml").write_text(yaml.safe_dump(placed, sort_keys=False))
            theirs, ours = folder / "theirs", folder / "ours"
            try:
                mergekit(placed, theirs)
            except Exception as error:
                print(f"{method} {number}: mergekit: {error}", file=sys.stderr)
                continue
            failed = mergesweep(program, folder / "config.yml", ours, "f32", args.threads)
            if failed:
                print(f"{method} {number}: {failed}", file=sys.stderr)
                continue
            mine, their = distances(document, loaded, [dict(tensors(ours)), dict(tensors(theirs))])
            row = rows[method, working]
            row[:] = [row[0] + 1, max(row[1], mine[0]), max(row[2], their[0]), row[3] + mine[2], row[4] + their[2]]
            if mine[0] > their[0] or mine[2] > their[2]:
                larger.append(f"{method} {number} ({working}): ours {mine}, mergekit {their}")
            subprocess.run(["rm", "-r", theirs, ours], check=True)
    print("| method | working format | configs | ours, ulp | mergekit, ulp | ours, decided otherwise | mergekit, decided otherwise |")
    print("|---|---|---|---|---|---|---|")
    for (method, working), (configs, mine, their, flipped, flipped_there) in sorted(
        rows.items(), key=lambda row: (METHODS.index(row[0][0]), row[0][1])
    ):
        print(f"| {method} | {working} | {configs} | {mine:.4g} | {their:.4g} | {flipped} | {flipped_there} |")
    print(f"\nConfigs in which ours is farther: {len(larger)}")
    print("\n".join(larger))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergesweep", help="the mergesweep program")
    parser.add_argument("--fixtures", action="store_true", help="make the fixtures anew")
    parser.add_argument("--oracle", action="store_true", help="distances from the exact result, of both programs")
    parser.add_argument("--configs", type=int, default=6, help="random configs of every method")
    parser.add_argument("--threads", type=int, default=1, help="threads of both programs")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--numerics", nargs="+", default=["mergekit", "f32"])
    parser.add_argument("--verbose", action="store_true", help="name every config and tensor that differs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.fixtures:
        return write_fixtures()
    if not args.mergesweep:
        parser.error("expected --mergesweep PROGRAM")
    program = str(pathlib.Path(args.mergesweep).resolve())
    rows = defaultdict(lambda: [0, 0, 0, 0, 0.0, 0])
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_models(folder / "models", SHAPES)
        if args.oracle:
            return oracle(args, program, folder)
        for method in args.methods:
            for number in range(args.configs):
                document, working = config(method, random.Random(f"{args.seed} {method} {number}"))
                text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None)
                for entry in document["models"]:
                    entry["model"] = str(folder / "models" / entry["model"])
                if "base_model" in document:
                    document["base_model"] = str(folder / "models" / document["base_model"])
                theirs = folder / "theirs"
                try:
                    mergekit(document, theirs)
                except Exception as error:
                    print(f"{method} {number}: mergekit: {error}", file=sys.stderr)
                    continue
                (folder / "config.yml").write_text(yaml.safe_dump(document, sort_keys=False))
                for numerics in args.numerics:
                    out = folder / "ours"
                    failed = mergesweep(program, folder / "config.yml", out, numerics, args.threads)
                    if failed:
                        print(f"{method} {number} {numerics}: {failed}", file=sys.stderr)
                        continue
                    total, differ, worst, formats, places = compare(theirs, out)
                    row = rows[method, working, numerics]
                    row[:] = [row[0] + 1, row[1] + (differ == 0 and formats == 0), row[2] + total, row[3] + differ,
                              max(row[4], worst), row[5] + formats]  # fmt: skip
                    if args.verbose and (differ or formats):
                        print(f"--- {numerics} {method} {number}: {formats} formats, {places}\n{text}")
                    subprocess.run(["rm", "-r", out], check=True)
                subprocess.run(["rm", "-r", theirs], check=True)
    print("| method | working format | numerics | configs | equal to the bit | elements | that differ | largest, ulp | other formats |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (method, working, numerics), (configs, equal, total, differ, worst, formats) in sorted(
        rows.items(), key=lambda row: (row[0][2] != "mergekit", METHODS.index(row[0][0]), row[0][1])
    ):
        print(f"| {method} | {working} | {numerics} | {configs} | {equal} | {total} | {differ} | {worst:.4g} | {formats} |")


if __name__ == "__main__":
    main()
