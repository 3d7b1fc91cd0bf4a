// Parts of images as tiles that are chosen. The value is {chosen: [[true, false, ...] for each image]}.
const box = element.querySelector(".studio-tiles");

function draw() {
  const chosen = (props.value && props.value.chosen) || [];
  box.replaceChildren(...(props.tiles || []).map((parts, k) => {
    const line = document.createElement("div");
    line.className = "studio-tile-line";
    parts.forEach((url, j) => {
      const tile = document.createElement("button"), image = document.createElement("img");
      tile.type = "button";
      tile.className = "studio-tile";
      tile.setAttribute("aria-pressed", Boolean(chosen[k] && chosen[k][j]));
      tile.setAttribute("aria-label", `part ${j + 1} of image ${k + 1}`);
      image.src = url;
      image.alt = "";
      tile.append(image);
      tile.onclick = () => {
        const next = JSON.parse(JSON.stringify(chosen));
        next[k][j] = !next[k][j];
        tile.setAttribute("aria-pressed", next[k][j]);
        chosen[k][j] = next[k][j];
        props.value = { chosen: next };
        trigger("input");
      };
      line.append(tile);
    });
    return line;
  }));
}
watch(["tiles", "value"], draw);
draw();
