"""Downloads a snapshot of a model; answers with one line of JSON. Progress goes to standard error."""

import json
import sys

# Code files are left out, since nothing here runs them.
PATTERNS = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "LICENSE*", "README.md"]


def answer(kind, message):
    print("mergesweep-answer " + json.dumps({"kind": kind, "message": str(message)}), flush=True)
    sys.exit(0)


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def main():
    question = json.loads(sys.argv[1])
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        answer("library", error)
    try:
        folder = huggingface_hub.snapshot_download(
            question["repository"],
            revision=question["revision"],
            cache_dir=question["cache"],
            # Weights only as safetensors.
            allow_patterns=PATTERNS + ["*.safetensors"] * question["weights"],
        )
    except Exception as error:
        chain = list(causes(error))
        first_line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        # The narrower classes come first: a gated repository is also one that is not found.
        for kind, names in [
            ("gated", ["GatedRepoError"]),
            ("revision", ["RevisionNotFoundError"]),
            ("repository", ["RepositoryNotFoundError", "HFValidationError"]),
        ]:
            classes = tuple(getattr(errors, name) for name in names if hasattr(errors, name))
            if any(isinstance(cause, classes) for cause in chain):
                answer(kind, first_line)
        if any(isinstance(cause, OSError) and cause.errno == 28 for cause in chain):
            answer("disk", first_line)
        # Too many requests, or a hub that is not well: the library wraps both in what it says of its cache.
        for cause in chain:
            status = getattr(getattr(cause, "response", None), "status_code", None)
            if isinstance(status, int) and (status == 429 or status >= 500):
                answer("busy", str(cause).splitlines()[0] if str(cause) else f"status {status}")
        network = ("ConnectError", "ConnectTimeout", "ReadTimeout", "ConnectionError", "Timeout", "LocalEntryNotFoundError")
        if any(type(cause).__name__ in network for cause in chain):
            # The outer message tells of the cache; the innermost one tells what happened.
            innermost = [cause for cause in chain if type(cause).__name__ in network][-1]
            answer("network", str(innermost).splitlines()[0] if str(innermost) else type(innermost).__name__)
        answer("other", f"{type(error).__name__}: {first_line}")
    answer("folder", folder)


main()
