"""Names to implementations: `kind/name -> "module:attribute"`, resolved only when asked for.

Other packages join through the entry-point group `hmcli.<kind>` (docs/extending.md).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from hmcli.errors import MissingPartError, UsageError


def normal(name: str) -> str:
    """`_` and `-` are alike in names."""
    return name.replace("_", "-")


def _of(module: str, attributes: str) -> dict[str, str]:
    """Names that are what their module calls them, lower or upper case."""
    return {normal(attribute).lower(): f"{module}:{attribute}" for attribute in attributes.split()}


BUILT_IN: dict[str, dict[str, str]] = {  # in this order where one is drawn by chance: add new names at the end
    "codec": {
        "mini": "hmcli.codecs.video:mini_codec",
        "wan2.1": "hmcli.codecs.video:wan_codec",
        "blocks": "hmcli.codecs.blocks:blocks_codec",
    },
    "vae": {  # class of a vae/ folder -> a codec around what was loaded from it
        "AutoencoderKLWan": "hmcli.codecs.video:codec_around",
        "LinearBlocks": "hmcli.codecs.blocks:codec_around",
    },
    "text": {"mini": "hmcli.codecs.text:mini_text", "umt5": "hmcli.codecs.text:umt5_text"},
    "policy": {
        "affinity": "hmcli.core.policies.affinity:affinity",
        "fov": "hmcli.core.policies.fov:fov",
        "random": "hmcli.core.policies.chance:random",
        "oracle": "hmcli.core.policies.oracle:oracle",
        "none": "hmcli.core.policies.window_only:window_only",
        "all": "hmcli.core.policies.everything:everything",
        "frames-fov": "hmcli.core.policies.frames_fov:frames_fov",
        "recent": "hmcli.core.policies.recent:recent",
    },
    "scheduler": _of("hmcli.core.schedulers", "euler heun unipc dpm lcm"),
    "metric": {
        "psnr": "hmcli.metrics.pixel:psnr",
        "ssim": "hmcli.metrics.pixel:ssim",
        "lpips": "hmcli.metrics.perceptual:lpips",
        "perceptual-effnet": "hmcli.metrics.perceptual:perceptual_effnet",
        **_of(
            "hmcli.metrics.inside",
            "psnr_returned psnr_visible psnr_hidden psnr_stretch psnr_subjects psnr_outside psnr_outside_returned "
            "ssim_returned ssim_visible ssim_hidden ssim_outside ssim_outside_returned",
        ),
        **_of(
            "hmcli.metrics.perceptual_inside",
            "perceptual_effnet_returned perceptual_effnet_visible perceptual_effnet_hidden perceptual_effnet_outside "
            "perceptual_effnet_outside_returned lpips_returned lpips_visible lpips_hidden lpips_outside "
            "lpips_outside_returned",
        ),
        "background-revisited": "hmcli.metrics.revisited:background_revisited",
        "subject-consistency": "hmcli.metrics.consistency:subject_consistency",
        "background-consistency": "hmcli.metrics.consistency:background_consistency",
        "motion-amount": "hmcli.metrics.motion:motion_amount",
        "drift-error": "hmcli.metrics.drift:drift_error",
        "drift-sharpness": "hmcli.metrics.drift:drift_sharpness",
        "drift-colour": "hmcli.metrics.drift:drift_colour",
        "camera-following": "hmcli.metrics.following:camera_following",
        "camera-followed": "hmcli.metrics.following:camera_followed",
        "dsc-ctx": "hmcli.metrics.dsc:dsc_ctx",
        "dsc-gt": "hmcli.metrics.dsc:dsc_gt",
        "dsc-ctx-official": "hmcli.metrics.dsc_official:dsc_ctx_official",
        "dsc-gt-official": "hmcli.metrics.dsc_official:dsc_gt_official",
        "reappearance-recall": "hmcli.metrics.reappearance:reappearance_recall",
        "reappearance-precision": "hmcli.metrics.reappearance:reappearance_precision",
        "false-alarms": "hmcli.metrics.alarms:false_alarms",
        "position-error": "hmcli.metrics.reentry_errors:position_error",
        "position-error-degrees": "hmcli.metrics.reentry_errors:position_error_degrees",
        "state-progress": "hmcli.metrics.reentry_errors:state_progress",
        "time-error": "hmcli.metrics.reentry_errors:time_error",
        "velocity-error": "hmcli.metrics.reentry_errors:velocity_error",
        "verdict-right": "hmcli.metrics.verdicts:right",
        "verdict-vanished": "hmcli.metrics.verdicts:vanished",
        "verdict-frozen": "hmcli.metrics.verdicts:frozen",
        "verdict-distorted": "hmcli.metrics.verdicts:distorted",
        "verdict-stuttering": "hmcli.metrics.verdicts:stuttering",
        "verdict-misplaced": "hmcli.metrics.verdicts:misplaced",
        "verdict-duplicated": "hmcli.metrics.verdicts:duplicated",
        "identity-rank1": "hmcli.metrics.rank1:identity_rank1",
        "reentry-spread": "hmcli.metrics.spread:reentry_spread",
    },
    "backbone": {
        "hog": "hmcli.metrics.backbones.hog:hog",
        "dino": "hmcli.metrics.backbones.dino:dino",
        "clip": "hmcli.metrics.backbones.clip:clip",
        "effnet-lite0": "hmcli.metrics.backbones.effnet:effnet_lite0",
        "colours": "hmcli.metrics.backbones.colours:colours",
    },
    "detector": {
        "transformers": "hmcli.metrics.detectors.objects:transformers_objects",
        "segmenter": "hmcli.metrics.detectors.segmenter:segmenter",
    },
    "tracker": {
        "tensorboard": "hmcli.stages.training.trackers:TensorBoard",
        "wandb": "hmcli.stages.training.trackers:Wandb",
        "trackio": "hmcli.stages.training.trackers:Trackio",
    },
    "scene": {
        **_of("hmcli.world.scenes.towns", "STREET MARKET NIGHT_CITY"),
        **_of("hmcli.world.scenes.countryside", "MEADOW SNOW AUTUMN BAMBOO"),
        **_of("hmcli.world.scenes.coast", "BEACH HARBOUR"),
        **_of("hmcli.world.scenes.dry", "DESERT CANYON TEMPLE LUNAR"),
        **_of("hmcli.world.scenes.indoors", "MUSEUM WAREHOUSE"),
        **_of("hmcli.world.scenes.play", "PLAYGROUND STADIUM"),
    },
    "subject": {
        **_of(
            "hmcli.world.subjects.people",
            "walker hiker jogger office_worker builder firefighter doctor chef farmer schoolchild elder rain_walker "
            "porter",
        ),
        **_of(
            "hmcli.world.subjects.costumes",
            "monk wizard knight pirate cowboy astronaut diver clown ninja king bride ballerina scarecrow robot",
        ),
        **_of(
            "hmcli.world.subjects.animals",
            "dog deer horse cow pig sheep fox bear panda elephant giraffe zebra camel lion tiger tortoise crocodile "
            "rabbit",
        ),
        **_of("hmcli.world.subjects.bipeds", "ostrich flamingo penguin kangaroo"),
    },
    "move": _of(  # a camera trajectory is one of them to the left or to the right
        "hmcli.world.views.moves",
        "PAN SWEEP TRUCK TRUCK_WITH_PAN TRUCK_AGAINST_PAN DOLLY_IN DOLLY_OUT ORBIT_WITH_PAN ORBIT_AGAINST_PAN CRANE_UP "
        "CRANE_DOWN TRUCK_AND_RISE SWOOP DIAGONAL",
    ),
}


def names(kind: str) -> dict[str, str]:
    """Every known name of a kind with the place it lives, built-in ones first; a foreign one cannot shadow ours."""
    from importlib.metadata import entry_points  # slow to import, and not needed for built-in names

    known = dict(BUILT_IN[kind])
    for point in entry_points(group=f"hmcli.{kind}"):
        known.setdefault(normal(point.name), point.value)
    return known


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown name."""
    close = difflib.get_close_matches(normal(name), known := sorted(known), n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {', '.join(known)}"


def is_known(kind: str, name: str) -> bool:
    """Whether `find` knows the name; imports nothing it stands for."""
    return normal(name) in BUILT_IN[kind] or normal(name) in names(kind)


def find(kind: str, name: str) -> Any:
    """Import and return what `name` stands for.

    Raises UsageError listing the known names, MissingPartError when another package's entry point leads nowhere.
    """
    if (place := BUILT_IN[kind].get(normal(name)) or names(kind).get(normal(name))) is None:
        raise UsageError(f"unknown {kind} {name!r}", fix=suggestion(name, names(kind)))
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if normal(name) in BUILT_IN[kind]:
            raise
        raise MissingPartError(
            f"{kind} {name!r} of another package cannot be loaded",
            where={"entry point": f"{name} = {place!r} in hmcli.{kind}", "because": error},
            fix="correct the entry point ('module:attribute') and install that package again",
        ) from error
