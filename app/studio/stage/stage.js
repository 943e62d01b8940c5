// The stage: one sound and every layer of one upstream, held together by one playhead and one layer.
// `props.value` is a scene (see scene() in pages/listen.py). Text of a scene is only ever written as text.

const GUTTER = 46, EDGE = 8, NARROW = 28; // left and right of a view in pixels; left of the square
const find = (selector) => element.querySelector(selector);
const stage = find('.st-stage'), sound = find('audio'), slider = find('.st-layer input'), tip = find('.st-tip');
const views = Object.fromEntries([...element.querySelectorAll('.st-view')].map((figure) => [figure.dataset.view, easel(figure)]));
const kept = {layer: null, of: '', measure: 'change', layout: 'pca', colour: 'time'};
let scene = null, time = 0, layer = 0, waiting = 0, asked = 0;

// ---- what the theme says ------------------------------------------------------------------------------------------------

let look = {};
function readTheme() {
    const dark = document.body.classList.contains('dark'), theme = dark ? 'dark' : 'light';
    const style = getComputedStyle(stage), colour = (name) => style.getPropertyValue(name).trim();
    look = {
        ink: colour('--au-ink'), faint: colour('--au-faint'), line: colour('--au-line'), wave: colour('--au-wave'),
        nothing: colour('--au-nothing'), play: colour('--au-play'), halo: colour('--au-halo'), paper: colour('--au-paper'),
        magnitude: ramp(props.palettes.magnitude), sound: ramp(props.palettes.sound),
        difference: ramp(props.palettes.difference[theme]), runs: props.palettes.runs[theme],
    };
}

// ---- from a scene to arrays ---------------------------------------------------------------------------------------------

function take(value) {
    const layers = value.layers.length;
    const made = {...value, count: layers};
    made.peaks = new Int8Array(bytes(value.peaks).buffer);
    made.mel = {...value.mel, cells: bytes(value.mel.cells)};
    made.maps = value.maps.map((map) => ({...map, cells: bytes(map.cells)}));
    made.alike = bytes(value.similarity);
    made.planes = {pca: new Int16Array(bytes(value.plane).buffer)};
    made.end = value.frames * value.hop; // seconds that frames cover
    return made;
}

const frameAt = (seconds) => Math.min(scene.frames - 1, Math.max(0, Math.floor(seconds / scene.hop + 1e-6)));
const columnAt = (seconds) => Math.min(scene.columns - 1, Math.floor(frameAt(seconds) / scene.columnFrames));
const cellAt = (seconds) => Math.min(scene.cells - 1, Math.floor(frameAt(seconds) / scene.cellFrames));
const columnTime = (column) => Math.min(scene.end, (column + 0.5) * scene.columnFrames * scene.hop);
const cellTime = (cell) => Math.min(scene.end, (cell + 0.5) * scene.cellFrames * scene.hop);
const map = () => scene.maps.find((one) => one.id === kept.measure) ?? scene.maps[0];
const similar = (a, b) => scene.alike[(layer * scene.cells + a) * scene.cells + b] / 127.5 - 1;
const label = (tier, seconds) => (scene.tiers[tier] ?? []).find((span) => seconds >= span[0] && seconds < span[1])?.[2] ?? '';
const seconds = (value) => `${value.toFixed(2)} s`;

function valueAt(row, column) {
    const shown = map(), step = shown.cells[row * scene.columns + column];
    return step ? shown.low + ((step - 1) / 254) * (shown.high - shown.low) : null;
}

function tell(row, at) {
    const value = valueAt(row, columnAt(at)), shown = map();
    const said = [scene.layers[row].short, seconds(at), `${shown.title.toLowerCase()} ${value === null ? '–' : value.toFixed(2)}`];
    for (const tier of Object.keys(scene.tiers)) if (label(tier, at)) said.push(`${tier} ${label(tier, at)}`);
    return said.join('  ·  ');
}

