// The hub: every model in a list that is searched here, and the one that is looked at. Python is asked for the list once, for
// what is on its way while something is, and to act. Text of a model or of a person is only ever written as text.

const find = selector => element.querySelector(selector);
const body = find('tbody'), search = find('.hub-search'), detail = find('.hub-detail'), adding = find('.hub-add');
const rows = new Map(); // name -> its row
const said = new Map(), reports = new Map(); // name -> what was said after the last act, and how its weights fit
const filter = {family: '', language: '', weights: '', place: ''};
const sort = {by: 'title', down: false};
const PLACES = {here: ['here', 'built in', 'own', 'trained'], away: ['away', 'part'], own: ['own'], trained: ['trained']};
const MARKS = {here: 'Here', 'built in': 'Built in', own: 'Your own', trained: 'Trained here', part: 'In part', away: 'To fetch'};
const MOVING = ['queued', 'running'];
let models = [], byName = new Map(), transfers = new Map(), offline = '', chosen = '', asking = '', busy = '', away = false;

function make(tag, kind = '', text = '', more = {}) {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text) node.textContent = text;
    for (const [name, value] of Object.entries(more)) node.setAttribute(name, value);
    return node;
}

function put(node, text) {
    if (node.textContent !== text) node.textContent = text;
}

// Redraw a place only where what it shows has changed, so that a button keeps its focus while a download goes on.
function fill(node, shown, draw) {
    const key = JSON.stringify(shown);
    if (node.dataset.key === key) return;
    node.dataset.key = key;
    node.replaceChildren(...(shown ? draw() : []));
}

const words = new Intl.DisplayNames(['en'], {type: 'language', fallback: 'code'});
function language(code) {
    if (code === 'many') return 'Many languages';
    try { return words.of(code); } catch { return code; }
}

function button(text, kind, act) {
    const node = make('button', kind, text, {type: 'button'});
    node.addEventListener('click', act);
    return node;
}

function copyable(text, what) {
    const node = make('span', 'hub-copy');
    const code = make('code', '', text);
    const copy = button('Copy', 'hub-small', async () => {
        getSelection().selectAllChildren(code);
        if (navigator.clipboard) await navigator.clipboard.writeText(text);
        else document.execCommand('copy'); // the only way where the address is not a secure one
        copy.textContent = 'Copied';
        setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
    });
    copy.setAttribute('aria-label', `Copy ${what}`);
    node.append(code, copy);
    return node;
}

// ---- asking Python ------------------------------------------------------------------------------------------------------

function take(told) {
    if (told.models) {
        models = told.models;
        byName = new Map(models.map(model => [model.name, model]));
        for (const model of models) {
            const spoken = model.languages.map(language).join(' ');
            model.search = [model.name, model.title, model.about, model.family, spoken, model.text].join(' ').toLowerCase();
        }
        find('.hub-wait').hidden = true;
        offerFilters();
    }
    if (told.transfers) {
        const ended = told.transfers.some(one => one.state === 'finished' && MOVING.includes(transfers.get(one.name)?.state));
        transfers = new Map(told.transfers.map(one => [one.name, one]));
        if (ended && !told.models) ask('show_models', '');
    }
    if (told.offline !== undefined) offline = told.offline;
    if (told.report) reports.set(told.report.name, told.report.facts);
    draw();
}

async function ask(act, given) {
    try {
        const told = await server[act](given);
        take(told);
        return told;
    } catch {
        return {said: {kind: 'bad', title: 'Auscult does not answer', sentence: 'It may have been stopped. Start it again, then reload this page.'}};
    }
}

// An act of the person's on a model; what it says stands beside that model.
async function act(name, verb, wait) {
    if (busy) return;
    busy = name;
    asking = '';
    said.set(name, {kind: 'plain', title: wait, sentence: ''});
    draw();
    const told = await ask(verb, name);
    busy = '';
    if (told.said) said.set(name, told.said);
    else said.delete(name);
    draw();
}

