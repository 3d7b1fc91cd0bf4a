// The cards of the models. Props: cards, a list of {name, about, able, tabs}; pictures, the url of each name, as a text in
// JSON: Gradio changes an object in its place, which `watch` does not see. The value is the model whose button was
// clicked; the event is the name of the tab to open, or "survey" once the cards are seen.
const box = element.firstElementChild;
const EVENTS = ["compose", "read", "decompose"];

function made(tag, attributes, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

function card({ name, about, able, tabs }) {
  const src = JSON.parse(props.pictures)[name];
  const picture = src ? made("img", { src, alt: "" }) : made("span", { className: "studio-blank" });
  const buttons = tabs.map((tab) => {
    const button = made("button", { type: "button" }, tab[0].toUpperCase() + tab.slice(1));
    button.setAttribute("aria-label", `${button.textContent}: ${name}`);
    Object.assign(button.dataset, { model: name, tab });
    return button;
  });
  return made("li", { className: "studio-model" }, picture, made("div", {},
    made("h2", {}, name), made("p", {}, about), made("p", { className: "studio-able" }, able && `It can ${able}.`),
    made("div", { className: "studio-buttons" }, ...buttons)));
}

function draw() {
  box.replaceChildren(...props.cards.map(card));
  if (!props.cards.length) box.textContent = "loading the models ...";
}

box.onclick = ({ target }) => {
  if (!EVENTS.includes(target.dataset.tab)) return;
  props.value = target.dataset.model;
  trigger(target.dataset.tab);
};
watch(["cards", "pictures"], draw);
draw();
new IntersectionObserver(([{ isIntersecting }]) => { if (isIntersecting) trigger("survey"); }).observe(box);
