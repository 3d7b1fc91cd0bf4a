// A film: its frames one after another, each with a table of its objects. Its prop frames is a list of
// {picture: url, rows: [[cell, ...], ...]}. "opened" is triggered once the film is there.
const find = (name) => element.querySelector(name);
const film = find(".studio-film"), picture = find("img"), body = find("tbody");
const play = find(".studio-play"), time = find("input"), shown = find("output");
const PAUSE = 200; // ms between two frames
let clock = null;

function made(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function draw() {
  const { frames } = props, number = Number(time.value), frame = frames[number - 1];
  picture.src = frame.picture;
  picture.alt = `Frame ${number}`;
  shown.textContent = `${number} of ${frames.length}`;
  body.replaceChildren(...frame.rows.map((row) => made("tr", ...row.map((cell) => made("td", cell)))));
  find("table").hidden = !frame.rows.length;
}

function pause() {
  clearInterval(clock);
  clock = null;
  play.textContent = "Play";
}

function next() {
  time.value = Number(time.value) + 1;
  draw();
  if (Number(time.value) === props.frames.length) pause();
}

play.onclick = () => {
  if (clock !== null) return pause();
  if (Number(time.value) === props.frames.length) time.value = 0;
  play.textContent = "Pause";
  clock = setInterval(next, PAUSE);
  next();
};
time.oninput = () => { pause(); draw(); };

function start() {
  pause();
  film.hidden = !props.frames.length;
  if (film.hidden) return;
  time.max = props.frames.length;
  time.value = 1;
  draw();
}
watch("frames", start);
start();
trigger("opened");