// ---- painting -----------------------------------------------------------------------------------------------------------

const across = (view) => view.width - GUTTER - EDGE;
const toX = (view, at) => GUTTER + (at / scene.seconds) * across(view);
const toTime = (view, x) => Math.min(scene.seconds, Math.max(0, ((x - GUTTER) / across(view)) * scene.seconds));

const painters = {
    wave(view) {
        const {back: pen, height} = view, columns = scene.peaks.length / 2, middle = height / 2;
        const most = Math.max(8, ...scene.peaks.map(Math.abs)), scale = (height / 2 - 3) / most;
        pen.fillStyle = look.wave;
        for (let i = 0; i < columns; i++) {
            const x = GUTTER + (i / columns) * across(view), top = middle - scene.peaks[columns + i] * scale;
            pen.fillRect(x, top, Math.max(1, across(view) / columns), Math.max(1, (scene.peaks[columns + i] - scene.peaks[i]) * scale));
        }
        const loudest = scene.peaks.some(Boolean) ? `loudest at ${Math.round(20 * Math.log10(most / 127)) || 0} dB of full scale` : 'silence';
        view.figure.querySelector('.st-key').textContent = loudest;
        view.say(`Waveform of ${scene.clip}, ${seconds(scene.seconds)}, ${loudest}.`);
    },
    mel(view) {
        const {back: pen, height} = view, {rows, columns, cells, low} = scene.mel;
        pen.imageSmoothingEnabled = true;
        pen.drawImage(bitmap(cells, rows, columns, look.sound), GUTTER, 0, across(view), height);
        const mels = (hertz) => 2595 * Math.log10(1 + hertz / 700);
        for (const [hertz, name] of [[500, '0.5'], [1000, '1'], [2000, '2'], [4000, '4 kHz']]) {
            const y = height * (1 - mels(hertz) / mels(8000));
            write(pen, name, GUTTER - 6, y, look.faint, {align: 'right', size: 10});
            pen.fillStyle = look.faint;
            pen.fillRect(GUTTER - 4, y, 4, 1);
        }
        legend(view.figure.querySelector('.st-key'), look.sound, `${low}`, '0', 'dB');
        view.say('Log-mel spectrogram, 0 to 8 kilohertz, decibels below the loudest cell.');
    },
    tiers(view) {
        const {back: pen} = view, names = Object.keys(scene.tiers);
        names.forEach((tier, row) => {
            const top = row * 19;
            write(pen, tier, GUTTER - 6, top + 9, look.faint, {align: 'right', size: 10});
            let free = 0;
            for (const [start, end, text] of scene.tiers[tier]) {
                const x = toX(view, start), width = toX(view, end) - x;
                pen.fillStyle = look.line;
                pen.fillRect(x, top + 1, 1, 16);
                pen.fillRect(x + width, top + 1, 1, 16);
                pen.font = `${tier === 'word' ? 700 : 400} 11px ${FAMILY}`;
                const needed = pen.measureText(text).width, left = x + width / 2 - needed / 2;
                if (left < free + 2) continue;
                free = left + needed;
                write(pen, text, x + width / 2, top + 9, look.ink, {align: 'center', weight: tier === 'word' ? 700 : 400});
            }
        });
        view.say(names.map((tier) => `${tier}s: ${scene.tiers[tier].map((span) => span[2]).join(' ')}`).join('. '));
    },
    map(view) {
        const {back: pen, height} = view, shown = map(), deep = height - 18, row = deep / scene.count;
        pen.imageSmoothingEnabled = false;
        const picture = bitmap(shown.cells, scene.count, scene.columns, look.magnitude, look.nothing);
        pen.drawImage(picture, GUTTER, 0, toX(view, scene.end) - GUTTER, deep);
        const every = [1, 2, 3, 4, 6, 8, 12].find((count) => count * row >= 11.5) ?? 24;
        for (let i = 0; i < scene.count; i += every)
            write(pen, i || scene.count === 1 ? `${i}` : 'input', GUTTER - 8, deep - (i + 0.5) * row, look.faint, {align: 'right', size: 10});
        for (const [at, text] of steps(scene.seconds, across(view) / 70)) {
            const x = toX(view, at);
            pen.fillStyle = look.faint;
            pen.fillRect(Math.round(x), deep, 1, 4);
            write(pen, text, x, deep + 11, look.faint, {align: at ? 'center' : 'left', size: 10});
        }
        write(pen, 'seconds', GUTTER - 8, deep + 11, look.faint, {align: 'right', size: 10});
        legend(view.figure.querySelector('.st-key'), look.magnitude, shown.low.toFixed(shown.low ? 2 : 0), shown.high.toFixed(2), '');
        view.say(`${shown.title} for ${scene.count} layers over ${seconds(scene.seconds)}: ${shown.about}`);
    },
    alike(view) {
        const {back: pen} = view, side = sideOf(view), size = scene.cells * scene.cells;
        pen.imageSmoothingEnabled = false;
        // Time runs right and up, as in every other view.
        pen.drawImage(bitmap(scene.alike.subarray(layer * size, (layer + 1) * size), scene.cells, scene.cells, look.difference), NARROW, 0, side, side);
        for (const [at, text] of steps(scene.end, side / 60)) {
            const share = at / scene.end;
            if (share > 0.93) continue;
            write(pen, text, NARROW + share * side, side + 10, look.faint, {align: share ? 'center' : 'left', size: 10});
            write(pen, text, NARROW - 6, side - Math.max(5, share * side), look.faint, {align: 'right', size: 10});
        }
        write(pen, 's', NARROW + side, side + 10, look.faint, {align: 'right', size: 10});
        legend(view.figure.querySelector('.st-key'), look.difference, '−1', '1', 'cosine');
        view.say(`Similarity of every frame to every other at ${scene.layers[layer].long}.`);
    },
    plane(view) {
        const {back: pen} = view, points = spots(view), radius = points.length > 250 ? 2.2 : 3;
        pen.strokeStyle = look.line;
        pen.lineWidth = 0.75;
        pen.globalAlpha = 0.5;
        pen.beginPath();
        points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
        pen.stroke();
        pen.globalAlpha = 1;
        pen.strokeStyle = look.faint;
        const kinds = [...new Set((scene.tiers[kept.colour] ?? []).map((span) => span[2]))];
        points.forEach(([x, y], i) => {
            const at = columnTime(i), kind = kinds.indexOf(label(kept.colour, at));
            pen.fillStyle = kept.colour === 'time' ? shade(look.sound, at / scene.end) : kind < 0 ? look.line : look.runs[kind % look.runs.length];
            pen.beginPath();
            if (kept.colour !== 'time' && Math.floor(kind / look.runs.length) % 2) pen.rect(x - radius, y - radius, 2 * radius, 2 * radius);
            else pen.arc(x, y, radius, 0, 7);
            pen.fill();
            pen.stroke(); // dark points are seen on a dark ground too
        });
        if (kept.colour !== 'time') nameSpots(pen, points, kinds);
        else timeKey(pen, view);
        const isPca = kept.layout === 'pca' || !scene.planes.umap, share = isPca ? scene.shares[layer] : null;
        const said = isPca ? `PCA${share === null ? '' : `, ${(100 * share).toFixed(0)} % of the variance`}` : 'UMAP, 15 neighbours, cosine';
        write(pen, said, 4, view.height - 7, look.faint, {size: 10});
        view.say(`${said}: ${points.length} points, one for each ${scene.columnFrames > 1 ? `${scene.columnFrames} frames` : 'frame'} of ${scene.layers[layer].long}.`);
    },
};

