// Two networks compared at learning rates that one chooses, from the rows of a search: [network, rate, seed, accuracy] (chapter 4).

export const ALIKE = 1; // points: two networks whose difference is surely smaller count as alike
const FEWEST_SEEDS = 3; // on which a fair choice is made

/** The rows of one network, by rate and by seed: a Map of Maps, both in order. */
export function scoresOf(rows, network) {
  const found = new Map();
  const own = rows.filter((row) => row[0] === network).sort((a, b) => a[1] - b[1] || a[2] - b[2]);
  for (const [, rate, seed, accuracy] of own) {
    if (!found.has(rate)) found.set(rate, new Map());
    found.get(rate).set(seed, accuracy);
  }
  return found;
}

const meanOver = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

export function meanScore(scores, rate) {
  return meanOver([...scores.get(rate).values()]);
}

/** The rates that a grid has: all that were tried, or those that are nearest to 0.1 times a power of two, within 1.25. */
export function gridOf(scores, grid) {
  const tried = [...scores.keys()];
  if (grid === "fine") return tried;
  const kept = [];
  for (let k = -4; k <= 5; k++) {
    const wanted = 0.1 * 2 ** k, near = nearestRate(tried, wanted);
    if (Math.abs(Math.log(near / wanted)) <= Math.log(1.25) && !kept.includes(near)) kept.push(near);
  }
  return kept;
}

/** The rate that is nearest by its ratio; of two that are as near, the lower. */
export function nearestRate(rates, wanted) {
  const far = (rate) => Math.abs(Math.log(rate / wanted));
  return rates.reduce((best, rate) => (far(rate) < far(best) - 1e-12 ? rate : best));
}

/** The rate with the best mean of those that were tried with three seeds or more. */
export function fairRate(scores) {
  const enough = [...scores.keys()].filter((rate) => scores.get(rate).size >= FEWEST_SEEDS);
  return enough.reduce((best, rate) => (meanScore(scores, rate) > meanScore(scores, best) ? rate : best));
}

/** Seed by seed, the first network's accuracy minus the second's, in points: of the first `nSeeds` seeds that both have. */
export function pairedDifferences(first, second, nSeeds) {
  const seeds = [...first.keys()].filter((seed) => second.has(seed)).slice(0, nSeeds);
  return seeds.map((seed) => 100 * (first.get(seed) - second.get(seed)));
}

// Student's factor for 95 %, where it has a simple form: for one and for two degrees of freedom.
const FACTORS = { 2: Math.tan(0.475 * Math.PI), 3: 0.95 / Math.sqrt(2 * 0.975 * 0.025) };

/** The mean and the half-width of its 95 % interval; null for one value, which has none. Three values at most. */
export function meanAndInterval(values) {
  const mean = meanOver(values);
  if (values.length < 2) return { mean, half: null };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return { mean, half: FACTORS[values.length] * Math.sqrt(variance / values.length) };
}

/** "ahead", "behind" or "open", as `decide` says it; without an interval nothing is decided. */
export function verdictOf({ mean, half }) {
  if (half === null) return "open";
  return mean - half > 0 ? "ahead" : mean + half < 0 ? "behind" : "open";
}

/** Whether the whole interval lies within the margin, as `decide_alike` says it. */
export function isAlike({ mean, half }) {
  return half !== null && Math.abs(mean) + half < ALIKE;
}
