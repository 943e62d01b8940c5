// Live curves of a job's metrics. The value: {job, from, to, points: {name: [[step, value], ...]}}; from 0 starts anew, any
// other continues what is here. One panel for each quantity; train_, valid_ and test_ of the same quantity share one.
// Drag to zoom, double-click to see all; what was zoomed stays while points come in.
const grid = element.querySelector('.au-curves');
const log = element.querySelector('.au-curves-log input');
const bar = element.querySelector('.au-curves-bar');
const empty = element.querySelector('.au-curves-empty');
const LIGHT = ['#0072b2', '#d55e00', '#009e73', '#cc79a7'];
const DARK = ['#56b4e9', '#e69f00', '#33c29a', '#e3a1c6'];
const DASHES = [[], [5, 3], [2, 2], [7, 2, 2, 2]];
const PAD = {right: 12, top: 8, bottom: 20};
let job = null, to = 0, series = new Map(), panels = new Map(), zoom = null, hover = null, waiting = false;

function take() {
    const value = props.value;
    if (!value) return;
    if (value.from === 0) {
        if (value.job !== job) zoom = null;
        job = value.job;
        series = new Map();
    } else if (value.job !== job || value.from > to) {
        trigger('missed', {});  // pieces that came while this tab was not drawn
        return;
    } else if (value.from < to) {
        return;
    }
    to = value.to;
    for (const [name, points] of Object.entries(value.points ?? {})) {
        if (!series.has(name)) series.set(name, []);
        const line = series.get(name);
        for (const point of points) {
            while (line.length && line[line.length - 1][0] >= point[0]) line.pop();
            line.push(point);
        }
    }
    layout();
    draw();
}

const quantity = name => name.replace(/^(train|valid|validation|dev|test)[_/]/, '');

function layout() {
    const groups = new Map();
    for (const name of series.keys()) {
        const of = quantity(name);
        if (!groups.has(of)) groups.set(of, []);
        groups.get(of).push(name);
    }
    for (const [of, panel] of panels) if (!groups.has(of)) { panel.box.remove(); panels.delete(of); }
    for (const [of, names] of groups) {
        if (!panels.has(of)) panels.set(of, build(of));
        panels.get(of).names = names.sort();
    }
    bar.hidden = !groups.size;
    empty.hidden = groups.size > 0 || !job;
    empty.textContent = props.value?.none ?? '';
}

function build(of) {
    const box = document.createElement('figure');
    box.className = 'au-curve';
    box.innerHTML = '<figcaption><b></b><span></span></figcaption><canvas role="img"></canvas>';
    box.querySelector('b').textContent = of.replaceAll('_', ' ');
    grid.append(box);
    const panel = {box, of, names: [], canvas: box.querySelector('canvas'), said: box.querySelector('span')};
    let from = null;
    const step = event => {
        const frame = panel.frame;
        if (!frame) return null;
        const share = (event.offsetX - frame.left) / (panel.canvas.clientWidth - frame.left - PAD.right);
        return frame.x0 + Math.min(1, Math.max(0, share)) * (frame.x1 - frame.x0);
    };
    panel.canvas.addEventListener('pointerdown', event => { from = step(event); panel.canvas.setPointerCapture(event.pointerId); });
    panel.canvas.addEventListener('pointermove', event => {
        hover = step(event);
        panel.drag = from === null ? null : [from, hover];
        draw();
    });
    panel.canvas.addEventListener('pointerup', event => {
        const end = step(event);
        const frame = panel.frame;
        if (from !== null && frame && Math.abs(end - from) > (frame.x1 - frame.x0) / 50) zoom = [Math.min(from, end), Math.max(from, end)];
        from = panel.drag = null;
        draw();
    });
    panel.canvas.addEventListener('pointerleave', () => { hover = null; draw(); });
    panel.canvas.addEventListener('dblclick', () => { zoom = null; draw(); });
    return panel;
}

function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; for (const panel of panels.values()) paint(panel); });
}

const said = value => {
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(1) : String(+value.toPrecision(4));
};

function ticks(low, high, count) {
    const rough = (high - low) / count, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(m => m * unit).find(s => s >= rough);
    const made = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) made.push(+at.toPrecision(12));
    return made;
}

