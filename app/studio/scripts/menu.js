// The list of everything that can be started, by family. The value: {families: [{title, runs: [{name, title, about}]}], chosen}.
const list = element.querySelector('.au-menu');

function line(tag, kind, text) {
    const made = document.createElement(tag);
    made.className = kind;
    made.textContent = text;
    return made;
}

function draw() {
    const value = props.value ?? {families: []};
    list.replaceChildren();
    for (const family of value.families ?? []) {
        list.append(line('h3', 'au-menu-family', family.title));
        for (const run of family.runs) {
            const button = line('button', 'au-menu-run', '');
            button.type = 'button';
            button.dataset.run = run.name;
            button.title = run.about;
            button.setAttribute('aria-pressed', String(run.name === value.chosen));
            button.append(line('span', 'au-menu-title', run.title), line('span', 'au-menu-about', run.about));
            list.append(button);
        }
    }
}

list.addEventListener('click', event => {
    const button = event.target.closest('button[data-run]');
    if (!button) return;
    for (const other of list.querySelectorAll('button')) other.setAttribute('aria-pressed', String(other === button));
    trigger('pick', {run: button.dataset.run});
});
watch('value', draw);
draw();
