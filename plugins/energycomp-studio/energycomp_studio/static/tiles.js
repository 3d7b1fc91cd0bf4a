// Images beside their reconstructions, and their parts as tiles that are chosen. Props: tiles, of each image {whole: [url
// of the image, url of its reconstruction], parts: [url, ...], note}. The value is {chosen: [[true, ...] for each image]}. "opened" is triggered once they are there.
const box = element.querySelector(".studio-tiles");

function made(tag, attributes, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

function draw() {
  const chosen = (props.value && props.value.chosen) || [], lines = props.tiles || [];
  const notes = lines.map(({ note }, k) => note && made("p", { className: "warning" }, `Image ${k + 1} is ${note}.`));
  box.replaceChildren(...notes.filter(Boolean), ...lines.map(({ whole, parts }, k) => {
    const titles = [`image ${k + 1}`, "reconstruction"];
    const figures = whole.map((src, j) => made("figure", {}, made("img", { src, alt: titles[j] }),
      made("figcaption", {}, titles[j])));
    const buttons = parts.map((src, j) => {
      const tile = made("button", { type: "button", className: "studio-tile" }, made("img", { src, alt: "" }));
      tile.setAttribute("aria-pressed", Boolean(chosen[k] && chosen[k][j]));
      tile.setAttribute("aria-label", `part ${j + 1} of image ${k + 1}`);
      tile.onclick = () => {
        const next = JSON.parse(JSON.stringify(chosen));
        next[k][j] = !next[k][j];
        tile.setAttribute("aria-pressed", next[k][j]);
        chosen[k][j] = next[k][j];
        props.value = { chosen: next };
        trigger("input");
      };
      return tile;
    });
    return made("div", { className: "studio-tile-line" }, ...figures, ...buttons);
  }));
}
watch(["tiles", "value"], draw);
draw();
trigger("opened");
