"""How many distinct frames a second does `hm play` generate, and where does the time go?

    python benchmarks/play.py                              # the packaged model, a rendered clip, 12 chunks
    python benchmarks/play.py --threads 2 --json play.json

The session alone, without a page: a walk that turns to and fro, as somebody with the keys makes it. Frames a second are
those of all chunks but the first, by the clock and by processor time; the parts are seconds of a chunk. On a busy
machine the clock says less than it could; processor time with one thread says what a free core would give. Then the
wait when memory is turned off for the first time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import torch

from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.models.folders import find_model
from hmcli.stages.playing.motion import AHEAD, LEFT, RIGHT
from hmcli.stages.playing.opening import Start, open_session, usual
from hmcli.stages.playing.session import Session

KEYS = ((LEFT,), (LEFT,), (AHEAD,), (RIGHT,), (RIGHT,), (AHEAD, RIGHT))


def measure(session: Session, chunks: int) -> dict[str, Any]:
    """Walk so many chunks, then one without memory."""
    processor, parts, frames = [], Counter[str](), set[bytes]()
    for number in range(chunks):
        start = time.process_time()
        made = session.step(KEYS[number % len(KEYS)])
        processor.append(time.process_time() - start)
        frames |= {frame.tobytes() for frame in made.frames}
        if number:
            parts.update(made.seconds)
    took = [made.took for made in session.chunks]
    session.memory = False
    off = session.step((LEFT,))
    later = chunks - 1
    return {
        "chunk": session.length, "chunks": chunks, "distinct_frames": len(frames), "seconds": took,
        "rate": later * session.length / sum(took[1:]), "rate_median": session.length / median(took[1:]),
        "rate_processor": later * session.length / sum(processor[1:]),
        "parts": {name: seconds / later for name, seconds in parts.items()}, "first_without_memory": off.took,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("mini"))
    parser.add_argument("--source", type=Path, help="default: a rendered clip")
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    folder, start = find_model(asked.model), Start(source=asked.source)
    with tempfile.TemporaryDirectory() as place:
        recipe = load_recipe(None, asked.set, usual(folder, start))
        found = measure(open_session(recipe, folder, start, Path(place), "cpu", Silent()), asked.chunks)
    print(f"{found['chunks']} chunks of {found['chunk']} frames, {found['distinct_frames']} of them distinct")
    print(f"frames a second: {found['rate']:.1f} by the clock, {found['rate_processor']:.1f} of processor time")
    print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in found["parts"].items()) + " of a chunk")
    print(f"the first chunk without memory: {found['first_without_memory']:.2f} s")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
