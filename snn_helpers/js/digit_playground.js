// A trained network that reads what is drawn, step by step (chapter 3).
import { Network, flickerFrame, rasterise, unpackLayers } from "./simulation.js";
import { bytesOf, frame, isNarrow, keepDrawn, listen, liveText, make, newId, panel, round, set, spreadOut, viewOf } from "./parts.js";

const PAD = 252; // pixels on the page, nine for each of the digit's
const SPEEDS = { "8 steps/s": 8, "20 steps/s": 20, "fastest": Infinity };
const CONTROLS = [{ name: "seed", label: "seed of the flicker", min: 0, max: 999, step: 1 }];

// Blue below zero, white at it, red above: the book's colours for signed values.
function signedColour(value, limit) {
  const share = Math.max(-1, Math.min(1, value / limit));
  const end = share < 0 ? [0, 90, 170] : [200, 60, 0];
  return end.map((channel) => Math.round(255 + (channel - 255) * Math.abs(share)));
}

function amountColour(value, limit) {
  const share = Math.max(0, Math.min(1, value / limit));
  return [[20, 250], [24, 220], [34, 90]].map(([from, to]) => Math.round(from + (to - from) * share));
}

/** Values as an image of `columns` columns, a dot each; CSS makes it large. */
function paint(canvas, values, columns, colour) {
  const rows = Math.ceil(values.length / columns);
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  values.forEach((value, i) => image.data.set([...colour(value, i), 255], 4 * i));
  context.putImageData(image, 0, 0);
}

function moving(title, shape) {
  const canvas = make("canvas", { role: "img", "aria-label": `${title}: not shown yet`, class: `snn-image snn-${shape}` });
  return { canvas, figure: make("figure", {}, canvas, make("figcaption", {}, title)), title };
}

/** The pad: strokes with mouse, finger or pen; with the keyboard, arrows move and space lets the pen down or up. */
function drawingPad(onBegin, onStroke) {
  const canvas = make("canvas", { class: "snn-pad", width: PAD, height: PAD, tabindex: "0", role: "application",
    "aria-label": "Drawing pad. Draw a digit with mouse or finger; with the keyboard, arrows move the pen, space lets it down or up." });
  const context = canvas.getContext("2d");
  let strokes = [], stroke = null, pen = { x: PAD / 2, y: PAD / 4, down: false }, shownPixels = null;

  function draw() {
    context.fillStyle = "#141822";
    context.fillRect(0, 0, PAD, PAD);
    if (shownPixels) {
      const size = PAD / 28;
      shownPixels.forEach((ink, i) => {
        context.fillStyle = `rgb(${amountColour(ink, 255)})`;
        context.fillRect((i % 28) * size, Math.floor(i / 28) * size, size, size);
      });
    }
    context.strokeStyle = "#fadc5a";
    context.lineWidth = 18;
    context.lineCap = context.lineJoin = "round";
    for (const path of strokes) {
      context.beginPath();
      context.moveTo(...path[0]);
      path.forEach((point) => context.lineTo(...point));
      context.stroke();
    }
    if (canvas.matches(":focus")) {
      context.fillStyle = pen.down ? "#56b4e9" : "#ffffff";
      context.fillRect(pen.x - 2, pen.y - 9, 4, 18);
      context.fillRect(pen.x - 9, pen.y - 2, 18, 4);
    }
  }

  function begin(point) {
    if (shownPixels) { shownPixels = null; strokes = []; }
    stroke = [point];
    strokes.push(stroke);
    onBegin();
  }

  function end() {
    if (stroke) { stroke = null; onStroke(strokes); }
    draw();
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * PAD / box.width, (event.clientY - box.top) * PAD / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    pen.down = false;
    begin(place(event));
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!stroke || !canvas.hasPointerCapture(event.pointerId)) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) stroke.push(place(each));
    draw();
  });
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-9, 0], ArrowRight: [9, 0], ArrowUp: [0, -9], ArrowDown: [0, 9] }[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    if (move) {
      [pen.x, pen.y] = [pen.x + move[0], pen.y + move[1]].map((at) => Math.min(PAD - 12, Math.max(12, at)));
      if (pen.down) stroke.push([pen.x, pen.y]);
    } else {
      pen.down = !pen.down;
      if (pen.down) begin([pen.x, pen.y]);
      else end();
    }
    draw();
  });
  canvas.addEventListener("focus", draw);
  canvas.addEventListener("blur", () => { if (pen.down) { pen.down = false; end(); } draw(); });
  return {
    canvas,
    clear() { strokes = []; stroke = null; shownPixels = null; pen.down = false; draw(); },
    show(pixels) { strokes = []; stroke = null; shownPixels = pixels; draw(); },
  };
}

