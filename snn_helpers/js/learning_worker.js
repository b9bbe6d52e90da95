// The learning explorer's training, beside the page: in a worker, or, where there is none, in short slices on the page's
// own thread. It is told things ({do: ...}), and reports when the page has drawn what it had before.
import { Training, readWindow, unpackDigits } from "./learning_model.js";

/** A training that `tell` gets reports from; returns what takes the page's orders. */
export function startLearning(tell, slice) {
  let pixels = null, data = null, training = null, running = false, waiting = false, drawn = true, changed = false;
  let watched = 0, told = 0, seconds = 0, since = 0, one = false;
  const channel = new MessageChannel();
  // A message lets what waits (orders here, clicks and frames on the page) come first, without a timer's delay.
  channel.port1.onmessage = () => { waiting = false; work(); };
  channel.port1.unref?.();

  function wake() {
    if (waiting) return;
    waiting = true;
    channel.port2.postMessage(0);
  }

  function restart(settings) {
    training = new Training(pixels, data.labels, data.nPixels, data.nTrain, settings);
    one = false;
    seconds = since = told = 0;
    changed = true;
  }

  function work() {
    if (!training) return;
    const from = performance.now(), before = training.seen;
    // At first one test, so that there is a first point; and what was begun comes to its end.
    const wanted = () => (running || one || training.tests.length === 0 || !training.isWhole) && !training.diverged;
    while (wanted() && performance.now() - from < slice) {
      if (training.next() === "batch") one = false;
      changed = true;
    }
    if (running) {
      seconds += (performance.now() - from) / 1000;
      since += training.seen - before;
    }
    if (training.diverged) running = false;
    report();
    if (wanted()) wake();
  }

  function report() {
    if (!drawn || !changed || training.tests.length === 0) return;
    if (running && performance.now() - told < data.pace) return;
    drawn = changed = false;
    told = performance.now();
    const { learner, losses, tests, seen, cosine, diverged, window, settings } = training, [hidden] = learner.layers;
    const read = training.show(data.nTrain + watched);
    const weights = Float32Array.from(hidden.weights), outputs = Float32Array.from(hidden.outputs), means = Float32Array.from(read.logits);
    const message = { seen, losses, tests, cosine, diverged, running, window: readWindow(window), weights, outputs, means,
      answer: read.answer, label: data.labels[data.nTrain + watched], nHidden: hidden.nNeurons, nSteps: settings.n_steps,
      perSecond: seconds > 0.5 ? since / seconds : 0 };
    tell(message, [weights.buffer, outputs.buffer, means.buffer]);
  }

  return function receive(order) {
    if (order.do === "load") {
      data = order;
      pixels = unpackDigits(order.bytes, order.nPixels);
      restart(order.settings);
    } else if (order.do === "restart") restart(order.settings);
    else if (order.do === "set") { training.set(order.settings); changed = true; }
    else if (order.do === "watch") { watched = order.digit; changed = true; }
    else if (order.do === "run") { running = order.on; changed = true; }
    else if (order.do === "step") one = true;
    else if (order.do === "drawn") drawn = true;
    if (training) wake();
  };
}

export default startLearning;

if (typeof WorkerGlobalScope === "function" && self instanceof WorkerGlobalScope) {
  const receive = startLearning((message, transfer) => postMessage(message, transfer), 40);
  onmessage = (event) => receive(event.data);
}