const sideOf = (view) => Math.max(40, Math.min(view.width - NARROW - EDGE, view.height - 18));

function spots(view) {
    const plane = scene.planes[kept.layout] ?? scene.planes.pca, count = scene.columns, from = layer * count * 2;
    // One scale for all layers, so that a scrub shows change and not zoom.
    plane.reach ??= Float64Array.from(plane, Math.abs).sort()[Math.floor(plane.length * 0.985)] || 1;
    const scale = Math.min((view.width - 24) / 2, (view.height - 34) / 2) / plane.reach, middle = [view.width / 2, (view.height - 14) / 2 + 2];
    const wide = Math.min(1.6, (view.width - 24) / Math.max(1, view.height - 34));
    const within = (value, most) => Math.min(most - 6, Math.max(6, value)); // the few that lie far off stand at the edge
    return Array.from({length: count}, (_, i) => [
        within(middle[0] + plane[from + 2 * i] * scale * wide, view.width),
        within(middle[1] - plane[from + 2 * i + 1] * scale, view.height - 14),
    ]);
}

function nameSpots(pen, points, kinds) {
    const taken = [];
    for (const [start, end, text] of scene.tiers[kept.colour]) {
        const inside = points.filter((_, i) => columnTime(i) >= start && columnTime(i) < end);
        if (!inside.length || !text.trim()) continue;
        const [x, y] = [0, 1].map((axis) => inside.reduce((sum, point) => sum + point[axis], 0) / inside.length);
        if (taken.some(([u, v]) => Math.abs(u - x) < 5 * text.length + 8 && Math.abs(v - y) < 12)) continue;
        taken.push([x, y]);
        pen.lineWidth = 3;
        pen.strokeStyle = look.paper;
        pen.font = `700 12px ${FAMILY}`;
        pen.textAlign = 'center';
        pen.textBaseline = 'middle';
        pen.strokeText(text, x, y);
        write(pen, text, x, y, look.runs[kinds.indexOf(text) % look.runs.length], {align: 'center', weight: 700, size: 12});
    }
}

