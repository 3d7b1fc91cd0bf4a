// The scene editor: handles on an image, and one row of fields for each component.
// Its value is {items: [{given, weight, negated, either, origin, note}], final, number}; "edit" is triggered while
// something is dragged, with final false, and once it has changed, with final true: one event, so that the last one wins.
// "opened" is triggered once the editor is there.
// Props of Python: form, picture, aspect (0 for that of the picture), status, progress ("none", "unknown", or a share),
// editing, found (of each component that was read: {given, sure, gain, lit, relations}, see `found_in`).
const find = (name) => element.querySelector(name);
const stage = find(".studio-stage"), picture = find(".studio-picture"), handles = find(".studio-handles");
const rows = find(".studio-rows"), status = find(".studio-status"), hint = find(".studio-hint");
const addButton = find(".studio-add"), datalist = find("datalist");
const bar = find(".studio-progress");
const under = find(".studio-under"), SVG = "http://www.w3.org/2000/svg", MOST = 32, HEAVIEST = 3;
datalist.id = "studio-list-" + Math.random().toString(36).slice(2);

let items = [];
let dragged = null; // {index, moved} while a pointer is down on a handle
let lastDrag = 0;
let number = 0; // of the scenes that were sent
let past = [], present = "[]"; // scenes before this one, for Ctrl-Z

const round = (number) => Math.round(Math.min(1, Math.max(0, number)) * 1000) / 1000;
const coarse = (number) => Math.round(100 * round(number)) / 100; // of a pointer
const placed = () => props.form.kind === "places";
const copied = (list) => JSON.parse(JSON.stringify(list));

function send(event, joined = false) { // joined: Ctrl-Z takes it back together with the change before
  const final = event === "drop", now = JSON.stringify(items);
  if (final && now !== present) [past, present] = [joined ? past : [...past.slice(-99), present], now];
  props.value = { items: copied(items), final, number: ++number };
  trigger("edit");
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches && event.target.matches("input[type=text], input[type=number], textarea");
  const asked = event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
  if (!asked || typing || !past.length || !element.offsetParent) return;
  event.preventDefault();
  present = past.pop();
  items = JSON.parse(present);
  drawAll();
  send("drop");
});

function made(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, given] of Object.entries(attributes || {})) {
    if (name in node && name !== "list") node[name] = given; else node.setAttribute(name, given);
  }
  node.append(...children);
  return node;
}

function title(index) {
  const words = Object.entries(items[index].given).filter(([name]) => name !== "x" && name !== "y");
  return words.map(([, word]) => word).filter((word) => word !== "").join(" ") || "object";
}

// Handles

function drawHandles() {
  const shown = placed() ? items : [];
  while (handles.children.length > shown.length) handles.lastChild.remove();
  shown.forEach((item, index) => {
    let handle = handles.children[index];
    if (!handle) {
      handle = document.createElementNS(SVG, "svg");
      handle.setAttribute("class", "studio-handle");
      handle.setAttribute("overflow", "visible");
      handle.setAttribute("tabindex", "0");
      handle.setAttribute("role", "button");
      for (const [tag, name] of [["circle", "studio-reach"], ["circle", "studio-ring"], ["text", ""]]) {
        const part = document.createElementNS(SVG, tag);
        if (tag === "circle") part.setAttribute("r", name === "studio-reach" ? 22 : 13);
        if (name) part.setAttribute("class", name);
        handle.append(part);
      }
      handles.append(handle);
    }
    handle.dataset.index = index;
    handle.setAttribute("x", 100 * item.given.x + "%");
    handle.setAttribute("y", 100 * item.given.y + "%");
    handle.classList.toggle("studio-not", Boolean(item.negated));
    handle.lastChild.textContent = index + 1;
    handle.setAttribute("aria-label",
      `${index + 1}: ${title(index)} at ${item.given.x}, ${item.given.y}. Arrow keys move it, Delete removes it.`);
  });
}

function place(event) {
  const box = handles.getBoundingClientRect();
  return [coarse((event.clientX - box.left) / box.width), coarse((event.clientY - box.top) / box.height)];
}

function move(index, x, y) {
  items[index].given.x = round(x);
  items[index].given.y = round(y);
  drawHandles();
  const row = rows.children[index];
  for (const name of ["x", "y"]) row.querySelector(`[data-field=${name}]`).value = items[index].given[name];
}

