// The end of a job's log. The value: {job, text}. It follows the end unless someone has scrolled up.
const pane = element.querySelector('pre');
let job = null;

function write() {
    const value = props.value ?? {};
    const text = value.text ?? '';
    const follows = value.job !== job || pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 24;
    job = value.job;
    if (pane.textContent !== text) pane.textContent = text;
    pane.classList.toggle('au-log-none', !text);
    if (!text) pane.textContent = value.job ? 'Nothing has been written yet.' : '';
    if (follows) pane.scrollTop = pane.scrollHeight;
}

watch('value', write);
write();
