// Deep spiking networks as they are drawn (chapter 11): who fires, and whom a gradient reaches.
import { neuronStep, resetSlope, uniform } from "./neuron.js";

export const WIDTH = 100, STEPS = 20, PIXELS = 784, CLASSES = 10, MOST_LAYERS = 8;
const RATIO = 1.5; // of penalty and threshold, so that a spike leaves the same share of the charge at any threshold
// A rate is a count of spikes: half of one more, so that rounding does not decide whether it is above a round number.
const HALF_A_SPIKE = 0.5 / (STEPS * 5 * WIDTH);

/** Sizes of the layers, inputs first. */
const sizesOf = (layers) => [PIXELS, ...new Array(layers - 1).fill(WIDTH), CLASSES];

/** Where in the row of all numbers that a seed gives each part begins: the last layer first, so that depth changes no other. */
function places() {
  const found = { last: 0, hidden: [] };
  let at = (WIDTH + 1) * CLASSES;
  for (let k = 0; k < MOST_LAYERS - 1; k++) {
    found.hidden.push(at);
    at += ((k === 0 ? PIXELS : WIDTH) + 1) * WIDTH;
  }
  return { ...found, flicker: at };
}

/** Weights (Xavier-uniform) and biases (as nn.Linear draws them) of a layer, before they are scaled. */
function drawLayer(seed, k, layers) {
  const [nIn, nOut] = sizesOf(layers).slice(k, k + 2);
  const { last, hidden } = places();
  const numbers = uniform(seed, (nIn + 1) * nOut, k === layers - 1 ? last : hidden[k]);
  const bounds = [Math.sqrt(3) * Math.sqrt(2 / (nIn + nOut)), 1 / Math.sqrt(nIn)];
  const drawn = (from, to, bound) => Float64Array.from(numbers.subarray(from, to), (u) => (2 * u - 1) * bound);
  return { nIn, nOut, weights: drawn(0, nIn * nOut, bounds[0]), biases: drawn(nIn * nOut, numbers.length, bounds[1]) };
}

/** The images, flickering: step by step, image by image, pixel by pixel. */
function flickering(images, seed) {
  const draws = uniform(seed, STEPS * images.length, places().flicker);
  return draws.map((u, i) => u * images[i % images.length]);
}

/** What arrives at each neuron of a layer, before scale and bias: [STEPS * nImages, nOut]. Silent inputs cost nothing. */
function weigh(inputs, { nIn, nOut, weights }) {
  const rows = inputs.length / nIn;
  const sums = new Float64Array(rows * nOut);
  const heard = new Int32Array(nIn);
  for (let row = 0; row < rows; row++) {
    let n = 0;
    for (let i = 0; i < nIn; i++) if (inputs[row * nIn + i] !== 0) heard[n++] = i;
    for (let j = 0; j < nOut; j++) {
      let sum = 0;
      for (let a = 0; a < n; a++) sum += weights[j * nIn + heard[a]] * inputs[row * nIn + heard[a]];
      sums[row * nOut + j] = sum;
    }
  }
  return sums;
}

/** A layer over time: what it hands out at each step, one step late, and the slopes of its resets. */
function runLayer(currents, nOut, nImages, decay, threshold) {
  const settings = { decay, threshold, penalty: RATIO * threshold, reset: "scale" };
  const step = nImages * nOut, size = STEPS * step;
  const states = new Float64Array(size), outputs = new Float64Array(size), slopes = new Float64Array(size).fill(1);
  const atSpike = resetSlope(settings);
  for (let at = 0; at + step < size; at++) {
    const done = neuronStep(currents[at], states[at], settings);
    states[at + step] = done.state;
    outputs[at + step] = done.output;
    if (done.output > 0) slopes[at] = atSpike;
  }
  return { states, outputs, slopes };
}

/** The share of neurons and steps with a spike: runLayer, with nothing kept. */
function rateAt(currents, nOut, nImages, decay, threshold) {
  const taken = (RATIO * threshold) / threshold, step = nImages * nOut;
  let n = 0;
  for (let neuron = 0; neuron < step; neuron++) {
    for (let at = neuron, state = 0; at + step < currents.length; at += step) {
      const charge = currents[at] + decay * state;
      const fires = charge - threshold > 0;
      if (fires) n += 1;
      state = fires ? charge - taken * charge : charge;
    }
  }
  return n / currents.length;
}

/** The threshold at which the layer fires at a rate, as fire_at halves its way to it. */
function thresholdFor(currents, nOut, nImages, decay, rate) {
  let low = 1e-4, high = 1e4;
  for (let halving = 0; halving < 40; halving++) {
    const middle = Math.sqrt(low * high);
    if (rateAt(currents, nOut, nImages, decay, middle) > rate) low = middle;
    else high = middle;
  }
  return high;
}

