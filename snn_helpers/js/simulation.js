// The book's neuron and network over time, for the browser, as in snn_helpers; a test holds them equal.
import { neuronStep, runOver, spikeSteps, uniform } from "./neuron.js";
export { flickeringCurrent, uniform } from "./neuron.js";

/** One neuron over time, and what can be counted: when it fired, how far apart, and when it rests. */
export function runNeuron(currents, settings) {
  const { states, outputs } = runOver(currents, settings), spikes = spikeSteps(outputs);
  const intervals = spikes.slice(1).map((t, i) => t - spikes[i]);
  // It rests where a spike has thrown the state below zero, until it is back.
  const rests = [];
  for (const t of spikes) {
    let end = t;
    while (end < states.length && states[end] < 0) end += 1;
    if (end > t) rests.push([t, end]);
  }
  return { states, outputs, spikes, intervals, rests, rate: spikes.length / currents.length };
}

/** Layers from the widget's parts: weights as whole numbers of 16 bits, a scale for each neuron, biases and settings as they are. */
export function unpackLayers(bytes, sizes, scales, biases, neurons) {
  let at = 0;
  return scales.map((rowScales, k) => {
    const nInputs = sizes[k], nNeurons = sizes[k + 1];
    const weights = new Float64Array(nNeurons * nInputs);
    for (let n = 0; n < weights.length; n++, at += 2)
      weights[n] = bytes.getInt16(at, true) * rowScales[Math.floor(n / nInputs)];
    return { weights, biases: Float64Array.from(biases[k]), neuron: neurons[k], nInputs, nNeurons };
  });
}

/** A network of spiking layers, run step by step, as SpikingNet of chapter 3: each layer answers a step late. */
export class Network {
  constructor(layers) {
    this.layers = layers;
    this.restart();
  }

  restart() {
    this.t = 0;
    this.now = this.layers.map(({ nNeurons }) => ({
      states: new Float64Array(nNeurons), outputs: new Float64Array(nNeurons) }));
    this.handedOut = this.now;
    this.sum = new Float64Array(this.layers.at(-1).nNeurons);
  }

  /** Show one frame. Afterwards `handedOut` is what the layers hand out at this step, `means` the ten read-outs. */
  step(frame) {
    let inputs = frame;
    this.handedOut = this.now;
    this.now = this.layers.map((layer, k) => {
      const before = this.handedOut[k].states;
      const states = new Float64Array(layer.nNeurons), outputs = new Float64Array(layer.nNeurons);
      for (let j = 0; j < layer.nNeurons; j++) {
        let current = layer.biases[j];
        const row = j * layer.nInputs;
        for (let i = 0; i < layer.nInputs; i++) current += layer.weights[row + i] * inputs[i];
        const step = neuronStep(current, before[j], layer.neuron);
        states[j] = step.state;
        outputs[j] = step.output;
      }
      inputs = this.handedOut[k].outputs;
      return { states, outputs };
    });
    this.handedOut.at(-1).states.forEach((state, j) => { this.sum[j] += state; });
    this.t += 1;
  }

  get means() {
    return Array.from(this.sum, (sum) => sum / Math.max(1, this.t));
  }

  get answer() {
    const means = this.means;
    return means.indexOf(Math.max(...means));
  }
}

/** Frame t of a flickering image: each pixel times a fresh draw, as flicker of chapter 2. */
export function flickerFrame(image, seed, t) {
  const draws = uniform(seed, image.length, t * image.length);
  return Float64Array.from(image, (pixel, i) => pixel * draws[i]);
}

/**
 * Strokes, lists of [x, y] in any unit, as 784 bytes that look like the training digits: as large (20 pixels),
 * centred on their mass as they are, and drawn with a soft pen as thick as theirs.
 */
export function rasterise(strokes, pen = 1.4) {
  const points = strokes.flat();
  if (points.length === 0) return new Uint8Array(784);
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (20 - 2 * pen) / Math.max(right - left, bottom - top, 1e-9);
  const paint = (shiftX, shiftY) => {
    const pixels = new Float64Array(784);
    const place = ([x, y]) => [(x - (left + right) / 2) * scale + 14 + shiftX,
      (y - (top + bottom) / 2) * scale + 14 + shiftY];
    for (const stroke of strokes) {
      const path = points.length === 1 || scale > 1e6 ? [[14, 14]] : stroke.map(place);
      path.forEach(([x1, y1], i) => {
        const [x0, y0] = path[Math.max(0, i - 1)];
        const [dx, dy] = [x1 - x0, y1 - y0];
        const reach = pen + 1;
        for (let row = Math.max(0, Math.floor(Math.min(y0, y1) - reach)); row < 28 && row < Math.max(y0, y1) + reach; row++)
          for (let col = Math.max(0, Math.floor(Math.min(x0, x1) - reach)); col < 28 && col < Math.max(x0, x1) + reach; col++) {
            const along = ((col + 0.5 - x0) * dx + (row + 0.5 - y0) * dy) / (dx * dx + dy * dy || 1);
            const nearest = Math.min(1, Math.max(0, along));
            const distance = Math.hypot(col + 0.5 - x0 - nearest * dx, row + 0.5 - y0 - nearest * dy);
            const ink = Math.min(1, Math.max(0, pen + 0.5 - distance));
            pixels[row * 28 + col] = Math.max(pixels[row * 28 + col], ink);
          }
      });
    }
    return pixels;
  };
  const first = paint(0, 0);
  let [mass, massX, massY] = [0, 0, 0];
  first.forEach((ink, i) => {
    mass += ink;
    massX += ink * ((i % 28) + 0.5);
    massY += ink * (Math.floor(i / 28) + 0.5);
  });
  return Uint8Array.from(paint(14 - massX / mass, 14 - massY / mass), (ink) => Math.round(255 * ink));
}
