"""The renderer: an analytic ray caster in torch. The only part of the world that imports torch."""

from hmcli.world.render.draw import RenderedClip, draw_clip, draw_clips

__all__ = ["RenderedClip", "draw_clip", "draw_clips"]
