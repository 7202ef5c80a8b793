"""A plan as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hmcli.contracts import TIME_STRIDE

_GIB, _UNITS = 2**30, ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes in the unit that suits them: 5.4 GiB."""
    unit = 0
    while abs(count) >= 1024 and unit + 1 < len(_UNITS):
        count, unit = count / 1024, unit + 1
    return (
        f"{count:.0f} B"
        if unit == 0
        else f"{count:.3g} {_UNITS[unit]}"
        if count < 1000
        else f"{count:.0f} {_UNITS[unit]}"
    )


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: 3.2 h."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def table(plan: Mapping[str, Any]) -> str:
    """One plan, a line for every number."""
    rows = _rows(plan) if plan["part"] == "transformer" else _rows_of_videos(plan)
    width = max(len(label) for label, _ in rows)
    return "\n".join([plan["recipe"], *(f"  {label:<{width}}  {value}" for label, value in rows)])


def _rows(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    clip, memory, disk, times = plan["clip"], plan["memory"], plan["disk"], plan["times"]
    here = "this machine's CPU" if plan["device"] == "here" else plan["device"]
    ranks = f", {plan['world']} ranks" if plan["world"] > 1 else ""
    return [
        ("clips", f"{clip['clips']} of {clip['context']} + {clip['target']} latent frames of {clip['height']} x "
                  f"{clip['width']}, {clip['channels']} channels"),
        ("parameters", f"{plan['parameters'] / 1e6:.1f} M, of which {plan['parameters_trained'] / 1e6:.1f} M train"),
        ("memory of a step", f"{size(memory['peak'])} at its peak, on {here}{ranks}, clips at once: "
                             f"{plan['clips_at_once']}"),
        ("  weights", size(memory["weights"])),
        ("  gradients", size(memory["gradients"])),
        ("  optimizer", size(memory["optimizer"])),
        *([("  average", size(memory["average"]))] if memory["average"] else []),
        ("  activations", f"{size(memory['activations'])} ({size(memory['activations_with_checkpointing'])} with "
                          f"checkpointing, {size(memory['activations_without_checkpointing'])} without)"),
        ("  attention", f"{size(memory['attention_at_work'])} while a layer runs"),
        *([("  sharded", f"{size(memory['peak_with_sharding'])} at its peak with train.parallel=fsdp")]
          if plan["world"] > 1 else []),
        *([("  offloaded", f"{size(memory['offloaded'])} of a rank in the machine's memory")]
          if memory["offloaded"] else []),
        ("VAE", f"{size(memory['vae_weights'])} of weights; encoding {size(memory['vae_encode_peak'])}, decoding "
                f"{size(memory['vae_decode_peak'])} at the peak" if memory["vae_weights"] else "no network"),
        *([("text encoder", f"{size(memory['text_encoder_weights'])} of weights")]
          if memory["text_encoder_weights"] else []),
        ("sampling", f"{size(memory['sampling_peak'])} at its peak, one clip"),
        ("disk", f"clips about {size(disk['clips'])}, latents {size(disk['latents'])}, memory {size(disk['memory'])}, "
                 f"run {size(disk['run'])} (a checkpoint {size(disk['checkpoint'])}), generation about "
                 f"{size(disk['generation'])}"),
        ("time", _times(times)),
        ("fits", _fits(plan)),
    ]  # fmt: skip


def _rows_of_videos(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of a codec, the segmenter or the code of blocks."""
    clip, memory, disk, times = plan["clip"], plan["memory"], plan["disk"], plan["times"]
    context, target = (f"{TIME_STRIDE * (clip[part] - 1) + 1}" for part in ("context", "target"))
    sides = f"{clip['height'] * clip['stride']} x {clip['width'] * clip['stride']}"
    fitted = plan["part"] == "blocks"
    here = "this machine's CPU" if plan["device"] == "here" or fitted else plan["device"]
    counted = "" if plan["device"] == "here" or fitted else ", beside the device's"
    how = "timed" if times["timed"] else "from rates"
    steps = "" if fitted else f" ({duration(times['step'])} a step in the mean, {how})"
    state = f" (a checkpoint {size(disk['checkpoint'])})" if disk["checkpoint"] else ""
    parts = [
        ("weights" if not fitted else "sums of products", "weights"), ("gradients", "gradients"),
        ("optimizer", "optimizer"), ("average", "average"), ("activations", "activations"),
    ]  # fmt: skip
    return [
        ("trains", f"train.part={plan['part']}, in one process"),
        ("clips", f"{clip['clips']} of {context} + {target} frames of {sides}"),
        ("parameters", f"{plan['parameters'] / 1e6:.3g} M" + ("" if fitted else
                       f", of which {plan['parameters_trained'] / 1e6:.3g} M train")),
        ("memory of a step" if not fitted else "memory", f"{size(memory['peak'])} at its peak, on {here}"),
        *((f"  {label}", size(memory[name])) for label, name in parts if memory[name]),
        ("  videos", f"{size(memory['videos'])} in this machine's memory{counted}"),
        ("disk", f"clips about {size(disk['clips'])}, run {size(disk['run'])}{state}, of which {plan['part']} "
                 f"{size(disk['exported'])}"),
        ("time", f"render {duration(times['render'])} of one core, train {duration(times['train'])}{steps}"),
        ("fits", _fits(plan)),
    ]  # fmt: skip


def _times(times: Mapping[str, Any]) -> str:
    how = "timed" if times["timed"] else "from rates"
    memory = f"tokenize-memory {duration(times['tokenize_memory'])}, " if times["tokenize_memory"] else ""
    return (
        f"render {duration(times['render'])} of one core, encode {duration(times['encode'])}, {memory}train "
        f"{duration(times['train'])} ({duration(times['step'])} a step, {how}), generate {duration(times['generate'])}"
    )


def _fits(plan: Mapping[str, Any]) -> str:
    memory = plan["memory"]
    if memory["fits"]:
        return f"yes: {size(memory['peak'])} of {size(memory['room'])}"
    lines = [f"no: {size(memory['peak'])}, and there are {size(memory['room'])}"]
    lines += [
        f"{'and ' if number else ''}--set '{each['change']}': {size(each['peak'])}"
        + (", it fits" if each["fits"] else "")
        for number, each in enumerate(plan["remedies"])
    ]
    if not (plan["remedies"] and plan["remedies"][-1]["fits"]):
        lines.append("then a smaller data.size, shorter clips, or fewer " + ("layers" if plan["part"] == "transformer"
                                                                             else "clips"))  # fmt: skip
    return "\n         ".join(lines)


def told_sum(total: Mapping[str, Any]) -> str:
    """The sum of several plans."""
    stages = ("render", "encode", "tokenize_memory", "train", "generate")
    parts = ("clips", "latents", "memory", "run", "generation")
    seconds = ", ".join(f"{name.replace('_', '-')} {duration(total[f'seconds.{name}'])}" for name in stages)
    disk = ", ".join(f"{name} {size(total[f'disk.{name}'])}" for name in parts)
    return (
        f"all {total['recipes']} recipes\n  peak  {size(total['highest_peak'])}\n  disk  {disk}: "
        f"{size(sum(total[f'disk.{name}'] for name in parts))}\n  time  {seconds}: "
        f"{duration(sum(total[f'seconds.{name}'] for name in stages))}"
    )
