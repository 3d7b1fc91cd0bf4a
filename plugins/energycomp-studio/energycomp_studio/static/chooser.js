// An image file as a data URL: chosen, dropped or pasted. It is in the message, so that nothing is stored or served.
const input = element.querySelector("input"), zone = element.querySelector(".studio-drop");
const label = element.querySelector(".studio-file"), error = element.querySelector(".studio-error");
label.textContent = props.text;
if (props.also) input.accept += `,${props.also}`;

function take(file) {
  error.textContent = "";
  if (!file) return;
  if (file.size > props.most) {
    error.textContent = `got a file of ${file.size.toLocaleString("en")} bytes; expected at most ` +
      `${props.most.toLocaleString("en")}; scale the image down`;
    input.value = "";
    return;
  }
  const reader = new FileReader();
  reader.onload = () => { props.value = reader.result; label.textContent = file.name; trigger("taken"); input.value = ""; };
  reader.onerror = () => { error.textContent = "got a file that cannot be read; expected an image file"; };
  reader.readAsDataURL(file);
}

// Files may be dropped on the field, or on what `props.over` selects, such as the image that is shown.
const zoneOf = ({ target }) => element.isConnected && target.closest && target.closest(props.over);
const onDrop = (name, act) => document.addEventListener(name, (event) => {
  if (!zoneOf(event)) return;
  event.preventDefault();
  act(event);
});
watch("error", () => { error.textContent = props.error; });
input.onchange = () => take(input.files[0]);
onDrop("dragover", () => zone.classList.add("studio-over"));
onDrop("dragleave", () => zone.classList.remove("studio-over"));
onDrop("drop", (event) => {
  zone.classList.remove("studio-over");
  take(event.dataTransfer.files[0]);
});
