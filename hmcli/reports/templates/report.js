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
  walk();
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
  timeline(clip);
  above(clip);
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
const SAID = {place: 'found in its place', off: 'found elsewhere', missed: 'seen in the truth, and nobody was found'};
const titled = (node, text) => {
  const title = svg('title', '', {});
  title.textContent = text;
  node.append(title);
  return node;
};
/** A line of the timeline: its name, and boxes that are `high` of 12 units. */
const laneOf = (name, hint, spans, kind, said) => {
  const row = make('div', undefined, `lane ${kind}`), label = make('span', name);
  label.title = hint;
  const picture = svg('svg', '', {viewBox: `0 0 ${total()} 12`, preserveAspectRatio: 'none', height: kind ? 10 : 16, role: 'img'});
  picture.setAttribute('aria-label', hint);
  for (const span of spans) {
    const low = span.state === 'missed' ? 5 : 1;
    const box = svg('rect', `is-${span.state}`, {x: span.first, y: low, width: span.count, height: 12 - 2 * low});
    const where = `frames ${span.first} to ${span.first + span.count - 1}`;
    picture.append(titled(box, `${hint}: ${said(span)}, ${where}${span.reason ? `, ${span.reason}` : ''}`));
  }
  const context = current.frames[0];
  picture.append(svg('line', 'cut', {x1: context, x2: context, y1: 0, y2: 12}), svg('line', 'head', {x1: 0, x2: 0, y1: 0, y2: 12}));
  row.append(label, picture);
  return row;
};
/** What a row made of a subject (none named: of nobody), with the verdicts on its stretches. */
const sightOf = (clip, row, subject) => {
  const name = data.rows[row].name, seen = clip.sights[row].find(one => one.subject === subject);
  const verdicts = clip.verdicts[row].filter(([of]) => of === subject).map(([, verdict]) => verdict);
  if (!seen && !verdicts.length) return [];
  const label = [name, ...verdicts].join(' · ');
  const said = span => subject ? SAID[span.state] : 'somebody who is none of the subjects';
  const line = laneOf(label, `${subject || 'others'} by ${label}`, seen ? seen.spans : [], 'sight', said);
  line.querySelector('span').classList.add(`s${row % 8}`);
  return [line];
};
/** Slots a model read (down: from the oldest) in the target frames: stronger where more layers and steps chose it. */
const memoryOf = (clip, row) => {
  const read = clip.memory[row];
  if (!read) return [];
  const {spans, starts} = read, [context, target] = clip.frames, high = spans.length;
  const known = Object.entries(read.recall).filter(([, value]) => value !== null).map(([who, value]) => `${who} ${value.toFixed(2)}`);
  const label = `${data.rows[row].name} · ${known.length ? `recall ${read.recall.model.toFixed(2)} of ${read.recall.oracle.toFixed(2)}` : 'recall not known'}`;
  const hint = `${data.rows[row].name}: ${known.length ? `recall ${known.join(', ')}` : 'recall not known'}` +
    `${read.mass === null ? '' : `; ${(100 * read.mass).toFixed(0)} % of attention goes to slots`}`;
  const line = make('div', undefined, 'lane memory'), name = make('span', label);
  name.title = hint;
  name.classList.add(`s${row % 8}`);
  const picture = svg('svg', '', {viewBox: `0 0 ${total()} ${high}`, preserveAspectRatio: 'none', height: Math.max(24, 7 * high), role: 'img'});
  picture.setAttribute('aria-label', `memory read, ${hint}`);
  picture.append(svg('rect', 'ground', {x: context, y: 0, width: target, height: high}));
  starts.forEach((start, at) => {
    const width = (at + 1 < starts.length ? starts[at + 1] : target) - start;
    spans.forEach(([first, last], slot) => {
      const share = read.share[at][slot], inside = read.inside[at].includes(slot);
      const wanted = read.relevant !== null && read.relevant[at].includes(slot);
      if (!share && !inside && !wanted) return;
      const box = svg('rect', inside ? 'inside' : 'read', {x: context + start, y: slot, width, height: 1});
      if (!inside) box.setAttribute('fill-opacity', share);
      const said = `slot ${slot}, latent frames ${first} to ${last}: chosen in ${(100 * share).toFixed(0)} % of ${read.readings} readings` +
        `${inside ? ', inside the window' : ''}${wanted ? ', shows a subject that is back' : ''}`;
      picture.append(titled(box, said));
      if (wanted) picture.append(titled(svg('rect', 'wanted', {x: context + start + width * 0.4, y: slot + 0.3, width: width * 0.2, height: 0.4}), said));
    });
  });
  picture.append(svg('line', 'cut', {x1: context, x2: context, y1: 0, y2: high}), svg('line', 'head', {x1: 0, x2: 0, y1: 0, y2: high}));
  line.append(name, picture);
  return [line];
};
const timeline = clip => {
  const rows = data.rows.map((_, row) => row), lines = [];
  for (const lane of clip.lanes) {
    const hint = lane.family ? `${lane.subject} (${lane.family})` : lane.subject;
    lines.push(laneOf(lane.subject, hint, lane.spans, '', span => span.state));
    lines.push(...rows.flatMap(row => sightOf(clip, row, lane.subject)));
  }
  const others = rows.flatMap(row => sightOf(clip, row, ''));
  if (others.length) lines.push(make('div', 'seen, and none of these', 'soft rest'), ...others);
  const memory = rows.flatMap(row => memoryOf(clip, row));
  if (memory.length) lines.push(make('div', 'memory read', 'soft rest'), ...memory);
  at('timeline').replaceChildren(...lines);
  const legend = document.querySelector('#clip .legend');
  legend.hidden = !clip.lanes.length;
  legend.querySelector('.of-rows').hidden = !clip.sights.some(of => of.length);
  document.querySelector('#clip .of-memory').hidden = !memory.length;
};

