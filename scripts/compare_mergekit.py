#!/usr/bin/env python3
"""Merge the same configs with mergekit and with mergesweep, and print the largest difference of each.

Run by hand, in an interpreter with torch and safetensors:

    python scripts/compare_mergekit.py --mergekit VENV/bin/mergekit-yaml --mergesweep target/release/mergesweep CONFIG...

Model paths in the configs are relative to the current folder. Random methods are compared in size only: their masks come
from other generators. Differences are of the written numbers; `ulp` counts steps of the tensor's own format, and the
share is that of elements that differ at all.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
from safetensors import safe_open

RANDOM = {"dare_linear", "dare_ties", "della", "della_linear"}
BITS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float64: torch.int64}


def tensors(folder):
    """Yield every (name, tensor) of a checkpoint."""
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():
                yield name, opened.get_tensor(name)


def steps(tensor):
    """Numbers as integers whose differences count representable steps."""
    bits = tensor.view(BITS[tensor.dtype]).to(torch.int64)
    lowest = {2: -(1 << 15), 4: -(1 << 31), 8: -(1 << 63)}[tensor.element_size()]
    return torch.where(bits < 0, lowest - bits, bits)


def merge(command, config, out):
    """Run one program and give its wall time."""
    begun = time.monotonic()
    done = subprocess.run([*command, str(config), str(out)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed on {config}:\n{done.stderr[-2000:]}")
    return time.monotonic() - begun


def compare(expected, found):
    """Largest absolute and relative difference, largest difference in steps, share of elements that differ."""
    ours = dict(tensors(found))
    worst = [0.0, 0.0, 0]
    differ = total = 0
    for name, theirs in tensors(expected):
        mine = ours.pop(name)
        if mine.shape != theirs.shape:
            sys.exit(f"{name}: shapes {tuple(theirs.shape)} and {tuple(mine.shape)}")
        if mine.dtype != theirs.dtype:
            print(f"  {name}: dtypes {theirs.dtype} and {mine.dtype}")
            theirs = theirs.to(mine.dtype)
        difference = (mine.double() - theirs.double()).abs()
        worst[0] = max(worst[0], difference.max().item())
        scale = theirs.double().abs().max().item() or 1.0
        worst[1] = max(worst[1], difference.max().item() / scale)
        worst[2] = max(worst[2], (steps(mine) - steps(theirs)).abs().max().item())
        differ += (difference > 0).sum().item()
        total += mine.numel()
    if ours:
        sys.exit(f"tensors that mergekit did not write: {sorted(ours)}")
    return *worst, differ / max(total, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", required=True, help="the mergekit-yaml program")
    parser.add_argument("--mergesweep", required=True, help="the mergesweep program")
    parser.add_argument("configs", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    print("| config | method | largest difference | of the tensor's largest number | ulp | elements that differ | mergekit s | mergesweep s |")
    print("|---|---|---|---|---|---|---|---|")
    for config in args.configs:
        lines = [line for line in config.read_text().splitlines() if line.startswith("merge_method:")]
        method = lines[0].split(":")[1].strip()
        with tempfile.TemporaryDirectory() as folder:
            theirs, ours = pathlib.Path(folder, "mergekit"), pathlib.Path(folder, "mergesweep")
            kit = merge([args.mergekit, "--no-write-model-card", "--random-seed", "1"], config, theirs)
            sweep = merge([args.mergesweep, "merge", "--random-seed", "1"], config, ours)
            absolute, relative, ulp, share = compare(theirs, ours)
        note = " (other masks)" if method in RANDOM else ""
        print(f"| {config.stem} | {method}{note} | {absolute:.3g} | {relative:.3g} | {ulp} | {share:.4%} | {kit:.1f} | {sweep:.2f} |", flush=True)


if __name__ == "__main__":
    main()
