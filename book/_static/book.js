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
    const sizes = new ResizeObserver((entries) => {
      for (const place of new Set(entries.map(({ target }) => target.closest(SCROLLS)))) look(place);
    });
    for (const place of places) {
      // What is in it, too: a formula is as wide as its font makes it, which comes later.
      for (const each of [place, ...place.children]) sizes.observe(each);
      place.addEventListener("scroll", () => look(place), { passive: true });
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