// --- from above: metres on the ground, y up
let moves = [];
const walk = () => moves.forEach(move => move());
const STEPS = [0.5, 1, 2, 5, 10, 20, 50, 100], SIDE = 420;
const above = clip => {
  moves = [];
  const ground = clip.ground, picture = at('above');
  picture.replaceChildren();
  document.querySelector('.above').hidden = ground === null;
  if (ground === null) return;
  const [context] = clip.frames, seen = clip.sights.flatMap((of, row) => of.filter(one => one.subject).map(one => ({...one, row})));
  const found = seen.flatMap(one => one.places.filter(Boolean)), truly = ground.walks.flatMap(([, places]) => places);
  const points = [...ground.eyes, ...truly, ...found];
  const [xs, ys] = [0, 1].map(axis => points.map(point => point[axis]));
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const span = Math.max(right - left, high - low, 1) * 1.12, scale = SIDE / span;
  const x = point => ((point[0] - (left + right - span) / 2) * scale).toFixed(1);
  const y = point => (((low + high + span) / 2 - point[1]) * scale).toFixed(1);
  const line = (places, kind) => svg('polyline', kind, {points: places.map(one => `${x(one)},${y(one)}`).join(' ')});
  const put = (kind, radius, place) => {
    const node = svg('circle', kind, {r: radius});
    const to = point => {
      node.setAttribute('visibility', point ? 'visible' : 'hidden');
      if (point) { node.setAttribute('cx', x(point)); node.setAttribute('cy', y(point)); }
    };
    to(place);
    return [node, to];
  };
  const reach = 1.1 * Math.max(2, ...ground.walks.flatMap(([, places]) =>
    places.map((place, index) => Math.hypot(place[0] - ground.eyes[index][0], place[1] - ground.eyes[index][1]))));
  const view = svg('path', 'view', {});
  picture.append(view, line(ground.eyes.slice(0, context + 1), 'eyes'), line(ground.eyes.slice(context), 'eyes target'));
  ground.walks.forEach(([subject, places], index) => {
    const lane = clip.lanes[index], spans = lane ? lane.spans : [{state: 'visible', first: 0, count: places.length}];
    for (const part of spans)
      picture.append(titled(line(places.slice(part.first, part.first + part.count + 1), `way ${part.state}`), `${subject}: ${part.state}`));
    const name = svg('text', '', {x: x(places[0]), y: y(places[0]), dx: 6, dy: -6});
    name.textContent = subject;
    picture.append(put('start', 3.5, places[0])[0], name);
  });
  for (const one of seen) {
    const mark = (kind, radius, place) => put(`s${one.row % 8} ${kind}`, radius, place);
    one.places.forEach((place, index) => {
      if (place) picture.append(titled(mark('found', 2, place)[0], `${one.subject} by ${data.rows[one.row].name}, target ${index}`));
    });
    const [here, to] = mark('here', 4.5, null);
    picture.append(here);
    moves.push(() => to(frame < context ? null : one.places[frame - context]));
  }
  for (const [, places] of ground.walks) {
    const [here, to] = put('true here', 5.5, places[0]);
    picture.append(here);
    moves.push(() => to(places[frame]));
  }
  const [eye, toEye] = put('eye', 4, ground.eyes[0]);
  picture.append(eye);
  moves.push(() => {
    const from = ground.eyes[frame], [ahead, aside] = ground.ahead[frame], middle = Math.atan2(aside, ahead);
    if (!from) return;
    toEye(from);
    const arc = [...Array(13)].map((_, step) => middle + ground.angle * (step / 12 - 0.5));
    const edge = arc.map(turn => [from[0] + reach * Math.cos(turn), from[1] + reach * Math.sin(turn)]);
    view.setAttribute('d', `M${[from, ...edge].map(point => `${x(point)} ${y(point)}`).join('L')}Z`);
  });
  const metres = STEPS.filter(step => step * scale <= SIDE / 4).pop() || STEPS[0];
  const bar = svg('text', '', {x: 10, y: SIDE - 16});
  bar.textContent = `${metres} m`;
  picture.append(svg('line', 'bar', {x1: 10, x2: 10 + metres * scale, y1: SIDE - 10, y2: SIDE - 10}), bar);
  picture.setAttribute('aria-label', `view from above of ${clip.id}`);
  at('found').replaceChildren(...[...new Set(seen.map(one => one.row))].map(row => {
    const key = make('span', `● ${data.rows[row].name} `);
    key.className = `s${row % 8}`;
    return key;
  }));
  walk();
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