function timeKey(pen, view) {
    const [width, x, y] = [56, view.width - 92, view.height - 11];
    for (let i = 0; i < width; i++) {
        pen.fillStyle = shade(look.sound, i / (width - 1));
        pen.fillRect(x + i, y, 1, 7);
    }
    write(pen, '0', x - 4, y + 4, look.faint, {align: 'right', size: 10});
    write(pen, `${scene.end.toFixed(1)} s`, x + width + 4, y + 4, look.faint, {size: 10});
}

const pointers = {
    wave: upright, mel: upright, tiers: upright,
    map(view) {
        const {front: pen, height} = view, deep = height - 18, row = deep / scene.count, y = deep - (layer + 1) * row;
        pen.lineWidth = 3.5;
        pen.strokeStyle = look.halo;
        pen.strokeRect(GUTTER, y, across(view), row);
        pen.lineWidth = 1.5;
        pen.strokeStyle = look.play;
        pen.strokeRect(GUTTER, y, across(view), row);
        pen.beginPath();
        pen.moveTo(GUTTER - 5, y + row / 2 - 4);
        pen.lineTo(GUTTER - 1, y + row / 2);
        pen.lineTo(GUTTER - 5, y + row / 2 + 4);
        pen.fillStyle = look.play;
        pen.fill();
        needle(pen, toX(view, time), 0, toX(view, time), deep, look);
    },
    alike(view) {
        const {front: pen} = view, side = sideOf(view), at = Math.min(1, time / scene.end) * side;
        needle(pen, NARROW + at, 0, NARROW + at, side, look);
        needle(pen, NARROW, side - at, NARROW + side, side - at, look);
    },
    plane(view) {
        const {front: pen} = view, points = spots(view), now = columnAt(time);
        pen.strokeStyle = look.play;
        pen.lineWidth = 1.5;
        for (let i = Math.max(1, now - 5); i <= now; i++) {
            pen.globalAlpha = (i - now + 6) / 7;
            pen.beginPath();
            pen.moveTo(...points[i - 1]);
            pen.lineTo(...points[i]);
            pen.stroke();
        }
        pen.globalAlpha = 1;
        const [x, y] = points[now];
        for (const [radius, colour] of [[8, look.halo], [6.5, look.play], [3.5, look.paper]]) {
            pen.beginPath();
            pen.arc(x, y, radius, 0, 7);
            pen.fillStyle = colour;
            pen.fill();
        }
    },
};