/** The ten read-outs over time, as a line each; the leading one stands out. */
function drawRace(canvas, lines, nSteps) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth || 300, canvas.clientHeight || 200];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio))
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas);
  const [ink, lead, quiet] = ["--snn-ink", "--snn-red", "--snn-grey"].map((name) => style.getPropertyValue(name));
  const last = lines.at(-1) ?? Array(10).fill(0);
  const low = Math.min(-0.5, ...lines.flat()), high = Math.max(0.3, ...lines.flat());
  context.font = "12px system-ui, sans-serif";
  // As much room as the longest number needs, its minus included.
  const left = Math.ceil(Math.max(...["0", round(low, 1)].map((text) => context.measureText(text).width))) + 10;
  const x = (t) => left + (t / Math.max(1, nSteps - 1)) * (width - left - 50);
  const y = (value) => 8 + ((high - value) / (high - low)) * (height - 40);
  context.fillStyle = context.strokeStyle = quiet;
  context.beginPath();
  context.moveTo(left, y(0));
  context.lineTo(width - 50, y(0));
  context.stroke();
  context.fillStyle = ink;
  context.textAlign = "right";
  context.fillText("0", left - 6, y(0) + 4);
  context.fillText(round(low, 1), left - 6, y(low) + 4);
  context.textAlign = "center";
  context.fillText("time (steps)", width / 2, height - 6);
  const order = last.map((value, k) => [value, k]).sort((a, b) => b[0] - a[0]).map(([, k]) => k);
  // Labels side by side, not on each other, and all ten of them.
  const places = spreadOut(last.map((value) => y(value) + 4), 12, 12, height - 18);
  for (const k of order) {
    const leads = k === order[0] && lines.length > 2;
    context.strokeStyle = context.fillStyle = leads ? lead : quiet;
    context.lineWidth = leads ? 3 : 1.2;
    context.beginPath();
    lines.forEach((values, t) => context.lineTo(x(t), y(values[k])));
    context.stroke();
    if (leads || lines.length > 2) {
      context.fillStyle = leads ? lead : ink;
      context.font = leads ? "bold 13px system-ui, sans-serif" : "12px system-ui, sans-serif";
      context.textAlign = "left";
      context.fillText(String(k), x(lines.length - 1) + 6, places[k]);
    }
  }
}

