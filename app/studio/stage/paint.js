// Colours, bitmaps and axes: what the views of the stage are painted with.

const FAMILY = getComputedStyle(element).fontFamily || 'sans-serif';

const hex = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

// 256 colours through evenly spaced stops, as bytes.
function ramp(stops) {
    const table = new Uint8ClampedArray(256 * 3);
    const colours = stops.map(hex);
    for (let i = 0; i < 256; i++) {
        const place = (i / 255) * (colours.length - 1), below = Math.min(colours.length - 2, Math.floor(place));
        for (let c = 0; c < 3; c++)
            table[3 * i + c] = colours[below][c] + (place - below) * (colours[below + 1][c] - colours[below][c]);
    }
    return table;
}

const shade = (table, share) => {
    const i = 3 * Math.round(255 * Math.min(1, Math.max(0, share)));
    return `rgb(${table[i]},${table[i + 1]},${table[i + 2]})`;
};

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// A picture with one pixel for each cell; row 0 of the cells lies at the bottom. `nothing` is the colour of cells without value.
function bitmap(cells, rows, columns, table, nothing) {
    const canvas = document.createElement('canvas');
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext('2d'), image = context.createImageData(columns, rows);
    const blank = nothing ? hex(nothing) : null;
    for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++) {
            const value = cells[row * columns + column], at = 4 * ((rows - 1 - row) * columns + column);
            const empty = blank && value === 0;
            for (let c = 0; c < 3; c++) image.data[at + c] = empty ? blank[c] : table[3 * value + c];
            image.data[at + 3] = 255;
        }
    context.putImageData(image, 0, 0);
    return canvas;
}

// Two canvases of one size, one over the other: `back` is painted when the sound or the layer changes, `front` when time does.
function easel(figure) {
    const holder = figure.querySelector('div');
    const made = ['back', 'front'].map((name) => {
        const canvas = document.createElement('canvas');
        canvas.className = `st-${name}`;
        holder.append(canvas);
        return canvas;
    });
    made[0].setAttribute('role', 'img');
    made[1].setAttribute('aria-hidden', 'true');
    const view = {figure, holder, back: made[0].getContext('2d'), front: made[1].getContext('2d'), width: 0, height: 0};
    view.fit = () => {
        const ratio = window.devicePixelRatio || 1;
        view.width = holder.clientWidth;
        view.height = holder.clientHeight;
        for (const context of [view.back, view.front]) {
            const [width, height] = [Math.round(view.width * ratio), Math.round(view.height * ratio)];
            if (context.canvas.width !== width || context.canvas.height !== height) {
                context.canvas.width = width;
                context.canvas.height = height;
            }
            context.setTransform(ratio, 0, 0, ratio, 0, 0);
        }
        return view.width > 0 && view.height > 0;
    };
    view.say = (text) => made[0].setAttribute('aria-label', text);
    return view;
}

// Round steps for an axis of so many units, about `count` of them.
function steps(span, count) {
    const rough = span / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
    const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), found = [];
    for (let i = 0; i * step <= span * 1.0001; i++) found.push([i * step, (i * step).toFixed(places)]);
    return found;
}

function write(context, text, x, y, colour, {align = 'left', baseline = 'middle', weight = 400, size = 11} = {}) {
    context.font = `${weight} ${size}px ${FAMILY}`;
    context.textAlign = align;
    context.textBaseline = baseline;
    context.fillStyle = colour;
    context.fillText(text, x, y);
}

// A line that is seen on any colour: dark below, bright above.
function needle(context, x1, y1, x2, y2, colours) {
    for (const [width, colour] of [[3.5, colours.halo], [1.75, colours.play]]) {
        context.beginPath();
        context.moveTo(x1, y1);
        context.lineTo(x2, y2);
        context.lineWidth = width;
        context.strokeStyle = colour;
        context.stroke();
    }
}

// A small bar of colours with what its ends mean.
function legend(place, table, low, high, unit) {
    const stops = Array.from({length: 9}, (_, i) => shade(table, i / 8)).join(',');
    const bar = document.createElement('i');
    bar.style.background = `linear-gradient(90deg,${stops})`;
    place.replaceChildren(low, bar, unit ? `${high} ${unit}` : high);
}
