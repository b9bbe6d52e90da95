// Brings the explorers on a page to life without a kernel: what a notebook's front end does for an anywidget,
// in little. The page holds each widget's state as JSON. What widgets share, their style and what their scripts begin
// with, is in files. So are large bytes, such as a network's weights, and a widget that has them comes when it is near.
(() => {
  /** A widget's state, with get, set, on, off and save_changes as anywidget promises them. */
  class Model {
    isStatic = true;
    #values;
    #listeners = new Map();

    constructor(values) {
      this.#values = values;
    }

    get(name) {
      return this.#values[name];
    }

    set(name, value) {
      if (Object.is(this.#values[name], value)) return;
      this.#values[name] = value;
      this.#tell(`change:${name}`);
      this.#tell("change");
    }

    on(event, listener) {
      this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
    }

    off(event, listener) {
      this.#listeners.set(event, (this.#listeners.get(event) ?? []).filter((each) => listener && each !== listener));
    }

    save_changes() {}

    send() {}

    #tell(event) {
      for (const listener of this.#listeners.get(event) ?? []) listener();
    }
  }

  const files = new Map(); // by their address
  /** What is in a file. The file is a script, since a page that was opened as a file may fetch nothing. */
  function textIn(file) {
    const name = /([^/]*)\.js$/.exec(file)[1];
    if (!files.has(file)) {
      const come = new Promise((done, failed) => {
        const here = () => self.explorerFiles?.[name];
        if (here() !== undefined) return done(here()); // it came with the page
        const lost = () => failed(new Error(`${file} did not come: is it where the page was built?`));
        const script = document.createElement("script");
        script.onload = () => (here() === undefined ? lost() : done(here()));
        script.onerror = lost;
        script.src = file;
        document.head.append(script);
      });
      files.set(file, come);
    }
    return files.get(file);
  }

  /** Long texts begin in files; bytes travel beside the JSON, in base64, with the path to where they belong. */
  async function valuesOf({ state, texts = {}, buffers = [] }) {
    const values = structuredClone(state);
    const read = Object.entries(texts).map(async ([name, parts]) => {
      values[name] = [...(await Promise.all(parts.map(textIn))), values[name]].join("");
    });
    await Promise.all([...read, ...buffers.map(async ({ data, file, path }) => {
      const bytes = Uint8Array.from(atob(data ?? (await textIn(file))), (letter) => letter.charCodeAt(0));
      const parent = path.slice(0, -1).reduce((part, key) => part[key], values);
      parent[path.at(-1)] = new DataView(bytes.buffer);
    })]);
    return values;
  }

  /**
   * Until the box is less than a window away, or the page is printed, or somebody asks for all. How far away it is
   * is known when `first` is there: before that, the boxes of the other explorers are empty.
   */
  function near(box, first) {
    if (location.hash.includes("?")) return Promise.resolve(); // a link that carries settings: it leads to an explorer
    return new Promise((done) => {
      const seen = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && come(), {
        rootMargin: "100% 0px",
      });
      const come = () => {
        seen.disconnect();
        done();
      };
      first.then(() => seen.observe(box));
      for (const event of ["beforeprint", "explorers:all"]) addEventListener(event, come, { once: true });
    });
  }

  const scripts = new Map(); // by their text: two explorers of one kind share a module
  function load(text) {
    if (!scripts.has(text)) {
      const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
      scripts.set(text, import(url).finally(() => URL.revokeObjectURL(url)));
    }
    return scripts.get(text);
  }

  async function show(place, entry, first) {
    const box = document.createElement("div");
    if (!entry?.state?._esm && !entry?.texts?._esm) {
      box.textContent = "This control needs a running notebook.";
      place.replaceWith(box);
      return;
    }
    box.className = "explorer-to-come";
    place.replaceWith(box);
    if (waits(entry)) await near(box, first);
    // It keeps its room until something else has it, so that nothing on the page jumps.
    await fill(box, entry).finally(() => box.removeAttribute("class"));
  }

  const styles = new Set(); // by their text, too
  function dress(text) {
    if (!text || styles.has(text)) return;
    styles.add(text);
    document.head.append(Object.assign(document.createElement("style"), { textContent: text }));
  }

  async function fill(box, entry) {
    let values;
    try {
      values = await valuesOf(entry);
    } catch (error) {
      box.textContent = `This explorer is not complete: ${error.message}`;
      throw error;
    }
    dress(values._css);
    const { default: widget } = await load(values._esm);
    box.explorer = new Model(values);
    await widget.render({ model: box.explorer, el: box });
  }

  const waits = (entry) => (entry?.buffers ?? []).some((buffer) => buffer.file);

  function start() {
    const states = {};
    for (const script of document.querySelectorAll('script[type="application/vnd.jupyter.widget-state+json"]'))
      Object.assign(states, JSON.parse(script.textContent).state);
    const places = [...document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')];
    const entries = places.map((place) => states[JSON.parse(place.textContent).model_id]);
    const waiting = entries.map(waits);
    const now = places.map((place, k) => waiting[k] ? null : show(place, entries[k]));
    const ready = Promise.allSettled(now.filter((_, k) => !waiting[k]));
    const shown = places.map((place, k) => now[k] ?? show(place, entries[k], ready));
    // For whoever waits for it, such as a test. What fails goes to the console as any error does.
    const mark = (word) => () => { document.documentElement.dataset.explorers = word; };
    ready.then(mark("ready"));
    Promise.allSettled(shown).then(mark("all"));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