function upright(view) {
    needle(view.front, toX(view, time), 0, toX(view, time), view.height, look);
}

function paint(...names) {
    if (!scene) return;
    const began = performance.now();
    for (const name of names.length ? names : Object.keys(views)) {
        const view = views[name];
        if (name === 'tiers') view.figure.hidden = !Object.keys(scene.tiers).length;
        if (view.figure.hidden || !view.fit()) continue;
        view.back.clearRect(0, 0, view.width, view.height);
        painters[name](view);
    }
    point();
    stage.dataset.painted = (performance.now() - began).toFixed(1);
}

function point() {
    if (!scene) return;
    for (const [name, view] of Object.entries(views)) {
        if (view.figure.hidden || !view.width) continue;
        view.front.clearRect(0, 0, view.width, view.height);
        pointers[name](view);
    }
    find('.st-clock').textContent = `${time.toFixed(2)} / ${scene.seconds.toFixed(2)} s`;
    find('.st-read').textContent = tell(layer, Math.min(time, scene.end - 1e-6));
    Object.assign(stage.dataset, {time: time.toFixed(4), layer, frame: frameAt(time)});
}

// ---- one playhead, one layer --------------------------------------------------------------------------------------------

function seek(at, {heard = true} = {}) {
    time = Math.min(scene.seconds, Math.max(0, at));
    if (heard) sound.currentTime = time;
    point();
}

function scrub(to) {
    const next = Math.min(scene.count - 1, Math.max(0, to));
    if (next === layer && Number(slider.value) === next) return;
    layer = next;
    nameLayer();
    paint('alike', 'plane');
}

function nameLayer() {
    slider.value = layer;
    kept.layer = layer;
    find('.st-layer output').textContent = layer;
    find('.st-layer i').textContent = scene.layers[layer].about;
    slider.setAttribute('aria-valuetext', scene.layers[layer].long);
}

function follow() {
    if (!sound.paused && scene) {
        seek(sound.currentTime, {heard: false});
        requestAnimationFrame(follow);
    }
}

const play = () => (sound.paused ? (sound.currentTime >= sound.duration - 0.01 && seek(0), sound.play()) : sound.pause());

// ---- hands --------------------------------------------------------------------------------------------------------------

function under(name, view, x, y) {
    if (name === 'alike') {
        const side = sideOf(view), share = (value) => Math.min(0.9999, Math.max(0, value / side));
        const [a, b] = [share(x - NARROW), share(side - y)].map((part) => Math.floor(part * scene.cells));
        const names = [a, b].map((cell) => label('phone', cellTime(cell)) || '·'), spoken = scene.tiers.phone ? `  ·  ${names[0]} and ${names[1]}` : '';
        return {at: cellTime(a), text: `${seconds(cellTime(a))} and ${seconds(cellTime(b))}  ·  cosine ${similar(b, a).toFixed(2)}${spoken}`};
    }
    if (name === 'plane') {
        const away = spots(view).map(([u, v]) => (u - x) ** 2 + (v - y) ** 2), nearest = away.indexOf(Math.min(...away));
        return {at: columnTime(nearest), text: away[nearest] < 400 ? tell(layer, columnTime(nearest)) : ''};
    }
    const at = toTime(view, x);
    if (name !== 'map') return {at, text: [seconds(at), ...Object.keys(scene.tiers).map((tier) => label(tier, at))].filter(Boolean).join('  ·  ')};
    const row = Math.min(scene.count - 1, Math.max(0, Math.floor((1 - y / (view.height - 18)) * scene.count)));
    return {at, row, text: tell(row, Math.min(at, scene.end - 1e-6))};
}