function paint(panel) {
    const {canvas} = panel, width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(element), dark = document.body.classList.contains('dark');
    const ink = style.getPropertyValue('--au-faint') || '#666', rule = style.getPropertyValue('--au-line') || '#ddd';
    const colours = dark ? DARK : LIGHT;
    const pen = canvas.getContext('2d');
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = '11px system-ui, sans-serif';

    const lines = panel.names.map(name => series.get(name));
    let x0 = Infinity, x1 = -Infinity;
    for (const line of lines) { x0 = Math.min(x0, line[0][0]); x1 = Math.max(x1, line[line.length - 1][0]); }
    if (zoom) [x0, x1] = zoom;
    if (x1 <= x0) { x0 -= .5; x1 += .5; }
    let y0 = Infinity, y1 = -Infinity;
    const logged = log.checked && lines.every(line => line.every(point => point[1] > 0));
    const scale = logged ? Math.log10 : (value => value);
    for (const line of lines) for (const [x, y] of line) if (x >= x0 && x <= x1) { y0 = Math.min(y0, scale(y)); y1 = Math.max(y1, scale(y)); }
    if (y0 === Infinity) { y0 = 0; y1 = 1; }
    if (y1 - y0 < 1e-12) { const some = Math.abs(y0) * .05 || .5; y0 -= some; y1 += some; }
    const room = (y1 - y0) * .06;
    y0 -= room; y1 += room;
    const levels = ticks(y0, y1, 4), words = levels.map(tick => said(logged ? 10 ** tick : tick));
    const left = Math.max(30, ...words.map(word => pen.measureText(word).width)) + 10;
    panel.frame = {x0, x1, left};
    const px = x => left + (x - x0) / (x1 - x0) * (width - left - PAD.right);
    const py = y => height - PAD.bottom - (scale(y) - y0) / (y1 - y0) * (height - PAD.top - PAD.bottom);
    const level = y => height - PAD.bottom - (y - y0) / (y1 - y0) * (height - PAD.top - PAD.bottom);

    pen.fillStyle = ink; pen.strokeStyle = rule; pen.lineWidth = 1;
    pen.textAlign = 'right'; pen.textBaseline = 'middle';
    levels.forEach((tick, index) => {
        const y = Math.round(level(tick)) + .5;
        pen.beginPath(); pen.moveTo(left, y); pen.lineTo(width - PAD.right, y); pen.stroke();
        pen.fillText(words[index], left - 6, y);
    });
    pen.textAlign = 'center'; pen.textBaseline = 'top';
    for (const tick of ticks(x0, x1, Math.max(2, width / 90))) pen.fillText(tick.toLocaleString('en'), px(tick), height - PAD.bottom + 5);

    pen.save();
    pen.beginPath(); pen.rect(left, 0, width - left - PAD.right, height - PAD.bottom + 1); pen.clip();
    lines.forEach((line, index) => {
        pen.strokeStyle = pen.fillStyle = colours[index % 4];
        pen.lineWidth = 1.75; pen.lineJoin = 'round';
        pen.setLineDash(DASHES[index % 4]);
        pen.beginPath();
        line.forEach(([x, y], at) => at ? pen.lineTo(px(x), py(y)) : pen.moveTo(px(x), py(y)));
        pen.stroke();
        pen.setLineDash([]);
        if (line.length < 25) for (const [x, y] of line) { pen.beginPath(); pen.arc(px(x), py(y), 2.2, 0, 7); pen.fill(); }
    });
    if (panel.drag) { pen.fillStyle = dark ? '#ffffff22' : '#00000014'; pen.fillRect(px(panel.drag[0]), 0, px(panel.drag[1]) - px(panel.drag[0]), height); }
    const at = hover === null ? null : nearest(lines[0], hover);
    if (at !== null) { pen.strokeStyle = ink; pen.beginPath(); pen.moveTo(px(at), PAD.top); pen.lineTo(px(at), height - PAD.bottom); pen.stroke(); }
    pen.restore();

    panel.said.replaceChildren();
    panel.names.forEach((name, index) => {
        const line = lines[index], value = at === null ? line[line.length - 1][1] : line.find(point => point[0] === nearest(line, at))[1];
        const part = name === panel.of ? '' : name.slice(0, name.length - panel.of.length - 1) + ' ';
        const word = document.createElement('span');
        word.style.color = colours[index % 4];
        word.textContent = `${part}${said(value)}`;
        panel.said.append(word);
    });
    if (at !== null) panel.said.append(` at ${at.toLocaleString('en')}`);
    canvas.setAttribute('aria-label', `${panel.of.replaceAll('_', ' ')} over steps: ${panel.said.textContent}`);
}

function nearest(line, x) {
    let low = 0, high = line.length - 1;
    while (high - low > 1) { const mid = (low + high) >> 1; if (line[mid][0] < x) low = mid; else high = mid; }
    return Math.abs(line[low][0] - x) <= Math.abs(line[high][0] - x) ? line[low][0] : line[high][0];
}

log.addEventListener('change', draw);
new ResizeObserver(draw).observe(grid);
new MutationObserver(draw).observe(document.body, {attributes: true, attributeFilter: ['class']});
watch('value', take);
take();
