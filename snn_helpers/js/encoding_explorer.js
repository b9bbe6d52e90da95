// One digit, sent in four codes; what one pixel sends, and what a mean and a leaky neuron make of it (chapter 2).
import { encodeFrames, expectedError, leakyStates, meanLimit, meanOf, pixelsOf, rootMeanSquare, runningMean } from "./encoding_model.js";
import { bytesOf, counted, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, remembering, round } from "./parts.js";

const SIDE = 28, LONGEST = 128;
// Reasons why a setting changes nothing that is seen, as things are; "" where it does.
const withoutChance = (get) => (["steady", "latency"].includes(get("code")) ? `the code “${get("code")}” draws nothing` : "");

const CONTROLS = [
  { name: "code", label: "code", options: ["flicker", "steady", "rate", "latency"] },
  { name: "n_steps", label: "steps", min: 1, max: LONGEST, step: 1 },
  { name: "contrast", label: "contrast", min: 0, max: 1, step: 0.01 },
  { name: "row", label: "row of the pixel", min: 0, max: SIDE - 1, step: 1 },
  { name: "column", label: "column of the pixel", min: 0, max: SIDE - 1, step: 1 },
  { name: "digit", label: "which digit", min: 0, max: 0, step: 1, more: true },
  { name: "decay", label: "decay β of the neuron", min: 0, max: 0.99, step: 0.01, more: true },
  { name: "seed", label: "seed", min: 0, max: 999, step: 1, when: withoutChance, more: true },
];

