// What is wider than its place scrolls there: it shows on which side there is more, and the keyboard reaches it then
// and only then. The style is in book.css, `[data-more]`.
(() => {
  const SCROLLS = ".pst-scrollable-table-container, div.math, .figure-view";

  function look(place) {
    const hidden = place.scrollWidth - place.clientWidth;
    const more = [];
    if (hidden > 1 && place.scrollLeft > 1) more.push("before");
    if (hidden > 1 && place.scrollLeft < hidden - 1) more.push("after");
    if (more.length) place.dataset.more = more.join(" ");
    else delete place.dataset.more;
    if (hidden > 1) place.tabIndex = 0;
    else place.removeAttribute("tabindex");
  }

  function start() {
    const places = [...document.querySelectorAll(SCROLLS)];
    const sizes = new ResizeObserver((entries) => entries.forEach((entry) => look(entry.target)));
    for (const place of places) {
      sizes.observe(place);
      place.addEventListener("scroll", () => look(place), { passive: true });
    }
    // Formulas are as wide as their font makes them, which comes later.
    document.fonts.ready.then(() => places.forEach(look));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
