// A network that learns real digits while the reader watches. The training runs beside the page, in a worker.
import { pytorchCode } from "./learning_code.js";
import { REACH, RULES, isOfPairs } from "./learning_rules.js";
import { RESETS, bytesOf, counted, drawing, fitDrawing, frame, isNarrow, keepDrawn, legend, liveText, listen, make, newId, noPenalty, panel, plot, round, set, valuesOf, whileSeen } from "./parts.js";

const SIDE = 14, N_SHOWN = 20;
const IN_WORDS = {
  backpropagation: "backpropagation through time",
  "three factors": "three factors, forward in time: the same gradient",
  "error x pre first": "error × pre before post",
  Hebb: "Hebb: rate × rate",
  STDP: "STDP",
  none: "nothing: only the output layer learns",
};

const LEARNING_CONTROLS = [
  { name: "rule", label: "rule", options: RULES },
  { name: "learning_rate", label: "learning rate at first", min: 0, max: 0.5, step: 0.01 },
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01 },
  { name: "threshold", label: "threshold θ", min: 0.1, max: 3, step: 0.05 },
  { name: "penalty", label: "penalty p", min: 0, max: 4, step: 0.05, when: noPenalty },
  { name: "reset", label: "reset", options: RESETS },
  { name: "n_steps", label: "steps a digit", min: 4, max: 64, step: 1 },
  { name: "n_hidden", label: "hidden neurons", min: 4, max: 200, step: 1 },
  { name: "seed", label: "seed", min: 0, max: 999, step: 1 },
];
const NAMES = LEARNING_CONTROLS.map(({ name }) => name);
const STARTS_OVER = ["rule", "n_hidden", "seed"]; // what else is moved acts on the network as it is

const grouped = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ",");

/** 256 colours from one to another, as a canvas holds a dot: made once, since there are tens of thousands of dots. */
function ramp(from, through, to) {
  const dots = new Uint8ClampedArray(4 * 256);
  for (let k = 0; k < 256; k++) {
    const [low, high, share] = k < 128 ? [from, through, k / 128] : [through, to, (k - 128) / 127];
    dots.set([...low.map((channel, i) => channel + (high[i] - channel) * share), 255], 4 * k);
  }
  return new Uint32Array(dots.buffer);
}
const SIGNED = ramp([0, 90, 170], [255, 255, 255], [200, 60, 0]); // blue below zero, red above
const AMOUNT = ramp([20, 24, 34], [135, 122, 62], [250, 220, 90]);
const level = (share) => Math.max(0, Math.min(255, Math.round(255 * share)));

/** A canvas of `columns` times `rows` dots, each as `dot(column, row)` gives it; 0 leaves one clear. */
function paintDots(canvas, columns, rows, dot) {
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows), dots = new Uint32Array(image.data.buffer);
  for (let row = 0, at = 0; row < rows; row++) for (let column = 0; column < columns; column++, at++) dots[at] = dot(column, row);
  context.putImageData(image, 0, 0);
}

/** The training: in a worker, or, where the host allows none, in slices of this thread. Returns `send` and `stop`. */
function beside(text, tell) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const orders = [];
  let receive = (order) => orders.push(order), worker = null, heard = false, over = false;
  const here = async () => {
    worker?.terminate();
    worker = null;
    const { default: startLearning } = await import(url);
    if (over) return;
    receive = startLearning((message) => { if (!over) tell(message, "this page's own thread"); }, 8);
    orders.forEach(receive);
  };
  try {
    worker = new Worker(url, { type: "module" });
    worker.onmessage = ({ data }) => { heard = true; tell(data, "a worker"); };
    // Said later, and not thrown, where a policy forbids it.
    worker.onerror = (event) => { if (!heard) { event.preventDefault(); here(); } };
  } catch {
    here();
  }
  return {
    send(order) {
      if (!worker) { receive(order); return; }
      if (!heard) orders.push(order); // for the other way, should the worker not come
      worker.postMessage(order);
    },
    stop() { over = true; receive({ do: "run", on: false }); worker?.terminate(); URL.revokeObjectURL(url); },
  };
}