async function add(event) {
    event.preventDefault();
    const path = adding.querySelector('input').value.trim();
    if (!path || busy) return;
    busy = path;
    notice(adding.querySelector('.hub-said'), {kind: 'plain', title: 'Reading it ...', sentence: ''});
    const told = await ask('add_checkpoint', path);
    busy = '';
    if (told.chosen) {
        said.set(told.chosen, told.said);
        clear();
        open(told.chosen);
    } else notice(adding.querySelector('.hub-said'), told.said);
}

// ---- both ---------------------------------------------------------------------------------------------------------------

function draw() {
    drawList();
    if (!byName.has(chosen) && models.length) chosen = models.length ? body.firstElementChild?.dataset.name ?? '' : '';
    for (const [name, row] of rows) row.setAttribute('aria-selected', String(name === chosen));
    drawDetail();
}

function open(name) {
    chosen = name;
    asking = '';
    adding.hidden = true;
    history.replaceState(null, '', `?tab=hub&upstream=${encodeURIComponent(name)}`);
    draw();
    rows.get(name)?.scrollIntoView({block: 'nearest'});
    detail.scrollTop = 0;
}

// ---- what a person does -------------------------------------------------------------------------------------------------

find('.hub-bar').addEventListener('submit', event => event.preventDefault());
search.addEventListener('input', drawList);
search.addEventListener('keydown', event => {
    if (event.key === 'ArrowDown' || event.key === 'Enter') { event.preventDefault(); step(body.firstElementChild); }
    if (event.key === 'Escape') { search.value = ''; drawList(); }
});
for (const box of element.querySelectorAll('select')) box.addEventListener('change', () => { filter[box.dataset.by] = box.value; drawList(); });
find('.hub-places').addEventListener('click', event => {
    const one = event.target.closest('[data-place]');
    if (one) { choosePlace(one.dataset.place); drawList(); }
});
find('.hub-places').addEventListener('keydown', event => {
    const all = [...element.querySelectorAll('[data-place]')], at = all.findIndex(one => one.dataset.place === filter.place);
    const next = {ArrowRight: all[at + 1], ArrowLeft: all[at - 1]}[event.key];
    if (next) { event.preventDefault(); choosePlace(next.dataset.place); next.focus(); drawList(); }
});
find('thead').addEventListener('click', event => {
    const by = event.target.closest('button')?.dataset.sort;
    if (!by) return;
    sort.down = sort.by === by ? !sort.down : by !== 'title'; // the largest first
    sort.by = by;
    drawList();
});
find('.hub-clear').addEventListener('click', () => { clear(); draw(); search.focus(); });
find('.hub-new').addEventListener('click', () => { adding.hidden = false; drawDetail(); adding.querySelector('input').focus(); });
find('.hub-back').addEventListener('click', () => { adding.hidden = true; drawDetail(); });
find('.hub-path').addEventListener('submit', add);

function step(row) {
    if (!row) return;
    open(row.dataset.name);
    row.focus();
}

body.addEventListener('click', event => step(event.target.closest('tr')));
body.addEventListener('keydown', event => {
    const row = event.target.closest('tr');
    const next = {ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling, Home: body.firstElementChild, End: body.lastElementChild, Enter: row}[event.key];
    if (next) { event.preventDefault(); step(next); }
});

// ---- what goes on meanwhile ---------------------------------------------------------------------------------------------

async function look() {
    if (!element.isConnected) return;
    if (document.hidden || !element.offsetParent) away = true;
    else if (away) { away = false; await ask('show_models', ''); } // something may have come or gone meanwhile
    else if ([...transfers.values()].some(isMoving)) await ask('show_transfers', '');
    setTimeout(look, 700);
}

const asked = new URLSearchParams(location.search);
if (asked.get('tab') === 'hub') chosen = asked.get('upstream') ?? '';
choosePlace('');
ask('show_models', '').then(() => { rows.get(chosen)?.scrollIntoView({block: 'nearest'}); look(); });
