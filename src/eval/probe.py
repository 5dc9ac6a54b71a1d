"""Looks at the harness and its tasks before any model is made or loaded; answers with one line of JSON.

Task definitions, data sets and metrics are loaded for real: the harness itself does so only after it has loaded the
model, so a missing data set would cost a full load, and a missing tinyBenchmarks.pkl a whole evaluation.
"""

import difflib
import importlib.metadata
import importlib.util
import json
import os
import sys

TINY_PARAMETERS = "https://raw.githubusercontent.com/felipemaiapolo/tinyBenchmarks/main/tinyBenchmarks/tinyBenchmarks.pkl"


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def line_of(error):
    """The last line of the error's traceback, as the harness would leave it in its log."""
    name = type(error).__name__
    module = type(error).__module__
    full = name if module == "builtins" else f"{module}.{name}"
    # A KeyError shows its message quoted.
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{full}: {message}"


def members(task_manager, name, no_load):
    if name in no_load:
        return {"members": None}
    loaded = task_manager.load([name])
    found = []
    for task_name, task in loaded["tasks"].items():
        found.append(
            {
                "name": task_name,
                "n_documents": len(task.eval_docs),
                "runs_code": bool(getattr(task, "UNSAFE_CODE", False)),
            }
        )
    return {"members": found}


def tasks(question, answer):
    from lm_eval.tasks import TaskManager

    task_manager = TaskManager(
        include_path=question["include_path"],
        include_defaults=question["stock_tasks"],
        metadata=question["metadata"],
    )
    names = set(task_manager.all_tasks)
    for name in question["tasks"]:
        if name not in names:
            answer["tasks"][name] = {"near": difflib.get_close_matches(name, names, 1)}
            continue
        try:
            answer["tasks"][name] = members(task_manager, name, question["no_load"])
        except Exception as error:
            answer["tasks"][name] = {"error": line_of(error)}


def backends():
    import lm_eval.models  # registers the names
    from lm_eval.api import registry

    return sorted(registry.model_registry.keys())


def tiny_parameters(offline):
    """Puts the parameters where tinyBenchmarks looks for them: the working directory."""
    name = "tinyBenchmarks.pkl"
    if os.path.isfile(name):
        return None
    if offline:
        return "downloads are off"
    import tempfile
    import urllib.request

    try:
        with urllib.request.urlopen(TINY_PARAMETERS, timeout=60) as response:
            content = response.read()
        # Jobs on other nodes may be at it too.
        with tempfile.NamedTemporaryFile(dir=".", prefix=name + ".", delete=False) as file:
            file.write(content)
        os.chmod(file.name, 0o644)
        os.replace(file.name, name)
    except OSError as error:
        return str(error)
    return None


def main():
    question = json.loads(sys.argv[1])
    answer = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "versions": {package: version(package) for package in question["versions"]},
        "missing": [name for name in question["modules"] if importlib.util.find_spec(name) is None],
        "tasks": {},
        "backends": None,
        "gpu": None,
        "n_gpus": 0,
        "error": None,
        "tiny_parameters": None,
    }
    if answer["versions"]["lm_eval"] is not None:
        try:
            tasks(question, answer)
            if question["backend"]:
                answer["backends"] = backends()
        except Exception as error:
            answer["error"] = line_of(error)
    if question["tiny"]:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        answer["tiny_parameters"] = tiny_parameters(offline)
    if question["gpu"] and "torch" not in answer["missing"]:
        try:
            import torch

            answer["n_gpus"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
            answer["gpu"] = torch.cuda.get_device_name() if answer["n_gpus"] else ""
        except Exception as error:
            answer["error"] = answer["error"] or line_of(error)
    print("\nmergesweep-answer " + json.dumps(answer), flush=True)


main()
