// What is wider than its place scrolls there: the keyboard reaches it then and only then, and tables, formulas and
// figures show on which side there is more. The style is in book.css, `[data-more]`.
(() => {
  const FADES = ".pst-scrollable-table-container, div.math, .figure-view";
  const SCROLLS = `${FADES}, pre, .cell_output > .output`;
  const SECTIONS = ".bd-article > section > section";
  const watched = new WeakSet();

  // All are read before the first is changed: a change makes the browser lay out the page once more.
  function look(places) {
    const seen = places.map((place) => {
      const { scrollLeft, scrollWidth, clientWidth, scrollHeight, clientHeight } = place;
      const hidden = scrollWidth - clientWidth;
      const more = [];
      if (hidden > 1 && scrollLeft > 1) more.push("before");
      if (hidden > 1 && scrollLeft < hidden - 1) more.push("after");
      const fades = place.matches(FADES);
      return { place, scrolls: hidden > 1 || (!fades && scrollHeight > clientHeight + 1), more: fades ? more : [] };
    });
    for (const { place, scrolls, more } of seen) {
      if (more.length) place.dataset.more = more.join(" ");
      else delete place.dataset.more;
      if (scrolls) place.tabIndex = 0;
      else place.removeAttribute("tabindex");
    }
  }

  // Tells of what is in a closed fold, or not laid out yet, as soon as it is.
  const sizes = new ResizeObserver((entries) => {
    look([...new Set(entries.map(({ target }) => target.closest(SCROLLS)))].filter(Boolean));
  });

  function watch(place) {
    if (watched.has(place)) return;
    watched.add(place);
    sizes.observe(place);
    if (!place.matches(FADES)) return;
    // What is in it, too: a formula is as wide as its font makes it, which comes later.
    for (const child of place.children) sizes.observe(child);
    place.addEventListener("scroll", () => look([place]), { passive: true });
  }
  // The theme's own script hands on what it finds, at the start and when something is new: see `pages.py`.
  self.watchScrolling = (place) => {
    if (place.matches(SCROLLS)) watch(place);
  };

  // Sections below the screen wait until they near it (book.css). As soon as the reader moves, the rest is laid out too,
  // one by one in idle moments, so that distances are right: the browser remembers them for whoever comes back. Where a
  // place far down is asked for, all is laid out at once.
  const MOVES = ["scroll", "wheel", "touchstart", "pointerdown", "keydown"];

  function layOut() {
    const waiting = [...document.querySelectorAll(SECTIONS)];
    const show = (section) => section.classList.add("laid-out");
    const next = () => {
      if (waiting.length) show(waiting.shift());
      if (waiting.length) requestIdleCallback(next);
    };
    const begin = () => {
      for (const move of MOVES) removeEventListener(move, begin);
      requestIdleCallback(next);
    };
    const far = location.hash || performance.getEntriesByType("navigation")[0]?.type !== "navigate";
    if (far || !self.requestIdleCallback) waiting.forEach(show);
    else for (const move of MOVES) addEventListener(move, begin, { passive: true });
  }

  function start() {
    for (const place of document.querySelectorAll(SCROLLS)) watch(place);
    layOut();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