for (const [name, view] of Object.entries(views)) {
    let held = false;
    const act = (event) => {
        const box = view.holder.getBoundingClientRect(), hit = under(name, view, event.clientX - box.left, event.clientY - box.top);
        if (held) {
            seek(hit.at);
            if (hit.row !== undefined) scrub(hit.row);
        }
        tip.hidden = !hit.text;
        tip.textContent = hit.text;
        const frame = stage.getBoundingClientRect(), left = event.clientX - frame.left, top = event.clientY - frame.top;
        tip.style.left = `${Math.max(4, Math.min(left + 14, frame.width - tip.offsetWidth - 8))}px`;
        tip.style.top = `${top > 60 ? top - tip.offsetHeight - 10 : top + 18}px`;
    };
    view.holder.addEventListener('pointerdown', (event) => {
        if (!scene || event.button) return;
        held = true;
        view.holder.setPointerCapture(event.pointerId);
        stage.focus({preventScroll: true});
        act(event);
    });
    view.holder.addEventListener('pointermove', (event) => scene && act(event));
    view.holder.addEventListener('pointerup', () => (held = false));
    view.holder.addEventListener('pointercancel', () => (held = false));
    view.holder.addEventListener('pointerleave', () => (tip.hidden = true));
}

slider.addEventListener('input', () => scrub(Number(slider.value)));
find('.st-play').addEventListener('click', () => scene && play());
for (const kind of ['play', 'pause', 'ended'])
    sound.addEventListener(kind, () => {
        stage.classList.toggle('st-playing', !sound.paused);
        find('.st-play').setAttribute('aria-label', sound.paused ? 'Play' : 'Pause');
        follow();
    });

function press(event) {
    if (!element.isConnected) return document.removeEventListener('keydown', press);
    if (!scene || event.ctrlKey || event.metaKey || event.altKey || !stage.offsetParent || !find('.st-alert').hidden) return;
    const inside = stage.contains(event.target), typing = event.target.closest?.('input:not([type=range]),textarea,select,[contenteditable]');
    if (typing || !(inside || event.target === document.body)) return;
    if (event.target.closest?.('button') && (event.key === ' ' || event.key === 'Enter')) return;
    const stride = (event.shiftKey ? 10 : 1) * scene.hop, here = frameAt(time) * scene.hop;
    const move = {
        ' ': play, ArrowLeft: () => seek(here - stride), ArrowRight: () => seek(here + stride), Home: () => seek(0),
        End: () => seek(scene.end), ArrowUp: () => scrub(layer + 1), ArrowDown: () => scrub(layer - 1),
    }[event.key];
    if (!move) return;
    event.preventDefault();
    move();
}
document.addEventListener('keydown', press);

// ---- choices ------------------------------------------------------------------------------------------------------------

function choose(name, options) {
    const place = find(`[data-choose=${name}]`);
    place.replaceChildren(...options.map(([id, text, about, off]) => {
        const button = document.createElement('button');
        Object.assign(button, {type: 'button', textContent: text, title: about, disabled: !!off});
        button.dataset.id = id;
        button.setAttribute('role', 'radio');
        button.setAttribute('aria-checked', kept[name] === id);
        button.addEventListener('click', () => pick(name, id));
        return button;
    }));
}

function pick(name, id) {
    kept[name] = id;
    for (const button of find(`[data-choose=${name}]`).children) button.setAttribute('aria-checked', button.dataset.id === id);
    if (name === 'layout' && id === 'umap' && !scene.planes.umap) layOut();
    paint(name === 'measure' ? 'map' : 'plane');
}

