"""The renderer: an analytic ray caster in torch. The only part of the world that imports torch."""

from hmcli.world.render.draw import RenderedClip, draw_clip, draw_clips
from hmcli.world.render.masks import Masks, draw_masks

__all__ = ["Masks", "RenderedClip", "draw_clip", "draw_clips", "draw_masks"]
