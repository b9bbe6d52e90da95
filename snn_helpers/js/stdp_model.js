// Two spike trains, what pair-based STDP makes of them by traces and by pairs, and Hebb's rule (chapter 5).
import { uniform } from "./neuron.js";

export const N_PAIRINGS = 12; // of the pairing experiment that the explorer shows
export const MARGIN = 60; // steps before the first and after the last of them, and the longest delay
export const N_RANDOM = 600; // steps of the random trains

/** The two trains, 0 or 1 at each step; stdp.py draws the same. */
export function stdpTrains({ trains, delay, interval, rate, seed }) {
  const nSteps = { pair: 2 * MARGIN + 1, pairings: 2 * MARGIN + (N_PAIRINGS - 1) * interval + 1 }[trains] ?? N_RANDOM;
  const pre = new Float64Array(nSteps), post = new Float64Array(nSteps);
  if (trains === "pair" || trains === "pairings") {
    for (let k = 0; k < (trains === "pair" ? 1 : N_PAIRINGS); k++) {
      pre[MARGIN + k * interval] = 1;
      post[MARGIN + k * interval + delay] = 1;
    }
    return { pre, post };
  }
  const draws = uniform(seed, 2 * nSteps);
  for (let t = 0; t < nSteps; t++) pre[t] = draws[t] < rate ? 1 : 0;
  for (let t = 0; t < nSteps; t++)
    post[t] = trains === "following" ? (pre[t - delay] ?? 0) : draws[nSteps + t] < rate ? 1 : 0;
  return { pre, post };
}

/** The change by one pair of spikes, `delay` being t_post - t_pre. */
export function stdpWindow(delay, { a_plus, a_minus, tau_plus, tau_minus }) {
  if (delay > 0) return a_plus * Math.exp(-delay / tau_plus);
  return delay < 0 ? -a_minus * Math.exp(delay / tau_minus) : 0;
}

const steps = (train) => Array.from(train.keys()).filter((t) => train[t] > 0);

/** Every pair that counts, by looking at all of them: [{tPre, tPost, change}]. */
export function stdpPairs(pre, post, rule) {
  const tPres = steps(pre), tPosts = steps(post);
  if (rule.pairing === "all") {
    return tPosts.flatMap((tPost) => tPres.map((tPre) => (
      { tPre, tPost, change: pre[tPre] * post[tPost] * stdpWindow(tPost - tPre, rule) })));
  }
  const pairs = [];
  const last = (times, t) => times.filter((each) => each < t).at(-1);
  for (const tPost of tPosts) {
    const tPre = last(tPres, tPost);
    if (tPre !== undefined) pairs.push({ tPre, tPost, change: stdpWindow(tPost - tPre, rule) });
  }
  for (const tPre of tPres) {
    const tPost = last(tPosts, tPre);
    if (tPost !== undefined) pairs.push({ tPre, tPost, change: stdpWindow(tPost - tPre, rule) });
  }
  return pairs;
}

/**
 * The same by two traces, step by step: each trace as its own step finds it and as it leaves it, and the change of the
 * weight so far. A spike reads the other side's trace as it was found, so that two spikes of one step do not pair.
 */
export function stdpByTraces(pre, post, rule) {
  const nearest = rule.pairing === "nearest";
  const fades = [Math.exp(-1 / rule.tau_plus), Math.exp(-1 / rule.tau_minus)];
  const found = [[], []], left = [[], []], weight = [];
  let change = 0;
  const now = [0, 0];
  for (let t = 0; t < pre.length; t++) {
    const arriving = [pre[t], post[t]].map((x) => (nearest && x > 0 ? 1 : x));
    for (const k of [0, 1]) found[k].push(now[k] * fades[k]);
    change += rule.a_plus * arriving[1] * found[0][t] - rule.a_minus * arriving[0] * found[1][t];
    for (const k of [0, 1]) {
      now[k] = nearest && arriving[k] > 0 ? 1 : found[k][t] + arriving[k];
      left[k].push(now[k]);
    }
    weight.push(change);
  }
  return { found, left, weight };
}

/** Hebb's rule: the change after each step, rate times rate, both over the whole length of the trains. */
export function hebb(pre, post) {
  let nPre = 0, nPost = 0;
  return Array.from(pre, (x, t) => {
    nPre += x;
    nPost += post[t];
    return (nPre / pre.length) * (nPost / post.length);
  });
}