/** A picture of values in grey, from `low` (black) to `high` (white), one pixel each, as an address. */
function greyPicture(values, width, low, high) {
  const canvas = make("canvas", { width, height: values.length / width });
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, i) => {
    const grey = Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low || 1))));
    image.data.set([grey, grey, grey, 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

function describe(code, contrast, nSteps, off, pixels, label) {
  const between = code === "rate" ? contrast : contrast / 2; // white minus black, at the limit
  const share = (error, of) => `${round((100 * error) / of, 1)} %`;
  const steps = counted(nSteps, "step");
  if (code === "latency") {
    return `A ${label} in the latency code: each pixel that is not black sends one spike within ${steps}, the earlier the brighter. Its mean over all steps says only that it came; its time says how bright the pixel is.`;
  }
  const laws = contrast === 0 ? "" : ` By the law: flicker ${share(expectedError("flicker", pixels, nSteps), contrast / 2)}, rate code ${share(expectedError("rate", pixels, nSteps), contrast)}.`;
  if (contrast === 0) return `Without contrast all pixels are mid grey, and nothing tells white from black.`;
  return `A ${label}, shown for ${steps}: the mean is off by ${share(off, between)} of the difference between white and black (root mean square over the pixels).${laws}`;
}

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const labels = model.get("_labels");
  const controls = panel(model, "encoding", CONTROLS.map((spec) => (
    spec.name === "digit" ? { ...spec, max: labels.length - 1 } : spec)));
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["bar", "sent by the marked pixel"], ["first", "its mean so far"], ["third", "state of a neuron that it charges"],
    ["threshold", "the mean’s limit, and what the state varies around"]]), ...text.elements);
  el.append(frame("Encoding explorer", controls.element, picture));

  const digits = bytesOf(model.get("_digits"));
  const sentBy = remembering(({ code, nSteps, contrast, digit, seed }) => {
    const pixels = pixelsOf(digits.subarray(SIDE * SIDE * digit, SIDE * SIDE * (digit + 1)), contrast);
    const frames = encodeFrames(code, pixels, nSteps, seed);
    return { pixels, frames, mean: meanOf(frames), limit: meanLimit(code, pixels, nSteps) };
  });

  function draw() {
    const get = (name) => model.get(name);
    const code = get("code"), nSteps = get("n_steps"), contrast = get("contrast"), row = get("row");
    const { pixels, frames, mean, limit } = sentBy({ code, nSteps, contrast, digit: get("digit"), seed: get("seed") });
    const { width, height } = fitDrawing(svg, 430);

    // Three pictures: the digit, one frame of it, and the mean of all.
    const spiking = code === "rate" || code === "latency";
    const [low, high] = spiking ? [0, 1] : [-0.5, 0.5];
    const free = height - 76;
    const size = Math.min((width - 24) / 3, 0.32 * free), gap = (width - 3 * size) / 2;
    const shownMean = code === "latency" ? [0, 1 / nSteps] : spiking ? [0, 1] : [-0.25, 0.25];
    const canvas = plot(svg, { left: 0, top: 0, width, height, x: [0, width], y: [height, 0], nY: 0 });
    [["the digit", pixels, -0.5, 0.5], ["step 0", frames[0], low, high],
      [`mean of ${nSteps}`, mean, ...shownMean]].forEach(([title, values, from, to], k) => {
      const left = k * (size + gap);
      canvas.add("image", { href: greyPicture(values, SIDE, from, to), x: left, y: 0, width: size, height: size, class: "snn-pixels" });
      canvas.add("text", { x: left + size / 2, y: size + 14, "text-anchor": "middle" }, title);
      const each = size / SIDE;
      canvas.add("rect", { x: left, y: row * each, width: size, height: each, class: "snn-mark" });
      canvas.add("rect", { x: left + get("column") * each, y: row * each, width: each, height: each, class: "snn-mark" });
    });

    // The marked row over time, then what the marked pixel sends, its mean so far, and a neuron's state.
    const across = { left: 52, width: width - 62 }, x = [-0.5, nSteps - 0.5], nX = Math.min(nSteps, Math.max(3, Math.floor(across.width / 70)));
    const tops = [size + 24, size + 32 + 0.2 * free, size + 40 + 0.44 * free];
    const raster = new Float64Array(SIDE * nSteps);
    frames.forEach((values, t) => { for (let i = 0; i < SIDE; i++) raster[i * nSteps + t] = values[row * SIDE + i]; });
    const rows = plot(svg, { ...across, top: tops[0], height: 0.2 * free, x, y: [SIDE - 0.5, -0.5], yLabel: "its row", nY: 0 });
    rows.add("image", { href: greyPicture(raster, nSteps, low, high), x: across.left, y: tops[0], width: across.width,
      height: 0.2 * free, preserveAspectRatio: "none", class: "snn-pixels" });

    const place = row * SIDE + get("column");
    const sent = frames.map((values) => values[place]);
    const soFar = runningMean(sent);
    const y = spiking ? [0, 1.05] : [-0.55, 0.55];
    const pixel = plot(svg, { ...across, top: tops[1], height: 0.24 * free, x, y, yLabel: "pixel", nY: 3 });
    sent.forEach((value, t) => pixel.bar(t - 0.4, t + 0.4, 0, value, "current"));
    pixel.line([[x[0], limit[place]], [x[1], limit[place]]], "threshold");
    pixel.line([[x[0], soFar[0]], ...soFar.map((value, t) => [t, value])], "first");

    const decay = get("decay");
    const states = leakyStates(sent, decay);
    const goal = limit[place] / (1 - decay);
    const most = Math.max(0.2, ...states, goal), least = Math.min(spiking ? 0 : -0.2, ...states, goal), room = 0.06 * (most - least);
    const neuron = plot(svg, { ...across, top: tops[2], height: height - tops[2] - 36, x, y: [least - room, most + room],
      yLabel: "state", xLabel: "time (steps)", nX, nY: 2 });
    if (code !== "latency") neuron.line([[x[0], goal], [x[1], goal]], "threshold");
    neuron.line([[x[0], 0], ...states.map((value, t) => [t, value])], "third");

    const told = describe(code, contrast, nSteps, rootMeanSquare(mean, limit), pixels, labels[get("digit")]);
    svg.setAttribute("aria-label", `A digit, one frame of it and the mean of all frames; one row of pixels over time; what the pixel at row ${row}, column ${get("column")} sends, its mean so far, and the state of a neuron that it charges. ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, CONTROLS.map(({ name }) => name), picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
