// Renders each formula of the page, also after a page is replaced without a reload.
function render() {
  for (const element of document.querySelectorAll("span.arithmatex, div.arithmatex")) {
    const display = element.tagName === "DIV";
    const formula = element.textContent.trim().slice(2, -2); // without \( \) or \[ \]
    katex.render(formula, element, { displayMode: display, throwOnError: false });
  }
}

if (typeof document$ === "undefined") document.addEventListener("DOMContentLoaded", render);
else document$.subscribe(render);
