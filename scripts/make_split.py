#!/usr/bin/env python3
"""Split the fine-tuning data into training rows and held-out rows.

Writes sweeps/data/split.json (row numbers) and the held-out rows themselves
as the data of the two loss tasks, sweeps/tasks/data/heldout_{math,code}/test.jsonl.

Rules (no random numbers: everything is ordered by SHA-256, so the same data
always gives the same split):

- math: the 200 rows with the smallest salted hash of the question are held out.
- code: 703 of the 974 problems stand in the data in several languages, so the
  split goes by problem (the number in `source_task_id`), never by row. All rows
  of the 100 problems with the smallest salted hash are held out.
- code: problems for which some row defines a function with the name of a
  HumanEval entry point (also in camelCase), or shares 13 words in a row with a
  HumanEval prompt or solution, are left out altogether. So are rows under
  another number with the task text or the program of a held-out row.

Needs only the standard library. scripts/check_split.py tests the result.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
DATA = REPO / "sweeps" / "data"
TASK_DATA = REPO / "sweeps" / "tasks" / "data"
MATH = DATA / "ft_math_gsm8k" / "train.jsonl"
CODE = DATA / "ft_code_alpaca" / "train.jsonl"
HUMANEVAL = TASK_DATA / "humaneval" / "test.jsonl"
HELD_OUT_MATH_ROWS = 200
HELD_OUT_CODE_PROBLEMS = 100
SALT = "mergesweep held-out"

# A definition of a function, method or function-valued constant, in the four
# languages of the data. Calls are not matched: `list.add(x)` is no definition.
DEFINITIONS = {
    "python": [r"\bdef\s+(\w+)"],
    "javascript": [r"\bfunction\s+(\w+)", r"\b(?:const|let|var)\s+(\w+)\s*=\s*(?:function\b|\()"],
    "typescript": [r"\bfunction\s+(\w+)", r"\b(?:const|let|var)\s+(\w+)\s*=\s*(?:function\b|\()"],
    "java": [r"\b(?:public|private|protected|static)\b[\w<>\[\], ]*?\s(\w+)\s*\("],
}


def read_jsonl(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def key(*parts):
    return hashlib.sha256("\n".join([SALT, *parts]).encode()).hexdigest()


def problem(row):
    """`MBJSP/309` and `MBPP/309` are the same problem: 309."""
    return int(row["source_task_id"].rsplit("/", 1)[1])


def plain(name):
    """One spelling for is_prime, isPrime, IsPrime."""
    return name.replace("_", "").lower()


def defined_names(row):
    return {name for pattern in DEFINITIONS[row["language"]] for name in re.findall(pattern, row["output"])}


def task_text(row):
    """The task without the sentence that names the language, white space and case evened out."""
    text = re.sub(r"\s*Write the solution in \w+\.\s*$", "", row["instruction"])
    return " ".join(text.lower().split())


def normal(text):
    """Words only, lower case: equal texts stay equal under reformatting."""
    return " ".join(re.findall(r"\w+", text.lower()))


def runs(text, n=13):
    """All runs of n consecutive words."""
    words = normal(text).split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def split_math(rows):
    order = sorted(range(len(rows)), key=lambda i: key("math", rows[i]["question"]))
    held_out = order[:HELD_OUT_MATH_ROWS]
    return {"held_out": held_out, "train": sorted(set(range(len(rows))) - set(held_out))}


def split_code(rows, humaneval):
    entry_points = {plain(r["entry_point"]): r["entry_point"] for r in humaneval}
    humaneval_runs = set().union(*(runs(r["prompt"]) | runs(r["canonical_solution"]) for r in humaneval))
    left_out = {}
    near = set()  # problems too near to HumanEval
    for i, row in enumerate(rows):
        if (runs(row["instruction"]) | runs(row["output"])) & humaneval_runs:
            near.add(problem(row))
            left_out[i] = "shares 13 words in a row with a HumanEval problem"
        hits = sorted(entry_points[plain(n)] for n in defined_names(row) if plain(n) in entry_points)
        if hits:
            near.add(problem(row))
            left_out[i] = f"defines a function with the HumanEval name {hits[0]}"
    for i, row in enumerate(rows):
        if problem(row) in near:
            left_out.setdefault(i, f"same problem ({problem(row)}) as a row that is left out")

    problems = sorted({problem(r) for r in rows} - near, key=lambda n: key("code", str(n)))
    held_problems = set(problems[:HELD_OUT_CODE_PROBLEMS])
    held_out = [i for i, r in enumerate(rows) if problem(r) in held_problems]
    held_texts = {task_text(rows[i]) for i in held_out}
    held_programs = {normal(rows[i]["output"]) for i in held_out}
    for i, row in enumerate(rows):
        if i not in left_out and problem(row) not in held_problems:
            if task_text(row) in held_texts:
                left_out[i] = "same task text as a held-out problem"
            elif normal(row["output"]) in held_programs:
                left_out[i] = "same program as a held-out problem"
    train = sorted(set(range(len(rows))) - set(held_out) - set(left_out))
    return {
        "held_out_problems": sorted(held_problems),
        "held_out": held_out,
        "left_out": [{"row": i, "source_task_id": rows[i]["source_task_id"], "reason": left_out[i]} for i in sorted(left_out)],
        "train": train,
    }


def compact(value, depth=0):
    """JSON with one line per list of numbers: readable, and small in a diff."""
    if isinstance(value, dict):
        pad = "  " * (depth + 1)
        inner = ",\n".join(f"{pad}{json.dumps(k)}: {compact(v, depth + 1)}" for k, v in value.items())
        return "{\n" + inner + "\n" + "  " * depth + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        pad = "  " * (depth + 1)
        return "[\n" + ",\n".join(pad + json.dumps(v) for v in value) + "\n" + "  " * depth + "]"
    return json.dumps(value)


def outputs():
    """{path: text} of everything this script writes."""
    math, code = read_jsonl(MATH), read_jsonl(CODE)
    split = {
        "made_by": "scripts/make_split.py",
        "sources": {str(p.relative_to(REPO)): hashlib.sha256(p.read_bytes()).hexdigest() for p in (MATH, CODE)},
        "row_numbers": "0-based lines of train.jsonl; held_out in the order of the loss task's documents",
        "math": split_math(math),
        "code": split_code(code, read_jsonl(HUMANEVAL)),
    }

    def lines(rows, name):
        return "".join(json.dumps(rows[i], ensure_ascii=False) + "\n" for i in split[name]["held_out"])

    return {
        DATA / "split.json": compact(split) + "\n",
        TASK_DATA / "heldout_math" / "test.jsonl": lines(math, "math"),
        TASK_DATA / "heldout_code" / "test.jsonl": lines(code, "code"),
    }


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path, text in outputs().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(REPO)}")


if __name__ == "__main__":
    main()
