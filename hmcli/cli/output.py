"""What a command says when it ends: its result on stdout, its error on stderr, its exit code."""

from __future__ import annotations

import json
import os
import sys

from hmcli.contracts import Description, StageResult
from hmcli.errors import EXIT_INTERRUPTED, EXIT_QUARANTINED, HMError, StoppedEarly, ran_out
from hmcli.runtime import Terminated, printable

Result = StageResult | Description


def explain(error: BaseException) -> int:
    """Say on stderr what ended the command; returns its exit code."""
    if isinstance(error, Terminated):
        error = StoppedEarly("stopped by SIGTERM", fix="run the same command again: it goes on where it stopped")
    if isinstance(error, HMError):
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    if ran_out(error):
        from hmcli.stages.shared.memory import first_words

        fix = "free some, use fewer processes or another device, or smaller or shorter clips"
        return explain(HMError(f"out of memory: {first_words(error)}", fix=fix))
    print(f"error: {type(error).__name__}: {error}\n  fix  run again with --debug and report this", file=sys.stderr)
    return 1


def _print(text: str, what: str, code: int) -> int:
    """Print a result; returns `code`, or 1 when stdout takes nothing (a reader that went away is no failure)."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:  # a terminal of another alphabet: a path keeps its bytes, or the next command finds none
        sys.stdout.buffer.write(os.fsencode(text) + b"\n")
        sys.stdout.flush()
    except OSError as error:
        return unprinted(error, what, code)
    return code


def unprinted(error: OSError, what: str, code: int) -> int:
    """Say what stdout did not take; returns the exit code. What is left in its buffer goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return code
    print(f"error: stdout takes nothing ({error.strerror}); not printed: {what}", file=sys.stderr)
    return 1


def emit(result: Result, json_output: bool) -> int:
    """Print a stage's result; returns 4 when items were quarantined."""
    code = EXIT_QUARANTINED if result.quarantined else 0
    if isinstance(result, Description):
        text = json.dumps(dict(result.data), default=str) if json_output else printable(result.text)
        return _print(text, "the description", code)
    if result.quarantined:
        names = ", ".join(item.item for item in result.quarantined[:10])
        print(
            f"{len(result.quarantined)} left out, the rest is done: {printable(names)} (exit code 4)", file=sys.stderr
        )
    if json_output:
        text = json.dumps({
            "path": str(result.path.absolute()), "kind": result.kind, "fingerprint": result.fingerprint,
            "counts": dict(result.counts), "details": dict(result.details), "exit_code": code,
            "quarantined": [{"item": q.item, "reason": q.reason} for q in result.quarantined],
        }, default=str)  # fmt: skip
    elif result.details.get("dry_run"):
        return code
    else:
        text = str(result.path.absolute())
    return _print(text, f"{result.kind} {result.path.absolute()}", code)
