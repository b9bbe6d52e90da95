// The book's model, for the browser: the same step, windows and network as in snn_helpers, held equal by a test.
import { neuronStep, resetSlope, uniform } from "./neuron.js";
export { neuronStep, resetSlope, uniform } from "./neuron.js";

/** A current of the mean `strength`: steady at flicker 0, uniform between 0 and twice the mean at flicker 1. */
export function flickeringCurrent(strength, flicker, seed, nSteps) {
  return Array.from(uniform(seed, nSteps), (u) => strength * (1 - flicker + flicker * (2 * u)));
}

/** One neuron over time, and what can be counted: when it fired, how far apart, and when it rests. */
export function runNeuron(currents, settings) {
  const states = [], outputs = [], spikes = [];
  let state = 0;
  currents.forEach((current, t) => {
    const step = neuronStep(current, state, settings);
    state = step.state;
    states.push(state);
    outputs.push(step.output);
    if (step.output > 0) spikes.push(t);
  });
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

/** window_law of chapter 6: what one spike gives to a pulse `delay` steps before it, past earlier spikes. */
export function windowLaw(delays, earlier, settings) {
  const slope = resetSlope(settings);
  const steps = [...new Set(earlier)];
  return delays.map((d) =>
    d < 0 ? 0 : settings.decay ** d * slope ** steps.filter((e) => e <= d).length);
}

/** after_spike_law of chapter 9: the window of one spike and of the after-spike that follows it. */
export function afterSpikeLaw(delays, settings) {
  const { decay, afterDecay, strength, amplitude = 1, lateCurrent = 0, nAfter = 60 } = settings;
  let length = 0;
  for (let step = 0; step < nAfter; step++) length += afterDecay ** step;
  const causal = 1 - strength * Math.max(0, lateCurrent) * length;
  const depression = lateCurrent + 0.1 > 0 ? -strength * amplitude : 0;
  return delays.map((d) => (d >= 0 ? causal * decay ** d : depression * afterDecay ** (-d - 1)));
}

/** The law with an earlier spike and an after-spike together, in no late current but the pulse's own. */
export function wholeLaw(delays, earlier, settings) {
  const { afterDecay, strength, amplitude = 1 } = settings;
  const steps = [0, ...new Set(earlier)];
  return windowLaw(delays, earlier, settings).map((causal, i) => {
    const since = steps.map((e) => e - delays[i]).filter((n) => delays[i] <= 0 && n > 0);
    return causal - since.reduce((sum, n) => sum + strength * amplitude * afterDecay ** (n - 1), 0);
  });
}

/**
 * The window as an experiment finds it: a voltage clamp makes the neuron fire at t_post and at the earlier
 * spikes, a pulse arrives `delay` steps before t_post, and derivatives run along with the simulation, from
 * the pulse's weight to all that the neuron hands out from t_post on. The counterpart of gradient_window
 * (chapter 6) and after_spike_window (chapter 9).
 */
export function measureWindow(delays, earlier, settings) {
  const { decay, threshold, afterDecay = 0, strength = 0, amplitude = 1, lateCurrent = 0, nAfter = 60 } = settings;
  const slope = resetSlope(settings);
  const post = Math.max(0, ...delays, ...earlier);
  const spikes = new Set([0, ...earlier].map((e) => post - e));
  return delays.map((delay) => {
    let state = 0, dState = 0, trace = 0, dTrace = 0, sum = 0;
    for (let t = 0; t <= post + nAfter; t++) {
      const pulse = t === post - delay ? 1 : 0;
      const arriving = lateCurrent + 0.1 * pulse; // through a weight of 0.1
      const clamp = (spikes.has(t) ? threshold + amplitude : 0) - decay * state;
      const step = neuronStep(clamp, state, settings);
      const dCharge = pulse + decay * dState;
      const fired = step.output > 0;
      const dOutput = fired ? dCharge : 0;
      const late = Math.max(0, arriving);
      if (t >= post) sum += dOutput - strength * (dTrace * late + (arriving > 0 ? trace * pulse : 0));
      trace = afterDecay * trace + step.output;
      dTrace = afterDecay * dTrace + dOutput;
      state = step.state;
      dState = fired ? slope * dCharge : dCharge;
    }
    return sum;
  });
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
