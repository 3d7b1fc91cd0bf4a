// The address of the page keeps its scene and its tab behind #, which a browser does not send. They survive that the
// page is loaded again. Each tab that is opened is an entry of the history, so that "back" returns to the tab before.
window.studioAddress = (() => {
  let kept = read(), started = false;

  function read() {
    try {
      const found = JSON.parse(decodeURIComponent(location.hash.slice(1)));
      return found && typeof found === "object" ? found : {};
    } catch {
      return {};
    }
  }

  const write = (entry) => history[entry](null, "", "#" + encodeURIComponent(JSON.stringify(kept)));
  const buttons = () => [...document.querySelectorAll("#studio-tabs button[role=tab]")];
  const named = (button) => button.textContent.trim().toLowerCase();
  const open = (tab) => { const button = buttons().find((one) => named(one) === tab); if (button) button.click(); };

  addEventListener("popstate", () => {
    kept.tab = read().tab || "compose";
    write("replaceState"); // with the scene of now
    open(kept.tab);
  });
  new MutationObserver(() => {
    const button = buttons().find((one) => one.getAttribute("aria-selected") === "true");
    if (!started || !button || named(button) === (kept.tab || "compose")) return;
    kept.tab = named(button);
    write("pushState");
  }).observe(document, { subtree: true, attributes: true, attributeFilter: ["aria-selected"] });

  return {
    // Opens the tab of the address; what is behind its #.
    start() {
      if (kept.tab) open(kept.tab);
      started = true;
      return location.hash.slice(1);
    },
    // The name of this browser tab, which outlives that the page is loaded again.
    page() {
      sessionStorage.studio ||= crypto.randomUUID();
      return sessionStorage.studio;
    },
    // Keeps a scene and its settings.
    keep(scene) {
      kept = { ...scene, tab: kept.tab };
      write("replaceState");
    },
  };
})();
