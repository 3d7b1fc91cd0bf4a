// The table of models. Its value is the model whose button was clicked; the event is the name of the tab to open, or
// "survey" once the table is seen.
const EVENTS = ["compose", "read", "decompose"], box = element.firstElementChild;
box.onclick = ({ target }) => {
  if (!EVENTS.includes(target.dataset.tab)) return;
  props.value = target.dataset.model;
  trigger(target.dataset.tab);
};
const draw = () => { box.innerHTML = props.table; };
watch("table", draw);
draw();
new IntersectionObserver(([{ isIntersecting }]) => { if (isIntersecting) trigger("survey"); }).observe(box);