handles.addEventListener("pointerdown", (event) => {
  const handle = event.target.closest(".studio-handle");
  if (!handle || event.button > 0) return;
  dragged = { index: Number(handle.dataset.index), moved: false };
  handles.setPointerCapture(event.pointerId);
  handle.focus();
  event.preventDefault();
});
handles.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  const [x, y] = place(event), { given } = items[dragged.index];
  if (!dragged.moved && Math.hypot(x - given.x, y - given.y) < 0.01) return;
  dragged.moved = true;
  light(null);
  move(dragged.index, x, y);
  if (performance.now() - lastDrag > 60) {
    lastDrag = performance.now();
    send("drag");
  }
});
for (const name of ["pointerup", "pointercancel"]) {
  handles.addEventListener(name, () => {
    if (!dragged) return;
    const { moved } = dragged;
    dragged = null;
    handles.dataset.quiet = performance.now();
    if (moved) send("drop");
  });
}
handles.addEventListener("click", (event) => {
  const justDragged = performance.now() - Number(handles.dataset.quiet || -1000) < 50;
  if (justDragged || event.detail > 1 || event.target.closest(".studio-handle")) return;
  add(place(event));
});
handles.addEventListener("dblclick", (event) => {
  const under = document.elementsFromPoint(event.clientX, event.clientY);
  const handle = under.map((node) => node.closest(".studio-handle")).find(Boolean);
  if (handle) remove(Number(handle.dataset.index));
});
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
handles.addEventListener("keydown", (event) => {
  const handle = event.target.closest(".studio-handle");
  if (!handle) return;
  const index = Number(handle.dataset.index), { given } = items[index], step = STEPS[event.key];
  const far = event.shiftKey ? 0.05 : 0.01;
  if (step) move(index, given.x + far * step[0], given.y + far * step[1]);
  else if (event.key === "Delete" || event.key === "Backspace") remove(index);
  else if (event.key === "Enter" || event.key === " ") rows.children[index].querySelector("select, input").focus();
  else return;
  event.preventDefault();
  if (step) send("drag");
});
let stepped = {}; // the last arrow key: its handle, its time, and the scene after it
handles.addEventListener("keyup", (event) => {
  const handle = event.target.closest(".studio-handle");
  if (!(event.key in STEPS) || !handle) return;
  const { index } = handle.dataset, at = performance.now();
  send("drop", stepped.index === index && stepped.present === present && at - stepped.at < 1000);
  stepped = { index, at, present };
});

// Rows

function field(label, ...controls) {
  return made("label", { className: "studio-field" }, made("span", {}, label), ...controls);
}

function drawRows() {
  const full = items.length >= MOST, fixed = props.form.kind === "labels";
  rows.replaceChildren(...(fixed ? props.form.attributes.map(labelRow) : items.map(itemRow)));
  rows.classList.toggle("studio-labels", fixed);
  addButton.hidden = fixed;
  addButton.disabled = full;
}

function selected(words, word, onchange, label) {
  const select = made("select", { "aria-label": label }, made("option", { value: "" }, "any"),
    ...words.map((one) => made("option", { value: one }, one)));
  select.value = word || "";
  select.onchange = () => { onchange(select.value); drawHandles(); };
  return select;
}

function numbered(index, name) {
  const input = made("input", { type: "number", min: 0, max: 1, step: 0.01, value: items[index].given[name] });
  input.dataset.field = name;
  input.setAttribute("aria-label", `${name} of ${index + 1}`);
  input.onchange = () => {
    items[index].given[name] = round(Number(input.value) || 0);
    input.value = items[index].given[name];
    drawHandles();
    send("drop");
  };
  return input;
}

function weighed(item, label) {
  const shown = made("output", {}, item.weight.toFixed(1));
  const most = Math.max(HEAVIEST, props.form.weight, item.weight);
  const slider = made("input", { type: "range", min: 0, max: most, step: 0.1, value: item.weight });
  slider.setAttribute("aria-label", "weight of " + label);
  slider.oninput = () => {
    item.weight = Number(slider.value);
    shown.textContent = item.weight.toFixed(1);
    send("drag");
  };
  slider.onchange = () => send("drop");
  return made("label", { className: "studio-field studio-weight" }, made("span", {}, "weight"), slider, shown);
}

