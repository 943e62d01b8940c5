// The list of models: what fits the search and the filters, in the chosen order. Rows are kept by name.

function offerFilters() {
    const offer = (by, all, values) => {
        const box = find(`select[data-by=${by}]`);
        const options = [['', all], ...[...new Map(values)].sort((a, b) => a[1].localeCompare(b[1]))];
        box.replaceChildren(...options.map(([value, text]) => make('option', '', text, {value})));
        box.value = filter[by];
    };
    offer('family', 'All families', models.map(model => [model.family, model.family]));
    offer('language', 'All languages', models.flatMap(model => model.languages.map(code => [code, language(code)])));
}

function fits(model) {
    const [low, high] = filter.weights.split('-').map(Number);
    return search.value.toLowerCase().split(/\s+/).every(word => model.search.includes(word))
        && (!filter.family || model.family === filter.family)
        && (!filter.language || model.languages.includes(filter.language))
        && (!filter.weights || (model.parameters > low && model.parameters <= high))
        && (!filter.place || PLACES[filter.place].includes(model.mark));
}

function ordered() {
    const value = model => sort.by === 'parameters' ? model.parameters || model.bytes / 4 : model[sort.by];
    const compare = (a, b) => sort.by === 'title'
        ? a.title.localeCompare(b.title, 'en', {numeric: true}) : value(a) - value(b);
    return models.filter(fits).sort((a, b) => (sort.down ? -1 : 1) * compare(a, b) || a.name.localeCompare(b.name));
}

function makeRow(name) {
    const row = make('tr', '', '', {tabindex: '-1'});
    row.dataset.name = name;
    for (const kind of ['model', 'layers', 'size', 'mark']) {
        const cell = make('td', `hub-${kind}`);
        cell.append(make('b'), make('span'));
        row.append(cell);
    }
    row.firstElementChild.firstElementChild.after(make('i'));
    return row;
}

function writeRow(row, model) {
    const cell = (kind, part) => row.querySelector(`.hub-${kind} > ${part}`);
    put(cell('model', 'b'), model.title);
    put(cell('model', 'i'), model.rest);
    put(cell('model', 'span'), model.name);
    row.firstElementChild.title = model.about;
    put(cell('layers', 'b'), model.shape);
    put(cell('layers', 'span'), model.family);
    put(cell('size', 'b'), model.weights);
    put(cell('size', 'span'), model.size);
    const moving = transfers.get(model.name);
    const share = MOVING.includes(moving?.state) ? moving.share === null ? moving.text : `${Math.floor(moving.share * 100)} %` : '';
    put(cell('mark', 'b'), share ? 'Fetching' : MARKS[model.mark]);
    put(cell('mark', 'span'), share);
    row.dataset.mark = share ? 'moving' : model.mark;
    row.setAttribute('aria-selected', String(model.name === chosen));
}

function drawList() {
    const shown = ordered();
    const there = new Set(shown.map(model => model.name));
    for (const [name, row] of rows) if (!there.has(name)) { row.remove(); rows.delete(name); }
    shown.forEach((model, place) => {
        let row = rows.get(model.name);
        if (!row) rows.set(model.name, row = makeRow(model.name));
        if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
        writeRow(row, model);
        row.tabIndex = model.name === chosen || (place === 0 && !there.has(chosen)) ? 0 : -1;
    });
    put(find('.hub-count'), shown.length === models.length ? `${models.length} models` : `${shown.length} of ${models.length}`);
    find('table').hidden = !shown.length;
    find('.hub-none').hidden = shown.length > 0 || !models.length;
    const asked = search.value.trim();
    put(find('.hub-none p'), asked ? `Nothing here has "${asked}" in its name, paper, language or training data.` : 'None of the models has all of this.');
    drawOther(asked);
    for (const head of element.querySelectorAll('th:has(button)')) {
        if (head.firstElementChild.dataset.sort !== sort.by) head.removeAttribute('aria-sort');
        else head.setAttribute('aria-sort', sort.down ? 'descending' : 'ascending');
    }
}

// A name of the Hugging Face hub that is in no list can be fetched all the same.
function drawOther(asked) {
    const name = asked.replace(/^(hf:)?/, 'hf:'), moving = transfers.get(name);
    const isName = /^hf:[\w.-]+\/[\w.-]+$/.test(name);
    fill(find('.hub-other'), isName && models.length ? [name, offline, moving, said.get(name), busy] : null, () => {
        if (offline) return [make('p', '', offline)];
        const made = [make('p', '', 'If it is the name of a model on the Hugging Face hub, it can be fetched from there.')];
        if (isMoving(moving)) return [make('p', '', `${name}: ${moving.said}`), watched(moving)];
        const go = button(`Fetch ${name}`, 'au-button', () => act(name, 'fetch_model', 'Looking for it ...'));
        go.disabled = Boolean(busy);
        made.push(go);
        if (said.has(name)) { const place = make('div'); notice(place, said.get(name)); made.push(place); }
        else if (moving?.reason) made.push(make('p', '', `${moving.text}: ${moving.reason}`));
        return made;
    });
}

function clear() {
    search.value = '';
    for (const box of element.querySelectorAll('select')) { box.value = ''; filter[box.dataset.by] = ''; }
    choosePlace('');
}

function choosePlace(place) {
    filter.place = place;
    for (const one of element.querySelectorAll('[data-place]')) {
        one.setAttribute('aria-checked', String(one.dataset.place === place));
        one.tabIndex = one.dataset.place === place ? 0 : -1;
    }
}
