// Who fires in a deep network as it is drawn, and whom a gradient reaches (chapter 11).
import { STEPS, WIDTH, look } from "./depth_model.js";
import { bytesOf, drawing, fitDrawing, frame, keepDrawn, legend, liveText, make, panel, plot, remembering, round, valuesOf } from "./parts.js";

const fromData = (get) => get("repair") !== "none";
const CONTROLS = [
  { name: "layers", label: "layers", min: 2, max: 8, step: 1 },
  { name: "scale", label: "weights, times Xavier's", min: 0.5, max: 4, step: 0.05 },
  { name: "threshold", label: "threshold θ", min: 0.05, max: 2, step: 0.05,
    when: (get) => (fromData(get) && get("readout") === "spikes" ? "all thresholds come from data" : "") },
  { name: "decay", label: "decay β", min: 0, max: 1, step: 0.01 },
  { name: "repair", label: "repair", options: ["none", "thresholds from data"] },
  { name: "wanted_rate", label: "wanted rate, spikes a step", min: 0.02, max: 0.4, step: 0.02,
    when: (get) => (fromData(get) ? "" : "no threshold comes from data") },
  { name: "readout", label: "the answer is read from", options: ["states", "spikes"], more: true },
  { name: "seed", label: "seed", min: 0, max: 999, step: 1, more: true },
];
const NAMES = CONTROLS.map(({ name }) => name);

function percent(share) {
  return `${round(100 * share, 0)} %`;
}

function describe(net, readout) {
  const silent = net.map(({ fires }, k) => (fires === 0 ? k + 1 : 0)).filter(Boolean);
  const told = silent.length === 0 ? "Every layer fires." : `Silent: layer ${silent.join(", ")}.`;
  const { reach } = net[0];
  if (reach > 0) return `${told} A gradient reaches ${percent(reach)} of the first layer's neurons.`;
  // The topmost silent layer through which the gradient would have to come; the last one is read by its states.
  const walls = silent.filter((layer) => layer < net.length || readout === "spikes");
  return walls.length > 0 ? `${told} No gradient comes below layer ${Math.max(...walls)}: the first layer cannot learn.`
    : `${told} No gradient reaches the first layer.`;
}

function render({ model, el }) {
  const svg = drawing();
  const text = liveText();
  const controls = panel(model, "depth", CONTROLS);
  const picture = make("div", { class: "snn-picture" }, svg, legend([
    ["state", "spikes of one digit; below, neurons that fire"], ["output", "neurons that a gradient reaches"]]), ...text.elements);
  el.append(frame("Explorer of deep networks", controls.element, picture));
  const images = Float64Array.from(bytesOf(model.get("_digits")), (byte) => byte / 255 - 0.5), labels = model.get("_labels");
  const netOf = remembering((settings) => look(images, labels, settings));

  function draw() {
    const settings = valuesOf(model, NAMES), net = netOf(settings);
    const { width, height } = fitDrawing(svg, 465);
    const low = height < 420; // on a phone: no sizes of gradients
    const across = { left: 56, width: width - 66, x: [0.5, net.length + 0.5], nX: net.length };
    const note = (top, words) => shares.add("text", { x: width - 10, y: top, "text-anchor": "end" }, words);

    const tall = low ? (height - 80) / 2 : 130;
    const raster = plot(svg, { ...across, top: 18, height: tall, y: [0, WIDTH], yLabel: "neuron", nY: 2 });
    net.forEach(({ outputs, nOut }, k) => {
      const x = (t) => raster.px(k + 0.55 + (0.9 * t) / STEPS), step = outputs.length / STEPS;
      const length = raster.px(1 + 0.9 / STEPS) - raster.px(1);
      const high = Math.max(1.2, tall / nOut - 0.3);
      let path = "";
      for (let t = 0; t < STEPS; t++) for (let j = 0; j < nOut; j++)
        if (outputs[t * step + j] > 0) path += `M${x(t).toFixed(1)} ${raster.py((WIDTH * (j + 0.5)) / nOut).toFixed(1)}h${length.toFixed(1)}`;
      raster.line([[k + 1.5, 0], [k + 1.5, WIDTH]], "axis");
      const drawn = raster.add("path", { d: path, class: "snn-line snn-state" });
      drawn.style.strokeWidth = `${high}px`;
    });

    let top = 18 + tall + 28;
    const shares = plot(svg, { ...across, top, height: low ? tall - 20 : 110, y: [0, 100], yLabel: "neurons (%)", nY: 4, xLabel: low ? "layer" : "" });
    note(13, `spikes over ${STEPS} steps`);
    note(top - 6, low ? "share of the neurons" : "share of the neurons, and spikes a neuron and step");
    net.forEach(({ fires, reach, rate }, k) => {
      shares.bar(k + 0.68, k + 0.98, 0, 100 * fires, "first");
      shares.bar(k + 1.02, k + 1.32, 0, 100 * reach, "output");
      if (!low) shares.add("text", { x: shares.px(k + 0.83), y: shares.py(100 * fires) - 4, "text-anchor": "middle" },
        rate === 0 ? "0" : round(rate, rate < 0.0095 ? 4 : 2));
    });
    if (!low) {
      top += 110 + 30;
      // From 1e-8 on, with a place below it for none at all.
      const power = (gradient) => (gradient > 1e-8 ? Math.log10(gradient) : -8);
      const most = Math.max(0, ...net.map(({ gradient }) => Math.ceil(power(gradient))));
      const sizes = plot(svg, { ...across, top, height: 90, y: [-8, most], yLabel: "power of ten", nY: 4, xLabel: "layer" });
      note(top - 6, "gradient of a weight, root mean square");
      net.forEach(({ gradient }, k) => {
        if (gradient > 0) sizes.bar(k + 0.8, k + 1.2, -8, power(gradient), "output");
        else sizes.add("text", { x: sizes.px(k + 1), y: sizes.py(-8) - 4, "text-anchor": "middle" }, "none");
      });
    }

    const told = describe(net, settings.readout);
    svg.setAttribute("aria-label", `The spikes of ${net.length} layers; and for each layer, from the first on, the share of neurons`
      + ` that fire (${net.map(({ fires }) => percent(fires)).join(", ")}) and that a gradient reaches`
      + ` (${net.map(({ reach }) => percent(reach)).join(", ")}). ${told}`);
    text.tell(told);
  }

  const stopDrawing = keepDrawn(model, NAMES, picture, draw);
  return () => { stopDrawing(); controls.stop(); text.stop(); };
}

export default { render };