function negates(item, label) {
  const box = made("input", { type: "checkbox", checked: Boolean(item.negated) });
  box.setAttribute("aria-label", "not " + label);
  box.onchange = () => { item.negated = box.checked; drawHandles(); send("drop"); };
  return made("label", { className: "studio-field studio-check" }, box, made("span", {}, "not ~"));
}

function joins(item, label) {
  const select = made("select", {}, made("option", { value: "&" }, "and &"), made("option", { value: "|" }, "or |"));
  select.value = item.either ? "|" : "&";
  select.setAttribute("aria-label", "how " + label + " is joined");
  select.onchange = () => { item.either = select.value === "|"; send("drop"); };
  return select;
}

function itemRow(item, index) {
  const label = String(index + 1), row = made("li", { className: "studio-row" });
  const head = made("div", { className: "studio-line" }, made("b", { className: "studio-number" }, label));
  if (index > 0 && !props.editing) head.append(joins(item, label));
  if (placed()) {
    head.append(field("x", numbered(index, "x")), field("y", numbered(index, "y")));
  } else {
    const input = made("input", { type: "text", value: item.given.text || "", maxLength: 2000 });
    input.setAttribute("list", datalist.id);
    input.setAttribute("aria-label", "component " + label);
    input.className = "studio-text";
    if (props.form.suggestions.length) input.placeholder = `such as ${props.form.suggestions[0]}`;
    input.onchange = () => { item.given.text = input.value; send("drop"); };
    head.append(input);
  }
  const close = made("button", { type: "button", className: "studio-remove", title: "Remove" }, "×");
  close.setAttribute("aria-label", "remove " + label);
  close.onclick = () => remove(index);
  head.append(gained(item), close);
  row.append(head);
  if (placed() && props.form.attributes.length) {
    row.append(made("div", { className: "studio-line" }, ...props.form.attributes.map(({ name, words }) => {
      const sure = made("small", { className: "studio-sure" }, certainty(item, name));
      const choice = selected(words, item.given[name], (word) => {
        if (word) item.given[name] = word; else delete item.given[name];
        sure.textContent = certainty(item, name);
        send("drop");
      }, `${name} of ${label}`);
      return field(name, choice, sure);
    })));
  }
  if (!props.editing) {
    row.append(made("div", { className: "studio-line" }, weighed(item, label), negates(item, label)));
  }
  row.item = () => item;
  return row;
}

// What was read of a component; nothing for one that was added.
const read = (item) => (item && item.origin !== null && (props.found || [])[item.origin]) || null;

// How certain a word is, as long as it is the one that was read.
function certainty(item, name) {
  const found = read(item), sure = found && found.given[name] === item.given[name] ? found.sure[name] : undefined;
  return sure === undefined ? "" : `${Math.round(100 * sure)}%`;
}

function gained(item) {
  const found = read(item), known = found && found.gain !== null;
  const gain = made("small", { className: "studio-gain" }, known ? `gain ${found.gain.toFixed(1)}` : "");
  gain.title = "By how much this object lowers the error of the answer";
  return gain;
}

function labelRow({ name, words }) {
  const row = made("li", { className: "studio-row" }), own = () => items.find((one) => one.given.attribute === name);
  const line = made("div", { className: "studio-line" });
  const draw = () => {
    const item = own();
    const title = name.replaceAll("_", " "), toggles = words.map((word) => {
      const pressed = Boolean(item) && item.given.value === word;
      const toggle = made("button", { type: "button", className: "studio-toggle", "aria-pressed": pressed }, word);
      toggle.onclick = () => {
        items = items.filter((one) => one.given.attribute !== name);
        const given = { attribute: name, value: word };
        if (!pressed) items.push({ ...(item || { weight: props.form.weight }), given });
        draw();
        line.querySelectorAll(".studio-toggle")[words.indexOf(word)].focus();
        send("drop");
      };
      return toggle;
    });
    const group = made("span", { className: "studio-toggles", role: "group", "aria-label": title }, ...toggles);
    line.replaceChildren(made("span", {}, title), group);
    if (item && !props.editing) line.append(weighed(item, name), negates(item, name));
    if (item) line.append(gained(item));
  };
  draw();
  row.append(line);
  row.item = own;
  return row;
}

// A component whose row or handle is pointed at, or edited, lights the pixels that it explains, and shows its relations.
const lit = find(".studio-lit"), arrows = find(".studio-arrows");

