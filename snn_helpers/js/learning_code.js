// What the learning explorer is set to, as Python: a test runs it, and finds the gradient that the page finds.
import { BATCH, MOMENTUM, isOfPairs } from "./learning_rules.js";

const number = (value) => String(Number(value));

const BY_AUTOGRAD = `    loss = F.nll_loss(net.read_out(net.run(frames)).log_softmax(dim=1), wanted)
    optimizer.zero_grad()
    loss.backward()
`;

const FORWARD = `    optimizer.zero_grad()
    for layer, factors in zip(net.layers, trace_credit(net, frames, wanted)):
        inputs, _, slopes, signals = factors
        # The bias is the weight of one more input, which is always 1.
        inputs = F.pad(inputs, (0, 1), value=1.0)
        gradient = three_factors(inputs, signals, slopes, layer.decay)
        layer.linear.weight.grad = gradient[:, :-1]
        layer.linear.bias.grad = gradient[:, -1]
`;

const NONE = `    # The hidden layer stays as it is.
    hidden_layer.weight.grad = hidden_layer.bias.grad = None
`;

/** The step of a rule of pairs in the place of the hidden layer's gradient. */
function pairs(rule) {
  const error = rule === "error x pre first";
  const name = { "error x pre first": "pre first", Hebb: "rates", STDP: "STDP" }[rule];
  return `    hidden = trace_credit(net, frames, wanted)[0]
    # Each input less its mean; the neuron's spikes count one each${error ? `, times its
    # error: what its learning signals ask for in the mean` : ""}.
    hidden = hidden._replace(inputs=hidden.inputs - hidden.inputs.mean(dim=(0, 1)))
    fired = (hidden.outputs > 0).to(hidden.inputs.dtype)
${error ? `    n_signals = (hidden.signals != 0).sum(dim=0).clamp(min=1)
    fired = fired * -hidden.signals.sum(dim=0) / n_signals
` : ""}    step = rule_steps(fired, hidden.inputs, decay or 0.9)["${name}"]
    # The rule gives the direction; the step is as long as the gradient's.
    length = gradient_step(hidden, decay).norm() / step.norm().clamp(min=1e-30)
    hidden_layer.weight.grad, hidden_layer.bias.grad = -length * step, None
`;
}

/** The text, for settings by their traits' names, and what the page has: `nTrain` digits from `source`. */
export function pytorchCode(settings, { nTrain, source }) {
  const { rule, learning_rate: rate, decay, threshold, penalty, reset, n_steps: nSteps, n_hidden: nHidden, seed } = settings;
  const forward = rule === "three factors", byPairs = isOfPairs(rule);
  const imports = ["import torch", "import torch.nn.functional as F"];
  if (byPairs) imports.push("from snn_chapters.credit import gradient_step, rule_steps");
  imports.push("from snn_chapters.explorers.learning import (", "    draw_weights,", "    flickering_batch,", "    small_digits,", ")");
  imports.push("from snn_helpers import SpikingNet, load_mnist");
  if (forward) imports.push("from snn_helpers.plasticity import three_factors, trace_credit");
  if (byPairs) imports.push("from snn_helpers.plasticity import trace_credit");
  return `${imports.join("\n")}

# ${nTrain} digits of 14 x 14 pixels, in batches of ${BATCH}
images, labels = small_digits(load_mnist("train", "${source}"), ${nTrain})
decay = ${number(decay)}
net = SpikingNet(
    n_steps=${nSteps},
    sizes=(196, ${nHidden}, 10),
    decay=decay,
    threshold=${number(threshold)},
    penalty=${number(penalty)},
    reset="${reset}",
).double()
draw_weights(net, seed=${seed})
${byPairs || rule === "none" ? "hidden_layer = net.layers[0].linear\n" : ""}optimizer = torch.optim.SGD(net.parameters(), lr=${number(rate)}, momentum=${MOMENTUM})
n_batches = ${Math.ceil(nTrain / BATCH)}  # in an epoch
for update in range(20):
    # The rate falls from epoch to epoch.
    optimizer.param_groups[0]["lr"] = ${number(rate)} / (1 + update // n_batches)
    frames, wanted = flickering_batch(
        images, labels, update, n_steps=${nSteps}, seed=${seed}
    )
${forward ? FORWARD : BY_AUTOGRAD}${byPairs ? pairs(rule) : ""}${rule === "none" ? NONE : ""}    optimizer.step()
${forward ? "" : `    print(f"{update + 1:3} updates: loss {loss.item():.3f}")
`}`;
}
