'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const at = id => document.getElementById(id);
const make = (name, text, kind) => {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const option = (select, value, text) => select.append(new Option(text, value));
const valueOf = (clip, row, column) => {
  const value = clip.values[row][column][0];
  return value === null ? null : Number(value);
};
const shown = (value, digits) => value === null ? '-' : Number.isFinite(value) ? value.toFixed(digits) : value > 0 ? 'inf' : '-inf';

// --- which clips, in which order
option(at('sort'), '', 'as listed');
data.columns.forEach((column, index) => option(at('sort'), String(index), `worst ${column.label}`));
option(at('sort'), 'hidden', 'longest hidden');
option(at('of'), '', 'any row');
data.rows.forEach((row, index) => option(at('of'), String(index), row.title));
const choices = (id, values) => {
  option(at(id), '', 'any');
  [...new Set(values)].sort().forEach(value => option(at(id), value, value));
  at(id).closest('label').hidden = at(id).options.length < 2;
};
choices('split', data.clips.map(clip => clip.split).filter(Boolean));
choices('reason', data.clips.flatMap(clip => clip.reasons));
choices('verdict', data.clips.flatMap(clip => clip.verdicts.flat().map(([, verdict]) => verdict)));
const timed = data.clips.some(clip => clip.hidden_seconds !== null);
for (const id of ['least', 'most']) at(id).closest('label').hidden = !timed;

/** The rows that sorting and verdicts are of. */
const asked = () => at('of').value === '' ? data.rows.map((_, row) => row) : [Number(at('of').value)];
const judged = clip => asked().some(row => clip.verdicts[row].some(([, verdict]) => verdict === at('verdict').value));
/** The clip's worst value of a column: of one row, or of any; null where none has one. */
const worst = (clip, column) => {
  const values = asked().map(row => valueOf(clip, row, column)).filter(value => value !== null);
  if (!values.length) return null;
  return data.columns[column].better === 'higher' ? Math.min(...values) : Math.max(...values);
};
const chosen = () => {
  const least = at('least').value === '' ? -Infinity : Number(at('least').value);
  const most = at('most').value === '' ? Infinity : Number(at('most').value);
  const words = at('text').value.toLowerCase(), by = at('sort').value;
  const limited = least > -Infinity || most < Infinity;
  const found = data.clips.filter(clip =>
    (clip.hidden_seconds === null ? !limited : clip.hidden_seconds >= least && clip.hidden_seconds <= most) &&
    (!at('split').value || clip.split === at('split').value) &&
    (!at('verdict').value || judged(clip)) &&
    (!at('reason').value || clip.reasons.includes(at('reason').value)) &&
    (clip.id.toLowerCase().includes(words) || clip.caption.toLowerCase().includes(words)));
  const key = clip => by === 'hidden' ? clip.hidden_seconds : by === '' ? 0 : worst(clip, Number(by));
  const up = by !== 'hidden' && by !== '' && data.columns[Number(by)].better === 'higher' ? 1 : -1;
  const order = (a, b) => {
    const [first, second] = [key(a), key(b)];
    if (first === null || second === null) return (first === null) - (second === null); // without a value: last
    return first === second ? 0 : up * (first < second ? -1 : 1);
  };
  return by === '' ? found : found.sort(order);
};

let order = [], current = null;
const told = clip => {
  const by = at('sort').value;
  if (by === '' || by === 'hidden') return clip.hidden_seconds === null ? '' : `${clip.hidden_seconds.toFixed(1)} s`;
  return shown(worst(clip, Number(by)), data.columns[Number(by)].digits);
};
const relist = () => {
  order = chosen();
  at('of').closest('label').hidden = ['', 'hidden'].includes(at('sort').value) && !at('verdict').value;
  at('count').textContent = `${order.length} of ${data.clips.length} clips`;
  at('list').replaceChildren(...order.map(clip => {
    const item = make('li'), button = make('button');
    button.append(make('span', clip.id), make('span', told(clip)));
    button.classList.toggle('bare', !clip.rows.some(Boolean) && !clip.truth);
    button.dataset.clip = clip.id;
    button.addEventListener('click', () => { show(clip); button.blur(); });
    item.append(button);
    return item;
  }));
  at('clip').hidden = !order.length;
  if (order.length) show(order.includes(current) ? current : order[0]);
};

// --- one clip: videos that play in step
let players = [], frame = 0, playing = false, sources = [];
const total = () => current.frames[0] + current.frames[1];
const address = name => {
  if (data.folder) return data.folder + name;
  const [head, body] = at(`media-${name}`).textContent.trim().split(',');
  const bytes = Uint8Array.from(atob(body), letter => letter.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([bytes], {type: head.slice(5).split(';')[0]}));
  sources.push(url);
  return url;
};
const player = (title, name, first, count) => {
  const figure = make('figure'), caption = make('figcaption', title);
  caption.title = title;
  figure.append(caption);
  if (name === null) {
    figure.append(make('div', 'no video', 'none'));
    return figure;
  }
  const video = make('video');
  Object.assign(video, {muted: true, playsInline: true, preload: 'auto', src: address(name)});
  video.addEventListener('loadedmetadata', () => {
    video.style.setProperty('--shape', `${video.videoWidth}/${video.videoHeight}`);
    place(one);
  });
  video.addEventListener('error', () => { figure.dataset.failed = name; caption.textContent = `${title}: cannot be played here`; });
  const one = {video, figure, first, count};
  players.push(one);
  figure.append(video);
  return figure;
};
/** The frame of its own that a player shows when the clip is at `frame`. */
const local = one => Math.min(Math.max(frame - one.first, 0), one.count - 1);
const active = one => frame >= one.first && frame < one.first + one.count;
const place = one => { one.video.currentTime = (local(one) + 0.5) / current.fps; };
const now = one => Math.min(Math.floor(one.video.currentTime * current.fps + 1e-6), one.count - 1);
const tell = () => {
  at('scrub').value = frame;
  const part = frame < current.frames[0] ? `context ${frame}` : `target ${frame - current.frames[0]}`;
  at('frame').textContent = total() ? `${part} (${(frame / current.fps).toFixed(2)} s)` : '';
  for (const one of players) one.figure.classList.toggle('still', !active(one));
  for (const line of document.querySelectorAll('#timeline .head')) {
    line.setAttribute('x1', frame + 0.5);
    line.setAttribute('x2', frame + 0.5);
  }
  document.body.dataset.frame = frame;
};
const seek = to => {
  frame = Math.min(Math.max(to, 0), Math.max(total() - 1, 0));
  players.forEach(place);
  tell();
};
const pause = () => {
  playing = false;
  at('play').textContent = 'play';
  for (const one of players) one.video.pause();
  if (current) seek(frame);
};
/** Plays what is active; one leads, and whoever is more than a frame apart from it is brought back. */
const follow = () => {
  if (!playing) return;
  const going = players.filter(active), [lead] = going;
  if (!lead) { frame >= total() - 1 ? pause() : seek(frame + 1); requestAnimationFrame(follow); return; }
  for (const one of going) if (one.video.paused && !one.video.ended) one.video.play().catch(() => {});
  frame = lead.first + now(lead);
  for (const one of going.slice(1))
    if (!one.video.seeking && Math.abs(now(one) - now(lead)) > 1) one.video.currentTime = lead.video.currentTime;
  tell();
  if (lead.video.ended || now(lead) >= lead.count - 1) {
    if (lead.first + lead.count >= total()) { frame = total() - 1; pause(); return; }
    for (const one of going) one.video.pause();
    seek(lead.first + lead.count);
  }
  requestAnimationFrame(follow);
};
const play = () => {
  if (!players.length) return;
  if (frame >= total() - 1) seek(0);
  playing = true;
  at('play').textContent = 'pause';
  requestAnimationFrame(follow);
};

const show = clip => {
  if (clip === current) { mark(); return; }
  if (current) pause();
  sources.forEach(url => URL.revokeObjectURL(url));
  sources = [];
  players = [];
  current = clip;
  const [context, target] = clip.frames;
  const figures = clip.rows.some(Boolean) || clip.context || clip.truth ? [
    player('context', clip.context, 0, context), player('truth', clip.truth, context, target),
    ...data.rows.map((row, index) => player(row.title, clip.rows[index], context, target))] : [];
  at('players').replaceChildren(...figures);
  at('id').textContent = clip.id;
  at('caption').textContent = clip.caption;
  const hidden = clip.hidden_seconds === null ? '' : `hidden up to ${clip.hidden_seconds.toFixed(2)} s`;
  at('facts').textContent = [clip.split && `split ${clip.split}`, hidden, clip.reasons.join(', ')].filter(Boolean).join(' · ');
  at('missing').replaceChildren(...clip.missing.map(text => make('li', text)));
  at('scrub').max = Math.max(total() - 1, 0);
  for (const kind of ['.transport', '.scrub']) document.querySelector(kind).hidden = !players.length;
  at('plan').hidden = clip.plan === null;
  if (clip.plan !== null) Object.assign(at('plan'), {src: address(clip.plan), alt: `view from above of ${clip.id}`});
  timeline(clip);
  numbers(clip);
  mark();
  document.body.dataset.clip = clip.id;
  seek(players.some(one => one.first > 0) ? context : 0);
};
const mark = () => {
  for (const button of at('list').querySelectorAll('button')) {
    const here = button.dataset.clip === current.id;
    button.setAttribute('aria-current', here);
    if (here) {
      const list = at('list'), top = button.offsetTop - list.offsetTop;
      if (top < list.scrollTop || top + button.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top;
    }
  }
};
const svg = (name, kind, values) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  if (kind) node.setAttribute('class', kind);
  for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
  return node;
};
const timeline = clip => {
  at('timeline').replaceChildren(...clip.lanes.map(lane => {
    const row = make('div', undefined, 'lane'), name = make('span', lane.subject);
    name.title = lane.family ? `${lane.subject}: ${lane.family}` : lane.subject;
    const picture = svg('svg', '', {viewBox: `0 0 ${total()} 12`, preserveAspectRatio: 'none', height: 16, role: 'img'});
    for (const span of lane.spans) {
      const kind = span.state === 'hidden' ? 'hidden-span' : span.state;
      const box = svg('rect', kind, {x: span.first, y: 1, width: span.count, height: 10});
      const title = svg('title', '', {});
      const last = span.first + span.count - 1;
      title.textContent = `${lane.subject}: ${span.state}, frames ${span.first} to ${last}${span.reason ? `, ${span.reason}` : ''}`;
      box.append(title);
      picture.append(box);
    }
    picture.append(svg('line', 'cut', {x1: clip.frames[0], x2: clip.frames[0], y1: 0, y2: 12}));
    picture.append(svg('line', 'head', {x1: 0, x2: 0, y1: 0, y2: 12}));
    row.append(name, picture);
    return row;
  }));
  document.querySelector('#clip .legend').hidden = !clip.lanes.length;
};
const numbers = clip => {
  const table = make('table'), head = make('tr'), body = make('tbody');
  head.append(make('th', ''), ...data.rows.map(row => make('th', row.name)));
  if (clip.verdicts.some(of => of.length)) {
    const line = make('tr');
    line.append(make('th', 'verdict'), ...clip.verdicts.map(of =>
      make('td', of.map(([subject, verdict]) => of.length > 1 ? `${subject}: ${verdict}` : verdict).join(', ') || '-')));
    body.append(line);
  }
  data.columns.forEach((column, index) => {
    const line = make('tr');
    line.append(make('th', `${column.label} ${{higher: '↑', lower: '↓', neither: ''}[column.better]}`));
    data.rows.forEach((_, row) => {
      const cell = make('td', shown(valueOf(clip, row, index), column.digits));
      if (clip.values[row][index][0] === null) cell.title = clip.values[row][index][1];
      line.append(cell);
    });
    body.append(line);
  });
  const top = make('thead');
  top.append(head);
  table.append(top, body);
  at('numbers').replaceChildren(table);
};

// --- controls
const move = by => {
  const index = order.indexOf(current) + by;
  if (index >= 0 && index < order.length) show(order[index]);
};
for (const id of ['sort', 'of', 'split', 'reason', 'verdict', 'least', 'most', 'text']) at(id).addEventListener('input', relist);
at('previous').addEventListener('click', () => move(-1));
at('next').addEventListener('click', () => move(1));
at('play').addEventListener('click', () => playing ? pause() : play());
at('back').addEventListener('click', () => { pause(); seek(frame - 1); });
at('step').addEventListener('click', () => { pause(); seek(frame + 1); });
at('scrub').addEventListener('input', event => { if (playing) pause(); seek(Number(event.target.value)); });
at('scrub').addEventListener('change', event => event.target.blur());
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, select')) return;
  const pressed = {ArrowLeft: () => move(-1), ArrowRight: () => move(1), ',': () => { pause(); seek(frame - 1); },
    '.': () => { pause(); seek(frame + 1); }, ' ': () => playing ? pause() : play()}[event.key];
  if (!pressed || !current || (event.key === ' ' && event.target.closest('button, summary'))) return;
  event.preventDefault();
  pressed();
});
relist();