function render({ model, el }) {
  const bytes = bytesOf(model.get("_digits")), labels = [...bytesOf(model.get("_labels"))];
  const nTrain = model.get("_n_train"), nHeldOut = labels.length - nTrain;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const settings = () => valuesOf(model, NAMES);

  const controls = panel(model, "learning", LEARNING_CONTROLS);
  const [start, step, over] = ["Start", "One step", "Start over"].map((name) => make("button", { type: "button" }, name));
  const curves = drawing(), windows = drawing(), votes = drawing(), text = liveText();
  const weights = make("canvas", { role: "img", "aria-label": "Weights of the hidden neurons: not drawn yet", style: "width: 100%; image-rendering: pixelated" });
  const image = make("canvas", { role: "img", "aria-label": "The digit shown", class: "snn-image snn-square" });
  const raster = make("canvas", { role: "img", "aria-label": "Spikes of the hidden neurons: not drawn yet", style: "width: 100%; height: 200px; image-rendering: pixelated" });
  const pickId = newId("digit");
  const pick = make("select", { id: pickId }, ...labels.slice(nTrain, nTrain + N_SHOWN).map((label, k) => make("option", { value: k }, `digit ${k + 1}: a ${label}`)));
  const code = make("pre", { tabindex: "0", role: "group", "aria-label": "The settings as PyTorch code", style: "overflow: auto; max-height: 22rem; font-size: 12px; margin: 0.4rem 0; padding: 0.5rem; color: inherit; background: none; border: 1px solid var(--snn-edge)" });
  const copy = make("button", { type: "button" }, "Copy");
  const fold = make("details", { class: "snn-more" }, make("summary", {}, "As PyTorch code"), code, copy);
  const caption = (words) => make("figcaption", {}, words);
  const weightsCaption = caption("The hidden neurons' weights, an image each: red where a bright pixel excites, blue where it inhibits.");
  const rasterCaption = caption("");
  const votesCaption = caption("The ten read-outs, less their mean: the highest is the answer.");
  const row = (...parts) => make("div", { style: "display: flex; flex-wrap: wrap; gap: 0.4rem 1rem; align-items: start" }, ...parts);
  const cell = (width, ...parts) => make("figure", { style: `flex: 1 1 ${width}px; min-width: 0` }, ...parts);

  const hold = make("div", { class: "snn-hold" }, curves, make("div", { class: "snn-actions", style: "margin: 0.2rem 0" }, start, step, over));
  const picture = make("div", { class: "snn-picture" }, hold, ...text.elements,
    make("figure", {}, windows, legend([["law", "spikes of which the error asks for more"], ["state", "for less"], ["threshold", "a lone spike’s law, decay β a step"]]),
      caption("The window of its own updates: what an input gets, by its delay to a spike, in units of the mean learning signal. On grey, the input comes first.")),
    row(cell(200, weights, weightsCaption),
      cell(200, row(make("div", { style: "flex: 0 0 84px" }, image),
        make("div", { style: "flex: 1 1 90px" }, make("label", { for: pickId }, `a held-out digit, ${SIDE} × ${SIDE} pixels`), pick)), raster, rasterCaption)),
    make("figure", {}, votes, votesCaption), fold);
  el.append(frame("Learning explorer", controls.element, picture));

  let training = null, playing = false, seen = false, latest = null, before = null, watched = 0, told = 0, where = "";

  // --- what is drawn ---

  function drawCurves() {
    const { width, height } = fitDrawing(curves, isNarrow() ? 170 : 210);
    const half = (width - 110) / 2, runs = [before, latest].filter(Boolean);
    const most = Math.max(1000, ...runs.map((run) => run.seen)), x = [0, most], nX = Math.max(2, Math.floor(half / 60));
    const common = { top: 22, width: half, height: height - 62, x, nX, nY: 4, xLabel: "digits seen" };
    const right = plot(curves, { ...common, left: 40, y: [0, 100] });
    right.word(0, 104, "held out: % right", "words");
    const worst = Math.max(2.5, ...runs.flatMap((run) => run.losses.map(([, loss]) => Math.min(5, loss))));
    const loss = plot(curves, { ...common, left: half + 92, y: [0, worst] });
    loss.word(0, 1.04 * worst, "training loss", "words");
    for (const run of runs) {
      const kind = run === latest ? "state" : "axis";
      right.line(run.tests.map(([at, share]) => [at, 100 * share]), kind);
      loss.line(run.losses.map(([at, value]) => [at, Math.min(worst, value)]), run === latest ? "law" : "axis");
    }
    if (latest) for (const [at, share] of latest.tests.slice(-1)) right.dot(at, 100 * share, "measured");
  }

  function drawWindows() {
    const { width, height } = fitDrawing(windows, isNarrow() ? 330 : 190);
    const stacked = isNarrow(), across = stacked ? width - 62 : (width - 118) / 2, down = stacked ? (height - 110) / 2 : height - 62;
    const delays = Array.from({ length: 2 * REACH + 1 }, (_, k) => k - REACH);
    [["own", "from this spike"], ["change", "from all spikes"]].forEach(([name, title], k) => {
      const values = ["raised", "lowered"].map((kind) => latest?.window[kind][name] ?? delays.map(() => 0));
      const most = Math.max(0.5, ...values.flat().map(Math.abs)) * 1.08;
      const at = { left: stacked || k === 0 ? 52 : across + 108, top: 22 + (stacked ? k * (down + 54) : 0) };
      const area = plot(windows, { ...at, width: across, height: down, x: [-REACH - 0.5, REACH + 0.5], y: [-most, most], nY: 4, nX: 8, xLabel: k === 1 || !stacked ? "Δt = t(spike) − t(input), steps" : " " });
      area.bar(0, REACH + 0.5, -most, most, "causal");
      area.line([[-REACH - 0.5, 0], [REACH + 0.5, 0]], "axis");
      area.word(-REACH - 0.5, most * 1.09, title, "words");
      if (name === "own" && ["backpropagation", "three factors", "error x pre first"].includes(model.get("rule")))
        for (const sign of [1, -1]) area.line(delays.filter((d) => d >= 0).map((d) => [d, sign * values[0][REACH] * model.get("decay") ** d]), "threshold");
      ["law", "state"].forEach((kind, j) => area.line(delays.map((d, i) => [d, values[j][i]]), kind));
    });
  }

  function drawImages() {
    const ink = (k, i) => (i % 2 ? bytes[(k * SIDE * SIDE + i) >> 1] & 15 : bytes[(k * SIDE * SIDE + i) >> 1] >> 4);
    paintDots(image, SIDE, SIDE, (column, line) => AMOUNT[level(ink(nTrain + watched, line * SIDE + column) / 15)]);
    image.setAttribute("aria-label", `The digit shown, a ${labels[nTrain + watched]}`);
    if (!latest) return;
    const { nHidden, nSteps, outputs } = latest, shown = latest.weights, columns = Math.ceil(Math.sqrt(nHidden)), rows = Math.ceil(nHidden / columns);
    const limit = 3 * Math.sqrt(shown.reduce((sum, value) => sum + value * value, 0) / shown.length) || 1, pitch = SIDE + 1;
    paintDots(weights, columns * pitch - 1, rows * pitch - 1, (column, line) => {
      const neuron = Math.floor(line / pitch) * columns + Math.floor(column / pitch), i = line % pitch, j = column % pitch;
      return i === SIDE || j === SIDE || neuron >= nHidden ? 0 : SIGNED[level(0.5 + shown[neuron * SIDE * SIDE + i * SIDE + j] / limit / 2)];
    });
    paintDots(raster, nSteps - 1, nHidden, (t, neuron) => AMOUNT[level(outputs[t * nHidden + neuron] / 1.5)]);
    const nSpikes = outputs.reduce((n, output) => n + (output > 0), 0);
    const said = `${counted(nSpikes, "spike")} of ${counted(nHidden, "hidden neuron")} in ${counted(nSteps - 1, "step")}: a ${latest.label}, read as a ${latest.answer}`;
    rasterCaption.textContent = `${said}. A row for each neuron, time to the right.`;
    raster.setAttribute("aria-label", said);
    weights.setAttribute("aria-label", `Weights of ${counted(nHidden, "hidden neuron")} after ${grouped(latest.seen)} digits, as images`);
    const { width, height } = fitDrawing(votes, 110);
    const mean = latest.means.reduce((a, b) => a + b, 0) / 10, heights = Array.from(latest.means, (value) => value - mean);
    const y = [Math.min(-0.1, ...heights), Math.max(0.1, ...heights)];
    const area = plot(votes, { left: 52, top: 6, width: width - 62, height: height - 42, x: [-0.5, 9.5], y, nX: 10, nY: 2, xLabel: "digit" });
    heights.forEach((value, k) => area.bar(k - 0.35, k + 0.35, 0, value, k === latest.answer ? "output" : "current"));
    votes.setAttribute("aria-label", `Read-outs for the digits 0 to 9, less their mean: ${heights.map((value) => round(value, 2)).join(", ")}`);
  }

  function tellAll() {
    if (!latest) { text.tell(`${nTrain} digits to learn from, ${nHeldOut} held out, ${SIDE} × ${SIDE} pixels. Press Start.`); return; }
    const { seen: n, tests, losses, perSecond, diverged, cosine } = latest, [at, share] = tests.at(-1);
    const error = 100 * 1.96 * Math.sqrt((share * (1 - share)) / nHeldOut), rule = model.get("rule");
    const said = diverged ? "The loss has run away. Lower the learning rate, and start over." : [
      `${IN_WORDS[rule].replace(/^./, (first) => first.toUpperCase())}. ${n === 0 ? "Nothing learned yet" : `${grouped(n)} digits seen`}${
        n > 0 && perSecond > 0 ? `, ${grouped(perSecond)} a second` : ""}.`,
      `Held out: ${round(100 * share, 0)} % of ${nHeldOut} read rightly (± ${round(error, 0)})${at < n ? `, ${grouped(n - at)} digits ago` : ""}.`,
      losses.length ? `Training loss ${round(losses.at(-1)[1], 2)}.` : "",
      isOfPairs(rule) && n > 0 ? `Cosine of its step with the gradient's: ${round(cosine, 2)}.` : "",
    ].filter(Boolean).join(" ");
    text.tell(said);
    curves.setAttribute("aria-label", `Two curves over the digits seen: held-out digits read rightly, and training loss. ${said}`);
    const own = latest.window;
    windows.setAttribute("aria-label", `The window of the updates, in units of the mean learning signal. What a spike itself gives to an input 0 to ${REACH} steps before it: where the error asks for more, ${
      own.raised.own.slice(REACH).map((value) => round(value, 2)).join(", ")}; where it asks for less, ${own.lowered.own.slice(REACH).map((value) => round(value, 2)).join(", ")}`);
  }

  let later = 0;
  function draw() {
    drawCurves();
    drawWindows();
    // In a task of its own, so that no task is long.
    clearTimeout(later);
    later = setTimeout(drawImages, 0);
    if (!playing || performance.now() - told > 900) { told = performance.now(); tellAll(); }
    start.textContent = playing ? "Pause" : "Start";
    step.disabled = playing || Boolean(latest?.diverged);
  }

  function drawCode() {
    code.textContent = pytorchCode(settings(), { nTrain, source: model.get("_source") });
  }

  // --- what is done ---

  function heard(message, from) {
    where = from;
    picture.dataset.runs = where;
    latest = message;
    if (message.diverged) playing = false;
    const news = { seen: message.seen, accuracy: message.tests.at(-1)[1] };
    const isNew = model.get("seen") !== news.seen;
    set(model, news);
    // What is drawn follows `seen`; another digit shown, or a test, changes it not.
    if (!isNew) draw();
    requestAnimationFrame(() => training?.send({ do: "drawn" }));
  }

  function begin() {
    if (training) return;
    training = beside(model.get("_worker"), heard);
    training.send({ do: "load", bytes, labels, nPixels: SIDE * SIDE, nTrain, settings: settings(), pace: still ? 1500 : 150 });
  }

  const go = () => training?.send({ do: "run", on: playing && seen && !document.hidden });
  function play(on) {
    playing = on;
    begin();
    go();
    draw();
  }

  function startOver() {
    if (latest?.seen > 0) before = latest;
    latest = null;
    training?.send({ do: "restart", settings: settings() });
    draw();
  }

  start.addEventListener("click", () => play(!playing));
  step.addEventListener("click", () => { begin(); training.send({ do: "step" }); });
  over.addEventListener("click", startOver);
  pick.addEventListener("change", () => {
    watched = Number(pick.value);
    begin();
    training.send({ do: "watch", digit: watched });
  });
  copy.addEventListener("click", () => {
    const done = navigator.clipboard?.writeText(code.textContent);
    if (done) done.then(() => { copy.textContent = "Copied"; }, () => getSelection().selectAllChildren(code));
    else getSelection().selectAllChildren(code);
  });

  // Several settings may change at once, as by Reset: one order for all of them.
  let changed = new Set();
  const stops = NAMES.map((name) => listen(model, [name], () => {
    if (changed.size === 0)
      queueMicrotask(() => {
        if (STARTS_OVER.some((each) => changed.has(each))) startOver();
        else training?.send({ do: "set", settings: settings() });
        changed = new Set();
        copy.textContent = "Copy";
        drawCode();
      });
    changed.add(name);
  }));
  drawCode();
  tellAll();
  const stopDrawing = keepDrawn(model, [...NAMES, "seen"], picture, draw);
  const stopSeeing = whileSeen(picture, (is) => {
    seen = is;
    if (is) begin();
    go();
  });
  document.addEventListener("visibilitychange", go);
  return () => {
    clearTimeout(later);
    [stopDrawing, stopSeeing, controls.stop, text.stop, ...stops].forEach((stop) => stop());
    document.removeEventListener("visibilitychange", go);
    training?.stop();
  };
}

export default { render };
