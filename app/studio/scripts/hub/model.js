// The model that is looked at: what it is, what can be done with it, how its download goes on.

function notice(node, what) {
    fill(node, what ?? null, () => {
        const frame = make('div', `au-notice au-${what.kind}`, '', {role: what.kind === 'bad' ? 'alert' : 'status'});
        frame.append(make('h4', '', what.title));
        if (what.sentence) frame.append(make('p', '', what.sentence));
        return [frame];
    });
}

function listed(facts) {
    const list = make('dl');
    for (const [label, text, address] of facts) {
        const value = make('dd', text === 'not known' ? 'hub-gap' : '', address ? '' : text);
        if (address) value.append(make('a', '', text, {href: address, target: '_blank', rel: 'noreferrer'}));
        list.append(make('dt', '', label), value);
    }
    return list;
}

function drawDetail() {
    const model = byName.get(chosen);
    detail.hidden = !model || !adding.hidden;
    if (!model) return;
    const [mark, state] = isMoving(transfers.get(model.name)) ? ['moving', 'Fetching'] : [model.mark.replace(' ', '-'), MARKS[model.mark]];
    fill(detail.querySelector('.hub-head'), [model.name, model.title, model.about, mark], () => {
        const title = make('h2', '', model.title);
        title.append(make('i', `au-pill hub-is-${mark}`, state));
        return [title, copyable(model.name, 'the name'), ...(model.about ? [make('p', '', model.about)] : [])];
    });
    drawTransfer(model, transfers.get(model.name));
    drawActions(model, transfers.get(model.name));
    notice(detail.querySelector('.hub-said'), said.get(model.name));
    const fit = reports.get(model.name);
    fill(detail.querySelector('.hub-report'), fit ?? null, () => [make('h3', '', 'How its weights fit'), listed(fit)]);
    const spoken = model.languages.length ? [['Languages', model.languages.map(language).join(', '), '']] : model.twin ? [['Languages', 'not known', '']] : [];
    const facts = [...spoken, ...model.facts];
    fill(detail.querySelector('.hub-facts'), [model.name, facts], () => [listed(facts), ...twin(model)]);
}

function twin(model) {
    if (!model.twin) return [];
    const line = make('div', 'hub-twin');
    line.append(make('p', '', 'Its untrained twin, the same network before it has learnt anything, is the baseline of every probe:'), copyable(model.twin, 'the name of its untrained twin'));
    return [line];
}

const watched = moving => make('a', 'hub-link', 'Watch it in Jobs', {href: `/studio/?tab=jobs&job=${encodeURIComponent(moving.job)}`});
const isMoving = moving => MOVING.includes(moving?.state);
const brokeOff = (model, moving) => ['away', 'part'].includes(model.mark) && ['failed', 'cancelled'].includes(moving?.state);

function drawTransfer(model, moving) {
    const place = detail.querySelector('.hub-transfer'), bar = place.querySelector('.au-bar');
    const shown = isMoving(moving) || brokeOff(model, moving);
    place.hidden = !shown;
    if (!shown) return;
    const share = moving.share === null ? null : Math.round(moving.share * 1000) / 10;
    bar.className = `au-bar au-is-${moving.state}` + (share === null && moving.state === 'running' ? ' au-unknown' : '');
    bar.firstElementChild.style.width = `${share ?? 0}%`;
    if (share === null) bar.removeAttribute('aria-valuenow');
    else bar.setAttribute('aria-valuenow', share);
    const reason = brokeOff(model, moving) ? `${moving.text}${moving.reason ? `: ${moving.reason}` : ''}` : '';
    put(place.querySelector('p'), [reason, moving.said].filter(Boolean).join(' · ') || moving.text);
}

function drawActions(model, moving) {
    const isHere = !['away', 'part'].includes(model.mark);
    const state = isMoving(moving) ? (moving.stoppable ? 'moving' : 'stopping') : brokeOff(model, moving) ? 'broken' : '';
    const key = [model.name, model.mark, model.size, model.partial, model.freed, state, offline, asking === model.name, busy];
    fill(detail.querySelector('.hub-actions'), key, () => {
        const made = [];
        const go = (text, kind, address) => made.push(make('a', kind, text, {href: address}));
        const name = encodeURIComponent(model.name);
        if (asking === model.name) {
            made.push(make('span', 'hub-ask', `Delete what was fetched? This frees ${model.freed}.`));
            made.push(button('Delete', 'hub-plain hub-bad', () => act(model.name, 'delete_model', 'Deleting ...')));
            made.push(button('Keep', 'hub-plain', () => { asking = ''; draw(); }));
            return made;
        }
        if (state === 'moving') made.push(button('Cancel', 'hub-plain', () => act(model.name, 'stop_fetching', 'Stopping ...')));
        if (isMoving(moving)) made.push(watched(moving));
        else if (isHere) {
            go('Listen with it', 'au-button', `/studio/?tab=listen&upstream=${name}`);
            go('Probe it', 'hub-plain', `/studio/?tab=run&run=linear_probe&upstream=${name}`);
            if (model.readable) made.push(button('Check weights', 'hub-plain', () => act(model.name, 'read_weights', 'Reading the weights ...')));
        } else if (offline) made.push(make('p', 'hub-off', offline));
        else {
            const text = state === 'broken' ? 'Resume' : model.part ? 'Fetch the rest' : 'Fetch';
            made.push(button(text, 'au-button', () => act(model.name, 'fetch_model', 'Asking for it ...')));
            const terms = make('span', 'hub-terms');
            terms.append(make('b', '', model.size || 'Size not known'), ` · licence: ${model.license}`);
            if (model.partial) terms.append(` · ${model.partial} here`);
            made.push(terms);
        }
        if (model.own) made.push(button('Forget', 'hub-plain', () => act(model.name, 'forget_checkpoint', 'Taking it off the list ...')));
        if (model.freed && !isMoving(moving)) made.push(button('Delete ...', 'hub-plain', () => { asking = model.name; draw(); }));
        if (busy) for (const one of made) if (one.tagName === 'BUTTON') one.disabled = true;
        return made;
    });
}