// UMAP is made when it is first asked for; until it is there, the plane of PCA stays.
async function layOut() {
    const mine = scene, figure = views.plane.figure;
    if (mine.layingOut) return;
    mine.layingOut = true;
    figure.dataset.says = 'UMAP is being laid out. The first time takes up to a minute.';
    let answer;
    try {
        answer = await server.lay_out(mine.key);
    } catch {
        answer = {error: 'The server did not answer; try again.'};
    }
    mine.layingOut = false;
    if (scene !== mine) return;
    delete figure.dataset.says;
    if (answer.error) {
        pick('layout', 'pca');
        figure.dataset.says = answer.error;
        setTimeout(() => scene === mine && delete figure.dataset.says, 8000);
    } else {
        mine.planes.umap = new Int16Array(bytes(answer.plane).buffer);
        paint('plane');
    }
}

// ---- a new scene --------------------------------------------------------------------------------------------------------

function arrive() {
    const value = props.value;
    if (!value || value.number === undefined || value.number < asked) return; // a later request was quicker
    asked = value.number;
    clearInterval(waiting);
    stage.classList.remove('st-waiting', 'st-working');
    stage.removeAttribute('aria-busy');
    const alert = find('.st-alert');
    alert.hidden = !value.error;
    stage.classList.toggle('st-refused', !!value.error);
    sound.pause();
    if (value.error) {
        alert.querySelector('h3').textContent = value.error.title;
        alert.querySelector('p').textContent = value.error.sentence;
        find('.st-read').textContent = '';
        return;
    }
    scene = take(value);
    delete views.plane.figure.dataset.says;
    URL.revokeObjectURL(sound.src);
    sound.src = URL.createObjectURL(new Blob([bytes(value.audio)], {type: 'audio/wav'}));
    layer = kept.of === value.upstream && kept.layer !== null ? Math.min(kept.layer, scene.count - 1) : Math.round((scene.count - 1) * 0.6);
    kept.of = value.upstream;
    if (!scene.maps.some((one) => one.id === kept.measure)) kept.measure = scene.maps[0].id;
    if (!scene.tiers[kept.colour]) kept.colour = 'time';
    kept.layout = 'pca';
    time = 0;
    slider.max = scene.count - 1;
    slider.disabled = scene.count === 1;
    find('.st-clip').textContent = value.clip;
    find('.st-by').textContent = `heard by ${value.upstream}`;
    find('.st-sound').textContent = value.said;
    find('.st-facts').textContent = value.facts;
    find('.st-note').textContent = value.note;
    find('.st-note').hidden = !value.note;
    stage.dataset.number = value.number;
    const unlabelled = 'This sound has no known times of its phones';
    choose('measure', scene.maps.map((one) => [one.id, one.title, one.about]));
    choose('layout', [['pca', 'PCA', 'The first two principal components, turned onto those of the layer below'], ['umap', 'UMAP', 'Keeps neighbours together; made when asked for']]);
    choose('colour', [['time', 'Time', 'Coloured by time'], ...['phone', 'word'].filter((tier) => tier === 'phone' || scene.tiers[tier]).map((tier) => [tier, tier[0].toUpperCase() + tier.slice(1), scene.tiers[tier] ? `Coloured by ${tier}` : unlabelled, !scene.tiers[tier]])]);
    nameLayer();
    readTheme();
    paint();
}

function wait(event) {
    clearInterval(waiting);
    const began = performance.now(), words = find('.st-busy span');
    const say = () => {
        const spent = Math.floor((performance.now() - began) / 1000);
        words.textContent = `${event?.detail ?? 'Listening'} …${spent > 1 ? ` ${spent} s` : ''}`;
    };
    say();
    waiting = setInterval(say, 500);
    stage.classList.add('st-working');
    stage.setAttribute('aria-busy', 'true');
}

window.addEventListener('auscult-listen', wait);
new ResizeObserver(() => requestAnimationFrame(() => paint())).observe(find('.st-grid'));
new MutationObserver(() => (readTheme(), paint())).observe(document.body, {attributes: true, attributeFilter: ['class']});
watch('value', arrive);
readTheme();
if (props.value?.number === undefined) wait({detail: 'The engine wakes up'});
else arrive();
