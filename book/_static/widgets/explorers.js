// Brings the explorers on a page to life without a kernel: what a notebook's front end does for an anywidget,
// in little. The page holds each widget's state, its script included, as JSON; nothing is fetched.
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

  /** Bytes travel beside the JSON, in base64, with the path to where they belong. */
  function valuesOf({ state, buffers = [] }) {
    const values = structuredClone(state);
    for (const { data, path } of buffers) {
      const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
      const parent = path.slice(0, -1).reduce((part, key) => part[key], values);
      parent[path.at(-1)] = new DataView(bytes.buffer);
    }
    return values;
  }

  const scripts = new Map(); // by their text: two explorers of one kind share a module
  function load(text) {
    if (!scripts.has(text)) {
      const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
      scripts.set(text, import(url).finally(() => URL.revokeObjectURL(url)));
    }
    return scripts.get(text);
  }

  async function show(place, entry) {
    const box = document.createElement("div");
    if (!entry?.state?._esm) {
      box.textContent = "This control needs a running notebook.";
      place.replaceWith(box);
      return;
    }
    const values = valuesOf(entry);
    if (values._css && !document.querySelector(`style[data-explorer="${values._anywidget_id}"]`)) {
      const style = document.createElement("style");
      style.dataset.explorer = values._anywidget_id;
      style.textContent = values._css;
      document.head.append(style);
    }
    place.replaceWith(box);
    const { default: widget } = await load(values._esm);
    box.explorer = new Model(values);
    await widget.render({ model: box.explorer, el: box });
  }

  function start() {
    const states = {};
    for (const script of document.querySelectorAll('script[type="application/vnd.jupyter.widget-state+json"]'))
      Object.assign(states, JSON.parse(script.textContent).state);
    const places = [...document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')];
    const shown = places.map((place) => show(place, states[JSON.parse(place.textContent).model_id]));
    // For whoever waits for it, such as a test. What fails goes to the console as any error does.
    Promise.allSettled(shown).then(() => { document.documentElement.dataset.explorers = "ready"; });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
