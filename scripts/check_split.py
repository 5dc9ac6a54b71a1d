#!/usr/bin/env python3
"""Check that no held-out row and no evaluation item is among the training rows.

Exits 0 with one line per check, or 1 with what overlaps. Needs only the
standard library.
"""

import argparse
import hashlib
import json
import sys

sys.dont_write_bytecode = True
import make_split  # noqa: E402
from make_split import CODE, DATA, MATH, REPO, TASK_DATA, defined_names, normal, plain, problem, read_jsonl, runs, task_text  # noqa: E402

problems_found = []


def check(what, overlap):
    """`overlap`: what should not be there (empty when all is well)."""
    overlap = list(overlap)
    if not overlap:
        print(f"ok    {what}")
        return
    shown = "\n        ".join(str(x)[:160] for x in overlap[:10])
    more = f"\n        … and {len(overlap) - 10} more" if len(overlap) > 10 else ""
    print(f"FAIL  {what}:\n        {shown}{more}")
    problems_found.append(what)


def ids(rows, numbers):
    return [rows[i]["source_task_id"] for i in numbers]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    split = json.loads((DATA / "split.json").read_text())
    math, code = read_jsonl(MATH), read_jsonl(CODE)
    held_math, held_code = read_jsonl(TASK_DATA / "heldout_math" / "test.jsonl"), read_jsonl(TASK_DATA / "heldout_code" / "test.jsonl")
    gsm8k = read_jsonl(TASK_DATA / "gsm8k" / "test.jsonl") + read_jsonl(TASK_DATA / "gsm8k" / "fewshot.jsonl")
    humaneval = read_jsonl(TASK_DATA / "humaneval" / "test.jsonl")
    train_math = [math[i] for i in split["math"]["train"]]
    train_code = [code[i] for i in split["code"]["train"]]

    # The committed files are the ones that the script makes, and whole.
    for name, digest in split["sources"].items():
        found = hashlib.sha256((REPO / name).read_bytes()).hexdigest()
        check(f"{name} is the file that was split", [] if found == digest else [f"sha256 {found}, split.json says {digest}"])
    check("split and held-out files are what make_split.py writes",
          [str(p.relative_to(REPO)) for p, text in make_split.outputs().items() if p.read_text(encoding="utf-8") != text])
    check("held-out math rows are the 200 of the split",
          [] if held_math == [math[i] for i in split["math"]["held_out"]] and len(held_math) == 200 else [f"{len(held_math)} rows"])
    check("held-out code rows are those of the split", [] if held_code == [code[i] for i in split["code"]["held_out"]] else [f"{len(held_code)} rows"])
    for name, rows in (("math", math), ("code", code)):
        part = split[name]
        left = [x["row"] for x in part.get("left_out", [])]
        everything = part["train"] + part["held_out"] + left
        check(f"every {name} row is in exactly one part", sorted(set(range(len(rows))) ^ set(everything)) + [i for i in set(everything) if everything.count(i) > 1])

    # Held-out rows against training rows.
    trained = {normal(r["question"]) for r in train_math}
    check("no held-out math question is trained on", [r["question"] for r in held_math if normal(r["question"]) in trained])
    trained = {normal(r["answer"]) for r in train_math}
    check("no held-out math answer is trained on", [r["answer"] for r in held_math if normal(r["answer"]) in trained])
    held_problems = set(split["code"]["held_out_problems"])
    check("100 code problems are held out", [] if len(held_problems) == 100 else [len(held_problems)])
    check("no row of a held-out code problem is trained on, in any language", [r["source_task_id"] for r in train_code if problem(r) in held_problems])
    check("all rows of the held-out code problems are held out",
          set(ids(code, [i for i, r in enumerate(code) if problem(r) in held_problems])) ^ {r["source_task_id"] for r in held_code})
    texts = {task_text(r) for r in held_code}
    check("no task text of a held-out code problem is trained on", [r["source_task_id"] for r in train_code if task_text(r) in texts])
    programs = {normal(r["output"]) for r in held_code}
    check("no held-out program is trained on", [r["source_task_id"] for r in train_code if normal(r["output"]) in programs])

    # Evaluation items against training rows and held-out rows.
    for part, rows in (("trained on", train_math), ("held out", held_math)):
        questions = {normal(r["question"]): r for r in rows}
        check(f"no GSM8K evaluation or few-shot question is among the rows {part}", [r["question"] for r in gsm8k if normal(r["question"]) in questions])
    seen = set().union(*(runs(r["question"]) for r in train_math + held_math))
    check("no 13 words in a row of a GSM8K evaluation question are in the fine-tuning questions",
          [r["question"] for r in gsm8k if runs(r["question"]) & seen])
    names = {plain(r["entry_point"]) for r in humaneval}
    for part, rows in (("trained on", train_code), ("held out", held_code)):
        check(f"no function among the code rows {part} has a HumanEval name",
              [f"{r['source_task_id']}: {n}" for r in rows for n in defined_names(r) if plain(n) in names])
    seen = set().union(*(runs(r["instruction"]) | runs(r["output"]) for r in train_code + held_code))
    check("no 13 words in a row of a HumanEval prompt or solution are in the code rows",
          [r["task_id"] for r in humaneval if (runs(r["prompt"]) | runs(r["canonical_solution"])) & seen])

    if problems_found:
        sys.exit(f"check_split: {len(problems_found)} of the checks failed; see FAIL above")


if __name__ == "__main__":
    main()
