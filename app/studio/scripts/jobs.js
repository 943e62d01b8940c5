// The table of jobs. The value: {rows: [...], chosen, note}. Rows are kept by id, so that nothing flickers when one changes.
const body = element.querySelector('tbody');
const note = element.querySelector('.au-jobs-note');
const empty = element.querySelector('.au-jobs-empty');
const table = element.querySelector('table');
const known = new Map();

function put(node, text) {
    if (node.textContent !== text) node.textContent = text;
}

function make(id) {
    const row = document.createElement('tr');
    row.dataset.id = id;
    row.tabIndex = 0;
    row.innerHTML = `
        <td class="au-job-name"><b></b><span></span></td>
        <td class="au-job-state"><i class="au-pill"></i><span></span></td>
        <td class="au-job-progress"><div class="au-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100"><i></i></div><span></span></td>
        <td class="au-job-left"></td>
        <td class="au-job-metric"><b></b><span></span></td>
        <td class="au-job-age"></td>`;
    return row;
}

function write(row, job, chosen) {
    const cell = name => row.querySelector(`.au-job-${name}`);
    put(cell('name').querySelector('b'), job.title);
    put(cell('name').querySelector('span'), job.about || job.id);
    cell('name').title = job.id;
    const pill = row.querySelector('.au-pill');
    put(pill, job.state_text);
    pill.className = `au-pill au-is-${job.state}`;
    put(cell('state').querySelector('span'), job.heartbeat ? `alive ${job.heartbeat}` : '');
    cell('state').classList.toggle('au-stale', job.stale);
    const bar = row.querySelector('.au-bar');
    const share = job.share === null ? null : Math.round(job.share * 1000) / 10;
    bar.className = `au-bar au-is-${job.state}` + (share === null && job.state === 'running' ? ' au-unknown' : '');
    bar.firstElementChild.style.width = `${share ?? 0}%`;
    if (share === null) bar.removeAttribute('aria-valuenow');
    else bar.setAttribute('aria-valuenow', share);
    bar.setAttribute('aria-label', `Progress of ${job.title}`);
    put(cell('progress').querySelector('span'), job.reason || job.stage || (job.took ? `took ${job.took}` : ''));
    cell('progress').title = job.reason;
    put(cell('left'), job.left);
    put(cell('metric').querySelector('b'), job.metric);
    put(cell('metric').querySelector('span'), job.best);
    put(cell('age'), job.age ? `${job.age} ago` : '');
    row.classList.toggle('au-child', Boolean(job.parent));
    row.setAttribute('aria-selected', String(job.id === chosen));
}

function draw() {
    const value = props.value ?? {rows: []};
    const rows = value.rows ?? [];
    const there = new Set(rows.map(job => job.id));
    for (const [id, row] of known) if (!there.has(id)) { row.remove(); known.delete(id); }
    rows.forEach((job, place) => {
        let row = known.get(job.id);
        if (!row) known.set(job.id, row = make(job.id));
        if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
        write(row, job, value.chosen);
    });
    table.hidden = !rows.length;
    empty.hidden = rows.length > 0 || !value.ready;
    put(note, value.note ?? '');
}

function pick(row) {
    if (!row) return;
    for (const other of body.children) other.setAttribute('aria-selected', String(other === row));
    history.replaceState(null, '', `?tab=jobs&job=${encodeURIComponent(row.dataset.id)}`);
    trigger('pick', {id: row.dataset.id});
}

body.addEventListener('click', event => pick(event.target.closest('tr')));
body.addEventListener('keydown', event => {
    const row = event.target.closest('tr');
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); pick(row); }
    if (event.key === 'ArrowDown') { event.preventDefault(); row.nextElementSibling?.focus(); }
    if (event.key === 'ArrowUp') { event.preventDefault(); row.previousElementSibling?.focus(); }
});
watch('value', draw);
draw();