function drawArrows(item) {
  const part = (tag, given, ...inner) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(given)) node.setAttribute(name, value);
    node.append(...inner);
    return node;
  };
  const at = ({ given }) => [`${100 * given.x}%`, `${100 * given.y}%`];
  const shown = [];
  for (const [other, words] of (read(item) || { relations: [] }).relations) {
    const to = items.find((one) => one.origin === other);
    if (!to) continue;
    const [[x1, y1], [x2, y2]] = [at(item), at(to)];
    shown.push(part("line", { x1, y1, x2, y2 }), part("circle", { cx: x2, cy: y2, r: 4 }));
    shown.push(part("text", { x: x2, y: y2, dy: -16 }, words));
  }
  arrows.replaceChildren(...shown);
}

function light(item) {
  const found = read(item), image = found && found.lit;
  lit.hidden = !image;
  if (image) lit.src = image;
  drawArrows(item);
  for (const row of rows.children) row.classList.toggle("studio-pointed", Boolean(found) && row.item() === item);
}

for (const name of ["pointerover", "pointerleave", "focusin", "focusout"]) {
  const isIn = /over|in$/.test(name);
  rows.addEventListener(name, (event) => {
    const row = event.target.closest(".studio-row");
    light(isIn && row ? row.item() : null);
  });
  handles.addEventListener(name, (event) => {
    const handle = event.target.closest(".studio-handle");
    if (!dragged) light(isIn && handle ? items[Number(handle.dataset.index)] : null);
  });
}

function add(where) {
  if (items.length >= MOST) return;
  const place = Array.isArray(where) ? where : free();
  // Words of its own, so that it is not an object of any kind
  const words = props.form.attributes.map(({ name, words }) => [name, words[(items.length + 1) % words.length]]);
  const given = placed() ? { x: place[0], y: place[1], ...Object.fromEntries(words) }
    : { text: props.form.suggestions[items.length] || "" };
  items.push({ given, weight: props.form.weight, negated: false, either: false, origin: null });
  drawAll();
  if (placed()) handles.lastChild.focus();
  else rows.lastChild.querySelector("input").focus();
  if (placed() || given.text) send("drop");
}

// A place far from all others, among those of a lattice.
function free() {
  let best = [0.5, 0.5], most = -1;
  for (const x of [0.2, 0.35, 0.5, 0.65, 0.8]) {
    for (const y of [0.35, 0.5, 0.65]) {
      const least = Math.min(1, ...items.map(({ given }) => Math.hypot(x - given.x, y - given.y)));
      if (least > most + 1e-6) [best, most] = [[x, y], least];
    }
  }
  return best;
}

function remove(index) {
  items.splice(index, 1);
  drawAll();
  (handles.children[Math.max(0, index - 1)] || addButton).focus({ preventScroll: true });
  send("drop");
}
addButton.onclick = () => add();

function drawAll() {
  drawRows();
  drawHandles();
}

function drawForm() {
  datalist.replaceChildren(...props.form.suggestions.map((value) => made("option", { value })));
  addButton.textContent = placed() ? "Add an object" : "Add a component";
  const pointed = props.editing ? "Point at a ring or a card to see its pixels. " : "";
  hint.textContent = placed()
    ? `${pointed}Click the image to add, drag to move, double-click to remove. Keys: Tab, arrows, Delete, Ctrl-Z.` : "";
  handles.classList.toggle("studio-placed", placed());
}

function drawPicture() {
  light(null);
  stage.hidden = !props.picture;
  under.hidden = hint.hidden = !props.picture;
  find(".studio-right").hidden = props.editing && !props.picture; // nothing was read
  picture.style.aspectRatio = props.aspect || "auto";
  stage.style.width = props.aspect > 2 ? `max(100%, ${Math.round(240 * props.aspect)}px)` : ""; // a wide canvas scrolls
  if (props.picture) picture.src = under.firstElementChild.href = props.picture;
}

function start() {
  items = copied((props.value && props.value.items) || []);
  [past, present] = [[], JSON.stringify(items)];
  drawForm();
  drawAll();
}

function drawStatus() {
  status.textContent = props.status || "";
  bar.hidden = props.progress === "none";
  if (typeof props.progress === "number") bar.value = props.progress; else bar.removeAttribute("value");
}

watch(["value", "form", "editing", "found"], () => {
  if (!dragged) start();
});
watch(["picture", "aspect"], drawPicture);
watch(["status", "progress"], drawStatus);
start();
drawPicture();
drawStatus();
trigger("opened");
