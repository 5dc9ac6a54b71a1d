"""Functions of the offline task pack. lm-evaluation-harness loads this file
once for every `!function utils.…` in a YAML, so nothing heavy is imported at
the top."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"


# --- data ------------------------------------------------------------------

def load(pack_folder, pack_splits, **_):
    """Splits of one data set, from the JSON Lines files beside this file.

    A relative `data_files` entry would be resolved against the working
    directory; this works from any clone and any directory, and leaves no
    cache behind. The harness passes its metadata too, hence `**_`.
    """
    import datasets

    made = {}
    for split, name in pack_splits.items():
        path = DATA / pack_folder / name
        try:
            with open(path, encoding="utf-8") as f:
                rows = [json.loads(line) for line in f]
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing; it is part of the repository, restore it with git") from None
        made[split] = datasets.Dataset.from_list(rows)
    return made


# --- HellaSwag, as the stock task prepares it ------------------------------

def hellaswag_docs(dataset):
    import re

    def clean(text):
        text = text.strip()
        text = text.replace(" [title]", ". ")
        text = re.sub(r"\[.*?\]", "", text)
        return text.replace("  ", " ")

    def prepare(doc):
        context = doc["ctx_a"] + " " + doc["ctx_b"].capitalize()
        return {
            "query": clean(doc["activity_label"] + ": " + context),
            "choices": [clean(ending) for ending in doc["endings"]],
            "gold": int(doc["label"]),
        }

    return dataset.map(prepare)


# --- WinoGrande: two contexts, one continuation ----------------------------

def winogrande_text(doc):
    return {"1": 0, "2": 1}[doc["answer"]]


def winogrande_target(doc):
    return doc["sentence"][doc["sentence"].index("_") + 1 :].strip()


def winogrande_choice(doc):
    before = doc["sentence"][: doc["sentence"].index("_")]
    return [before + doc["option1"], before + doc["option2"]]


# --- TruthfulQA: probability mass on the true answers ----------------------

def truthfulqa_mc2(doc, results):
    likelihoods = [math.exp(ll) for ll, _ in results]
    true = sum(p for p, label in zip(likelihoods, doc["mc2_targets"]["labels"]) if label == 1)
    total = sum(likelihoods)
    return {"acc": true / total if total > 0 else 0.0}


# --- loss tasks ------------------------------------------------------------

def _loss(results, answer):
    log_likelihood, _is_greedy = results[0]
    # The pair is what the aggregation `bits_per_byte` sums over documents:
    # -sum(log-likelihood) / ln 2 / sum(bytes). The samples file holds it too.
    return {"bits_per_byte": (log_likelihood, len(answer.encode("utf-8")))}


def math_loss(doc, results):
    return _loss(results, " " + doc["answer"])


def code_loss(doc, results):
    return _loss(results, doc["output"])


# --- HumanEval, scored here ------------------------------------------------

SECONDS = 10
MEMORY = 4 << 30
PASSED = 42  # no other way of ending gives this exit status by accident

# Runs in a process of its own: reads the program from standard input and ends
# with PASSED only after its last line. Opening sockets and starting programs
# is refused. This stops accidents, not attacks: it is NO sandbox.
RUNNER = f"""
import os, sys
source = sys.stdin.read()
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
def refuse(event, args):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"):
        raise PermissionError(event + " is not allowed here")
sys.addaudithook(refuse)
exec(compile(source, "<program>", "exec"), {{"__name__": "__main__"}})
sys.stdout.flush()
os._exit({PASSED})
"""


def run_program(program, seconds=SECONDS):
    """True if `program` runs to its end without an error within the time limit."""
    with tempfile.TemporaryDirectory(prefix="humaneval-") as folder:
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", RUNNER],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=folder, env={"HOME": folder, "PATH": os.defpath, "OMP_NUM_THREADS": "1"}, start_new_session=True)
        try:
            child.communicate(program.encode("utf-8", "surrogatepass"), timeout=seconds)
            return child.returncode == PASSED
        except subprocess.TimeoutExpired:
            return False
        finally:
            # The whole process group, whatever it started, ends with it.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()


def pass_at_k(references, predictions, k=None):
    """Called for one document at a time: references = [tests], predictions = [[program, ...]]."""
    ks = [k] if isinstance(k, int) else list(k or [1])
    totals = {n: 0.0 for n in ks}
    for tests, programs in zip(references, predictions):
        passed = sum(run_program(program + "\n" + tests) for program in programs)
        failed = len(programs) - passed
        for n in ks:
            # Unbiased estimate: 1 - C(failed, n) / C(all, n).
            totals[n] += 1.0 - math.comb(failed, n) / math.comb(len(programs), n)
    return {f"pass@{n}": total / len(references) for n, total in totals.items()}


def build_predictions(resps, docs):
    return [[doc["prompt"] + r for r in resp] for resp, doc in zip(resps, docs)]
