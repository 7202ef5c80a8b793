"""Memory that runs out: told from other errors, and said with numbers and with what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hmcli.errors import HMError, ran_out

GIB, MIB = 2**30, 2**20


def free_bytes(device: str) -> int | None:
    """Memory that is free on a device; None: not known."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    about = Path("/proc/meminfo")
    lines = about.read_text(encoding="ascii").splitlines() if about.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def gib(count: int) -> str:
    """Bytes, as people read them."""
    return f"{count / GIB:.3g} GiB" if count >= GIB else f"{count / MIB:.3g} MiB"


@contextmanager
def memory_named(device: str, *, where: Mapping[str, object], fix: str) -> Iterator[None]:
    """Out of memory in here is an HMError that says where, how much is free, and what to try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        free = free_bytes(device)
        raise HMError(
            f"out of memory on {device}",
            where={**where, "free now": "not known" if free is None else gib(free), "because": first_words(error)},
            fix=fix,
        ) from error


def first_words(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
