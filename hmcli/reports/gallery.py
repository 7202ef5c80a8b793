"""Gallery: clips as one static HTML page that plays them, and says who is out of sight when. No server, no network.

A clip's two videos play one after the other above a timeline: a lane per subject, grey while it is out of sight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from hmcli.reports.top_down import SUBJECT_COLOURS


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One subject of the timeline: frames it is out of sight, first to last, with the reason (may be empty)."""

    subject: str
    hidden: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, kw_only=True)
class GalleryClip:
    """One clip; paths are relative to the page, as the file system has them."""

    id: str
    caption: str
    facts: tuple[tuple[str, str], ...]
    videos: tuple[str, ...]  # context, and target where there is one
    frames: tuple[int, int]  # context, target (0: none)
    lanes: tuple[Lane, ...]
    pictures: tuple[tuple[str, str], ...]  # (what it shows, path)


def gallery(title: str, clips: Sequence[GalleryClip]) -> str:
    """The page's HTML."""
    head = f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    count = f"{len(clips)} clip{'s' * (len(clips) != 1)}"
    intro = f"<h1>{escape(title)}</h1><p>{count}. The context plays first, then the target. {_LEGEND}</p>"
    search = '<input id="search" type="search" placeholder="only clips whose text contains ..." aria-label="search">'
    body = "".join(_article(clip) for clip in clips)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">{head}</head>'
        f"<body>{intro}{search}<main>{body}</main><script>{_SCRIPT}</script></body></html>\n"
    )


def _article(clip: GalleryClip) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in clip.facts)
    pictures = "".join(
        f'<details><summary>{escape(what)}</summary><img loading="lazy" alt="{escape(what)} of {escape(clip.id)}" '
        f'src="{quote(path)}"></details>'
        for what, path in clip.pictures
    )
    sources = [quote(video) for video in clip.videos]
    return (
        f'<article id="{escape(clip.id)}"><h2>{escape(clip.id)}</h2>'
        f'<video muted playsinline controls preload="metadata" src="{sources[0]}" data-videos="{" ".join(sources)}">'
        f'</video><p class="part">context</p>{_timeline(clip)}<p>{escape(clip.caption)}</p><dl>{facts}</dl>{pictures}'
        "</article>"
    )


def _timeline(clip: GalleryClip) -> str:
    """An SVG as wide as the video: a lane per subject, a line where the target begins, a playhead."""
    total = max(1, sum(clip.frames))
    high = 14 * max(1, len(clip.lanes))
    lanes = []
    for row, lane in enumerate(clip.lanes):
        red, green, blue = SUBJECT_COLOURS[row % len(SUBJECT_COLOURS)]
        label = escape(lane.subject)
        lanes.append(
            f'<rect x="0" y="{14 * row + 2}" width="{total}" height="10" fill="rgb({red},{green},{blue})">'
            f"<title>{label}</title></rect>"
        )
        for first, last, reason in lane.hidden:
            why = f", {escape(reason)}" if reason else ""
            lanes.append(
                f'<rect x="{first}" y="{14 * row + 2}" width="{last - first + 1}" height="10" fill="var(--away)">'
                f"<title>{label} out of sight, frames {first} to {last}{why}</title></rect>"
            )
    return (
        f'<svg class="timeline" viewBox="0 0 {total} {high}" preserveAspectRatio="none" style="height:{high}px" '
        f'role="img" aria-label="who is out of sight when" data-context="{clip.frames[0]}" data-total="{total}">'
        f'{"".join(lanes)}<line class="cut" x1="{clip.frames[0]}" x2="{clip.frames[0]}" y1="0" y2="{high}"/>'
        f'<line class="head" x1="0" x2="0" y1="0" y2="{high}"/></svg>'
    )


_LEGEND = "Below a clip, a bar per subject: coloured in sight, grey out of sight; the thin line is the target's start."
_STYLE = """
:root{color-scheme:light dark;--away:#bbb}
body{font:15px/1.45 system-ui,sans-serif;max-width:1500px;margin:2rem auto;padding:0 1rem}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:1.5rem;margin-top:1rem}
article{border:1px solid #8885;border-radius:8px;padding:.75rem;overflow:hidden}
h2{font-size:1rem;margin:0 0 .5rem}video,img{width:100%;display:block;image-rendering:auto;background:#000}
.part{margin:.2rem 0;font-size:.8rem;opacity:.7}.timeline{width:100%;display:block}
.cut{stroke:currentColor;stroke-width:1;vector-effect:non-scaling-stroke}
.head{stroke:#d55e00;stroke-width:2;vector-effect:non-scaling-stroke}
dl{display:grid;grid-template-columns:auto 1fr;gap:0 .75rem;font-size:.85rem}dt{opacity:.7}dd{margin:0}
input{width:100%;max-width:30rem;padding:.4rem}
"""
_SCRIPT = """
for (const video of document.querySelectorAll('video')) {
  const files = video.dataset.videos.split(' '), box = video.closest('article');
  const part = box.querySelector('.part'), line = box.querySelector('.timeline'), head = box.querySelector('.head');
  const context = +line.dataset.context, total = +line.dataset.total;
  let now = 0;
  const show = index => { now = index; video.src = files[index]; part.textContent = index ? 'target' : 'context'; };
  const follow = () => {
    const length = now ? total - context : context, share = video.duration ? video.currentTime / video.duration : 0;
    const frame = (now ? context : 0) + share * length;
    head.setAttribute('x1', frame); head.setAttribute('x2', frame);
    if (!video.paused) requestAnimationFrame(follow);
  };
  video.addEventListener('play', follow);
  video.addEventListener('seeked', follow);
  video.addEventListener('playing', () => { box.dataset.played = `${box.dataset.played || ''}${part.textContent} `; });
  video.addEventListener('error', () => {
    box.dataset.failed = files[now];
    part.textContent = `cannot be played: ${files[now]}`;
  });
  video.addEventListener('ended', () => { show((now + 1) % files.length); if (now) video.play(); });
  video.addEventListener('mouseenter', () => { if (video.paused) video.play().catch(() => {}); });
}
document.getElementById('search').addEventListener('input', event => {
  const words = event.target.value.toLowerCase();
  for (const box of document.querySelectorAll('article'))
    box.hidden = !box.textContent.toLowerCase().includes(words) && !box.id.toLowerCase().includes(words);
});
if (location.hash === '#play') for (const video of document.querySelectorAll('video')) video.play();
"""
