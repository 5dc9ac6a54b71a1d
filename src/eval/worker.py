"""A harness that stays for many evaluations: one line of JSON in, one evaluation, one line of JSON out.

Every evaluation is the harness's own command (`python -m lm_eval run --config FILE`) in a process that has imported its
modules already. It reads the same config, seeds the same generators, writes the same files and ends with the same code.
Kept from one to the next are only what no model changes: the index of the stock tasks and the report on the machine.

In:  {"config": FILE, "stdout": FILE, "stderr": FILE}
Out: {"exit": CODE, "n_parameters": N}   N: parameters of models that are still in memory, 0 unless something holds one
"""

import ctypes
import functools
import gc
import json
import os
import queue
import runpy
import signal
import sys
import threading
import traceback


def main():
    questions, answers = take_pipes()
    lines = queue.SimpleQueue()
    threading.Thread(target=listen, args=(questions, lines), daemon=True).start()
    while True:
        question = json.loads(lines.get())
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            redirect(descriptor, question[name])
        code = evaluate(question["config"])
        answer = {"exit": code, "n_parameters": free()}
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def take_pipes():
    """The pipes to the caller, out of the reach of whatever the harness and its children read and print."""
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    return questions, answers


def listen(questions, lines):
    for line in questions:
        lines.put(line)
    # The caller is gone: nobody waits for what is being done, and nobody but us would end our children.
    if os.getpid() == os.getpgrp():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def redirect(descriptor, path):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, descriptor)
    os.close(file)


def evaluate(config):
    sys.argv = ["lm_eval", "run", "--config", config]
    try:
        keep_what_no_model_changes()
        runpy.run_module("lm_eval", run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1


@functools.cache
def keep_what_no_model_changes():
    """Another release of the harness may be built another way: then nothing is kept, which only takes longer."""
    try:
        from lm_eval import utils
        from lm_eval.tasks import _index

        keep_stock_index(_index)
        # Said once a process, and every log must hold what is said of its evaluation.
        for name in ("warning_once", "info_once"):
            setattr(utils, name, getattr(utils, name).__wrapped__)
    except (ImportError, AttributeError):
        pass
    try:
        from torch.utils import collect_env

        collect_env.get_pretty_env_info = functools.cache(collect_env.get_pretty_env_info)
    except (ImportError, AttributeError):
        pass


def keep_stock_index(module):
    build = module.TaskIndex.build
    stock_folder = os.path.dirname(os.path.realpath(module.__file__))
    stock = {}

    def build_with_stock(paths, *, resolve_includes=True):
        first, *own = paths = list(paths)
        if os.path.realpath(first) != stock_folder or not resolve_includes:
            return build(paths, resolve_includes=resolve_includes)
        if not stock:
            stock.update(build([first]))
        # Tags name tasks in a set that an own task may be added to.
        index = {name: type(entry)(**{**vars(entry), "tags": set(entry.tags)}) for name, entry in stock.items()}
        for name, entry in build(own).items():
            index[name] = entry
        return index

    module.TaskIndex.build = staticmethod(build_with_stock)


def free():
    """Lets go of the model, gives the memory back to the system and the GPU, and counts what is left."""
    gc.collect()
    torch = sys.modules.get("torch")
    parameter = getattr(getattr(torch, "nn", None), "Parameter", None)
    n_left = sum(type(found) is parameter for found in gc.get_objects()) if parameter else 0
    if n_left == 0:
        # What is there now are modules and caches, which stay: the next collection need not look at them again.
        gc.freeze()
    if parameter and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass
    return n_left


main()