function render({ model, el }) {
  const sizes = model.get("_sizes"), { n_steps: nSteps, begin_eval: begin } = model.get("_showing");
  const network = new Network(
    unpackLayers(viewOf(model.get("_weights")), sizes, model.get("_scales"), model.get("_biases"), model.get("_neurons")));
  const [hiddenLayer, hiddenNeurons] = sizes.length > 3
    ? ["first hidden layer", "neurons of the first hidden layer"] : ["hidden layer", "hidden neurons"];
  const digits = bytesOf(model.get("_digits")), labels = model.get("_labels");
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  const controls = panel(model, "digits", CONTROLS);
  // What is drawn is no longer the digit that was picked.
  const pad = drawingPad(() => { pick.value = ""; }, (strokes) => start(rasterise(strokes)));
  const digitId = newId("digit"), speedId = newId("speed"), stepId = newId("step");
  const pick = make("select", { id: digitId }, make("option", { value: "" }, "choose"),
    ...labels.map((label, i) => make("option", { value: i }, `digit ${i + 1}: a ${label}`)));
  const speed = make("select", { id: speedId }, ...Object.keys(SPEEDS).map((name) => make("option", { value: name }, name)));
  speed.selectedIndex = 1;
  const buttons = Object.fromEntries(["Clear", "Pause", "Ask again"].map((name) => [name, make("button", { type: "button" }, name)]));
  const stepper = make("input", { id: stepId, type: "range", min: 1, max: nSteps, step: 1, value: 1 });
  const stepValue = make("output", { for: stepId, class: "snn-value", "aria-live": "off" }, "1");
  const images = {
    input: moving("input, flickering", "square"),
    states: moving(`${hiddenLayer}: states`, "square"),
    outputs: moving(`${hiddenLayer}: outputs`, "square"),
    last: moving("output layer: states above, outputs below, 0 to 9", "strip"),
  };
  const race = make("canvas", { role: "img", class: "snn-race", "aria-label": "The ten states racing: not shown yet" });
  const answer = make("p", { class: "snn-answer", "aria-hidden": "true" });
  const text = liveText();

  // What the network sees and what it says of it are next to the pad, where the reader looks while drawing.
  const fold = make("details", { class: "snn-more" }, make("summary", {}, "Speed, step and seed"),
    make("div", { class: "snn-controls" },
      make("div", { class: "snn-control" }, make("label", { for: speedId }, "speed"), speed),
      make("div", { class: "snn-control" }, make("label", { for: stepId }, "step"), stepper, stepValue),
      ...controls.element.childNodes));
  fold.open = !isNarrow();
  const side = make("div", { class: "snn-panel" }, pad.canvas,
    make("div", { class: "snn-reading" }, images.input.figure, answer),
    make("div", { class: "snn-actions" }, buttons.Clear, buttons.Pause, buttons["Ask again"]),
    make("div", { class: "snn-control" }, make("label", { for: digitId }, "a real digit"), pick),
    fold);
  const picture = make("div", { class: "snn-picture" },
    make("div", { class: "snn-images" }, images.states.figure, images.outputs.figure, images.last.figure),
    make("figure", {}, race, make("figcaption", {}, "the ten states, averaged so far: the highest is the answer")),
    ...text.elements);
  const root = frame("Digit playground", side, picture);
  root.classList.add("snn-digits");
  el.append(root);

  let pixels = new Uint8Array(784), image = Float64Array.from(pixels, (ink) => ink / 255 - 0.5);
  let lines = [], input = image, playing = false, request = 0, due = 0, timed = null;
  const columns = Math.ceil(Math.sqrt(sizes[1]));

  function advance() {
    input = flickerFrame(image, model.get("seed"), network.t);
    network.step(input);
    lines.push(readOut());
  }

  // The answer counts from begin_eval on, as the network was trained.
  let skipped = null;
  function readOut() {
    if (network.t === begin) skipped = [...network.sum];
    const n = network.t - begin;
    if (n < 1) return network.means;
    return Array.from(network.sum, (sum, j) => (sum - (begin ? skipped[j] : 0)) / n);
  }

  function draw() {
    const [hidden, last] = [network.handedOut[0], network.handedOut.at(-1)];
    paint(images.input.canvas, input, 28, (value) => signedColour(value, 0.5));
    paint(images.states.canvas, hidden.states, columns, (value) => signedColour(value, 2));
    paint(images.outputs.canvas, hidden.outputs, columns, (value) => amountColour(value, 1.5));
    const row = last.states.length;
    paint(images.last.canvas, [...last.states, ...last.outputs], row,
      (value, i) => (i < row ? signedColour(value, 8) : amountColour(value, 0.5)));
    drawRace(race, lines, nSteps);
    stepper.value = Math.max(1, network.t);
    stepValue.textContent = network.t;
    stepper.setAttribute("aria-valuetext", `${network.t} of ${nSteps} steps`);
  }

  function leader() {
    const means = lines.at(-1);
    return means.indexOf(Math.max(...means));
  }

  /** Words for what is seen; read out only when the showing stops. */
  function tell() {
    const done = network.t >= nSteps;
    const blank = pixels.every((ink) => ink === 0);
    const [hidden] = network.handedOut;
    const firing = hidden.outputs.reduce((n, output) => n + (output > 0), 0);
    const order = [...(lines.at(-1) ?? [])].map((value, k) => [value, k]).sort((a, b) => b[0] - a[0]);
    const lead = order.length ? order[0][1] : 0;
    answer.textContent = blank ? "Draw a digit" : done ? `I read a ${lead}` : network.t > 2 ? `Perhaps a ${lead}` : "…";
    const said = blank ? "The pad is empty. Draw a digit, or pick a real one."
      : `After ${network.t} of ${nSteps} steps the network ${done ? "reads" : "leans to"} a ${lead}`
        + `${order.length ? `; next comes ${order[1][1]}` : ""}. ${firing} of ${sizes[1]} ${hiddenNeurons} fire in this step.`;
    images.input.canvas.setAttribute("aria-label", `The flickering input at step ${network.t}${blank ? ", an empty pad" : ""}`);
    images.states.canvas.setAttribute("aria-label", `States of the ${sizes[1]} ${hiddenNeurons} at step ${network.t}`);
    images.outputs.canvas.setAttribute("aria-label", `Outputs of the ${hiddenNeurons} at step ${network.t}: ${firing} fire`);
    images.last.canvas.setAttribute("aria-label", `States and outputs of the ten output neurons at step ${network.t}`);
    race.setAttribute("aria-label", order.length
      ? `The ten states racing, step ${network.t}. From first to last: ${order.map(([, k]) => k).join(", ")}` : "The race has not begun");
    text.tell(said);
  }

  function loop(now) {
    request = 0;
    if (!playing) return;
    const perSecond = SPEEDS[speed.value];
    if (now >= due) {
      due = perSecond === Infinity ? 0 : Math.max(due, now - 250) + 1000 / perSecond;
      timed ??= { from: now, steps: -1 };
      timed.steps += 1;
      advance();
      draw();
      if (network.t % 8 === 0 || network.t >= nSteps) tell();
      if (network.t >= nSteps) {
        root.dataset.stepsPerSecond = ((1000 * timed.steps) / (now - timed.from)).toFixed(1);
        finish();
        return;
      }
    }
    request = requestAnimationFrame(loop);
  }

  function finish() {
    play(false);
    draw();
    tell();
    set(model, { means: lines.at(-1), answer: leader() });
  }

  function play(on) {
    playing = on;
    buttons.Pause.textContent = on ? "Pause" : "Play";
    if (on && !request) {
      due = 0;
      timed = null;
      request = requestAnimationFrame(loop);
    }
  }

  function restart() {
    network.restart();
    lines = [];
    input = image;
    if (still.matches || pixels.every((ink) => ink === 0)) {
      // No motion: the end at once, and the slider shows each step.
      const blank = pixels.every((ink) => ink === 0);
      while (!blank && network.t < nSteps) advance();
      if (blank) { play(false); draw(); tell(); } else finish();
    } else {
      draw();
      play(true);
    }
  }

  function start(bytes) {
    pixels = bytes;
    image = Float64Array.from(bytes, (ink) => ink / 255 - 0.5);
    set(model, { drawing: new DataView(bytes.slice().buffer), answer: -1 });
    restart();
  }

  buttons.Clear.addEventListener("click", () => { pad.clear(); pick.value = ""; start(new Uint8Array(784)); });
  buttons.Pause.addEventListener("click", () => {
    if (playing) { play(false); tell(); }
    else if (network.t >= nSteps) { network.restart(); lines = []; play(true); }
    else if (pixels.some((ink) => ink > 0)) play(true);
  });
  buttons["Ask again"].addEventListener("click", () => set(model, { seed: (model.get("seed") + 1) % 1000 }));
  pick.addEventListener("change", () => {
    if (pick.value === "") return;
    const bytes = digits.slice(784 * Number(pick.value), 784 * (Number(pick.value) + 1));
    pad.show(bytes);
    start(bytes);
  });
  stepper.addEventListener("input", () => {
    if (pixels.every((ink) => ink === 0)) return;
    play(false);
    const wanted = Number(stepper.value);
    if (wanted < network.t) { network.restart(); lines = []; }
    while (network.t < wanted) advance();
    if (network.t >= nSteps) finish();
    else { draw(); tell(); }
  });

  // The first picture is a real digit at its last step: something to see before anything moves.
  const stopDrawing = keepDrawn(model, [], picture, () => drawRace(race, lines, nSteps));
  const stopSeed = listen(model, ["seed"], () => restart());
  if (labels.length > 0) {
    pick.value = 0;
    pixels = digits.slice(0, 784);
    image = Float64Array.from(pixels, (ink) => ink / 255 - 0.5);
    pad.show(pixels);
    while (network.t < nSteps) advance();
    finish();
  } else {
    pad.clear();
    restart();
  }
  return () => { play(false); cancelAnimationFrame(request); stopDrawing(); controls.stop(); text.stop(); stopSeed(); };
}

export default { render };
