#!/usr/bin/env python3
"""Make some rows of the desk study with the original tools alone: mergekit's merge, lm-eval's command, typed by hand.

    scripts/cross_check.py --mergesweep target/release/mergesweep --mergekit VENV/bin/mergekit-yaml [TRIAL...]

Six merges without chance unless named. For each: its config as `plan --write-configs` prints it, merged with mergekit 0.1.5;
the weights compared with `materialize`'s (`mergesweep diff`), and with those of a merge in mergekit's numerics; mergekit's
model evaluated with the commands below; its scores beside those in results/desk-study/scores.csv (in brackets: ours minus
theirs). What is finished is kept in WORK (some 12 minutes a row with one thread), so that a run that is stopped goes on; two
with different rows may run at once. Prints a table in Markdown. HumanEval's programs run without a sandbox here.
"""

import argparse
import csv
import json
import pathlib
import shlex
import subprocess
import sys

SPEC = "sweeps/desk-study.toml"
SCORES = "results/desk-study/scores.csv"
TRIALS = ["Linear", "TIES", "NuSLERP", "SLERP (t=0.3)", "Breadcrumbs", "Arcee Fusion v1"]
COMMON = "--model hf --model_args pretrained={model},dtype=bfloat16 --device cpu --include_path sweeps/tasks --log_samples"
COMMANDS = [
    "--batch_size 8 --tasks math_bpb mmlu100_acc truthfulqa100_mc2 winogrande100_acc",
    "--batch_size 8 --tasks code_bpb --limit 100",
    "--batch_size 8 --tasks arc100_acc hellaswag100_acc --num_fewshot 0",
    "--batch_size 32 --tasks gsm8k100 --num_fewshot 2 --gen_kwargs max_gen_toks=128",
    "--batch_size 32 --tasks humaneval_local --gen_kwargs max_gen_toks=256 --confirm_run_unsafe_code",
]
# `mergesweep diff` where weights differ.
EXIT_DIFFERENT = 4
COLUMNS = {
    "math_bpb": ("math_bpb", "bits_per_byte,none"),
    "code_bpb": ("code_bpb", "bits_per_byte,none"),
    "arc100_0shot": ("arc100_acc", "acc_norm,none"),
    "hellaswag100_0shot": ("hellaswag100_acc", "acc_norm,none"),
    "mmlu100_acc": ("mmlu100_acc", "acc_norm,none"),
    "truthfulqa100_mc2": ("truthfulqa100_mc2", "acc,none"),
    "winogrande100_acc": ("winogrande100_acc", "acc_norm,none"),
    "gsm8k100_2shot_strict": ("gsm8k100", "exact_match,strict-match"),
    "gsm8k100_2shot_flexible": ("gsm8k100", "exact_match,flexible-extract"),
    "humaneval_256tok": ("humaneval_local", "pass@1,create_test"),
}


def run(command, allowed=(0,), **options):
    print("+", shlex.join(map(str, command)), file=sys.stderr, flush=True)
    done = subprocess.run(list(map(str, command)), check=False, text=True, capture_output=True, **options)
    if done.returncode not in allowed:
        sys.exit(f"error: {command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def configs(program, folder):
    """The config files of the study's merges, by trial."""
    run([program, "plan", SPEC, "--write-configs", folder])
    return {file.read_text().splitlines()[0].removeprefix("# "): file for file in folder.glob("*.yml")}


def harness(python, model, command, **environment):
    """One call of lm-eval, typed by hand."""
    words = f"{COMMON} {command}".replace("{model}", str(model)).split()
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    run([python, "-m", "lm_eval", "run", *words], env=offline | environment)


def weights(program, theirs, folder, name, command):
    """How far mergekit's tensors are from those of a command of ours, which writes to the folder that it ends with."""
    file = folder / f"{name}.json"
    if not file.exists():
        run([program, *command, folder / "ours"])
        found = run([program, "diff", theirs, folder / "ours", "--json", "--quiet"], allowed=(0, EXIT_DIFFERENT))
        subprocess.run(["rm", "-r", folder / "ours"], check=True)
        file.write_text(found)
    return json.loads(file.read_text())


def evaluate(model, python, folder):
    """All scores of a model, by task and metric."""
    for number, command in enumerate(COMMANDS):
        out = folder / f"call-{number}"
        if not list(out.glob("*/results_*.json")):
            part = folder / f"call-{number}.part"
            harness(python, model, f"{command} --output_path {part}", OMP_NUM_THREADS="1")
            part.rename(out)
    scores = {}
    for file in folder.glob("call-*/*/results_*.json"):
        scores |= json.loads(file.read_text())["results"]
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", default=TRIALS)
    parser.add_argument("--mergesweep", default="target/release/mergesweep")
    parser.add_argument("--mergekit", default=".bench/venv/bin/mergekit-yaml")
    parser.add_argument("--python", default=".venv/bin/python", help="the interpreter with the harness")
    parser.add_argument("--work", default=".bench/cross-check", type=pathlib.Path)
    args = parser.parse_args()
    of_trial = configs(args.mergesweep, args.work / "configs")
    with open(SCORES, encoding="utf-8") as file:
        ours = {(row["trial"], row["task"], f"{row['metric']},{row['filter']}"): row["value"] for row in csv.DictReader(file)}
    print(f"| trial | weights: elements that differ | norm apart | with `--numerics mergekit` | {' | '.join(COLUMNS)} |")
    print("|---" * (4 + len(COLUMNS)) + "|")
    for trial in args.trials:
        folder = args.work / of_trial[trial].stem
        theirs = folder / "theirs"
        if not (theirs / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            run([args.mergekit, of_trial[trial], folder / "merging", "--lora-merge-cache", args.work / "loras"])
            (folder / "merging").rename(theirs)
        apart = weights(args.mergesweep, theirs, folder, "weights", ["materialize", SPEC, trial])
        merge = ["merge", "--numerics", "mergekit", of_trial[trial]]
        stepwise = weights(args.mergesweep, theirs, folder, "weights-mergekit", merge)
        scores = evaluate(theirs, args.python, folder)
        cells = []
        for task, metric in COLUMNS.values():
            mine = ours.get((trial, task, metric))
            cells.append("–" if mine in (None, "") else f"{scores[task][metric]:.4f} ({float(mine) - scores[task][metric]:+.4f})")
        print(f"| {trial} | {summary(apart)} | {summary(stepwise).split(' | ')[0]} | {' | '.join(cells)} |", flush=True)


def summary(apart):
    """Cells: how many elements differ, and the largest difference of a tensor as a share of its norm."""
    different, n_equal = apart["different"], apart["n_equal"]
    if not different:
        return f"none in {n_equal} tensors | 0"
    elements, relative = sum(tensor["n_different"] for tensor in different), max(tensor["relative_l2"] for tensor in different)
    return f"{elements} in {len(different)} of {len(different) + n_equal} tensors | {relative:.1e}"


if __name__ == "__main__":
    main()