const drawn = new Map(); // of the last seed: layers, and what the images give the first one
function remembered(seed, images, key, make) {
  if (drawn.get("of")?.seed !== seed || drawn.get("of")?.images !== images) {
    drawn.clear();
    drawn.set("of", { seed, images });
  }
  if (!drawn.has(key)) drawn.set(key, make());
  return drawn.get(key);
}

/**
 * Show the images (numbers, 784 of each) to a network of `layers` layers, the last one with ten neurons. For each layer:
 * `threshold`, `outputs`, and what `diagnose` of chapter 11 finds: `fires`, the share of neurons that ever fire, `rate`,
 * spikes a neuron and step, `reach`, the share that a gradient reaches, and `gradient`, a weight's, root mean square.
 */
export function look(images, labels, { layers, scale, threshold, decay, repair, wanted_rate: wanted, readout, seed }) {
  const nImages = labels.length;
  const keep = (key, make) => remembered(seed, images, key, make);
  const frames = keep("frames", () => flickering(images, seed));
  const net = [];
  for (let k = 0, inputs = frames; k < layers; k++) {
    const isLast = k === layers - 1;
    const layer = keep(isLast ? "last" : k, () => drawLayer(seed, k, layers));
    const sums = k === 0 ? keep("first sums", () => weigh(frames, layer)) : weigh(inputs, layer);
    const currents = sums.map((sum, at) => scale * sum + layer.biases[at % layer.nOut]);
    const isSet = repair === "thresholds from data" && (!isLast || readout === "spikes");
    const used = isSet ? thresholdFor(currents, layer.nOut, nImages, decay, wanted + HALF_A_SPIKE) : threshold;
    net.push({ ...layer, inputs, threshold: used, ...runLayer(currents, layer.nOut, nImages, decay, used) });
    inputs = net[k].outputs;
  }

  // Backwards: what the loss, the mean over the images of -log p(label), says of each thing handed out.
  const last = net.at(-1), size = nImages * CLASSES;
  const handed = new Float64Array(last.states.length); // of the states, or of the outputs, that are read
  const read = readout === "spikes" ? last.outputs : last.states;
  for (let b = 0; b < nImages; b++) {
    const logits = new Array(CLASSES).fill(0).map((_, c) => {
      let sum = 0;
      for (let t = 0; t < STEPS; t++) sum += read[t * size + b * CLASSES + c];
      return sum / STEPS;
    });
    const most = Math.max(...logits), powers = logits.map((logit) => Math.exp(logit - most));
    const all = powers.reduce((sum, power) => sum + power, 0);
    for (let c = 0; c < CLASSES; c++) {
      const error = (powers[c] / all - (c === labels[b] ? 1 : 0)) / nImages / STEPS;
      for (let t = 0; t < STEPS; t++) handed[t * size + b * CLASSES + c] = error;
    }
  }
  let ofOutputs = readout === "spikes" ? handed : null, ofStates = readout === "spikes" ? null : handed;
  for (let k = layers - 1; k >= 0; k--) {
    const { nIn, nOut, weights, inputs, outputs, slopes } = net[k];
    const step = nImages * nOut, credits = new Float64Array(outputs.length);
    for (let at = outputs.length - step - 1; at >= 0; at--) {
      const next = at + step; // one step later it is handed out
      const later = (ofStates ? ofStates[next] : 0) + decay * credits[next];
      credits[at] = slopes[at] * later + (ofOutputs && outputs[next] > 0 ? ofOutputs[next] : 0);
    }
    const ofBias = new Float64Array(nOut), ofWeight = new Float64Array(nIn * nOut), below = new Float64Array(inputs.length);
    for (let row = 0; row < credits.length / nOut; row++) {
      for (let j = 0; j < nOut; j++) {
        const credit = credits[row * nOut + j];
        if (credit === 0) continue;
        ofBias[j] += credit;
        for (let i = 0; i < nIn; i++) ofWeight[j * nIn + i] += credit * inputs[row * nIn + i];
        if (k > 0) for (let i = 0; i < nIn; i++) below[row * nIn + i] += credit * scale * weights[j * nIn + i];
      }
    }
    const spikes = new Float64Array(nOut);
    outputs.forEach((output, at) => { if (output > 0) spikes[at % nOut] += 1; });
    const share = (values) => values.filter((value) => value !== 0).length / nOut;
    Object.assign(net[k], {
      fires: share(spikes), rate: spikes.reduce((sum, n) => sum + n, 0) / outputs.length, reach: share(ofBias),
      gradient: Math.sqrt(ofWeight.reduce((sum, g) => sum + g * g, 0) / ofWeight.length), ofWeight,
    });
    ofOutputs = below;
    ofStates = null;
  }
  return net;
}
