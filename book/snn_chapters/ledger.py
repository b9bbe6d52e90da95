"""How the ledger decides: each claim with a function from its figures to a decision under each of its conditions.

The functions are pure: other figures give another verdict, and a test hands each of them figures that turn it. What
is true by construction is no claim and is not here. Unless it is said otherwise, figures are lists, one number a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from snn_helpers.records import load_results
from snn_helpers.statistics import decide, decide_alike, mean_and_interval, verdict

# How much counts. Most records were there before these were set, so they are round numbers.
ALIKE = 1.0  # points of accuracy: two networks that differ by less are alike; chapter 4 says why
TRAINED = 85.0  # per cent: less is no success on these digits
LEARNED = 80.0  # per cent: a network that has lost one of the ten labels reads less
COMPARED = 6  # repairs are held against one another in chapter 11: each has to pass its share of 5 per cent
WITHIN = 0.5  # points that an answer may lose and be as good; chapter 12's margin
DISTURBED = 3  # comparisons under noise and losses in chapter 12, likewise
MUCH = 5.0  # points: what "varies a lot" must at least be
ALL_OF = 5  # seeds: where a network either learns or does not, so many must agree; by chance 1 in 32 does
SLOWER = 2.0  # times: "much more time" must at least be that
GRADUAL = 3.0  # steps between the early and the late first spikes of a layer
SILENT = 0.01  # spikes a step: a layer that fires less is silent
FOLLOWS = 0.8  # cosine: a learning signal that points along the gradient
# Who told of the link between learning by gradients and the timing of spikes before the article, and when.
EARLIER = {
    "Bartlett and Baxter": 1999,
    "Pfister and others": 2006,
    "Hinton, in a talk": 2016,
    "Bengio and others": 2017,
    "Tavanaei and Maida": 2017,
}

Values = Sequence[float]
Decisions = dict[str, str]


class Row(NamedTuple):
    """A line of the ledger: `words`, the claim in the book's own words, its `verdict`, and `under`, its conditions.

    `under` names the conditions under which the claim holds, where it holds under some of them only.
    """

    words: str
    verdict: str
    under: str


class Claim(NamedTuple):
    """`words`, and the function that decides: from figures to "holds", "fails" or "open" under each condition."""

    words: str
    decide: Callable[..., Decisions]


def all_of(*decisions: str) -> str:
    """One decision for what needs several: it fails with any of them."""
    return "fails" if "fails" in decisions else "open" if "open" in decisions else "holds"


def in_each(values: Values, margin: float) -> str:
    """Does every seed exceed the margin, or none of them?

    For figures of two kinds, such as those of a network that learns from some starts only: no mean tells of them.
    """
    above = [value > margin for value in values]
    return "open" if len(above) < ALL_OF else "holds" if all(above) else "open" if any(above) else "fails"


def row(claim: str, decisions: Mapping[str, str], words: Mapping[str, str] | None = None) -> Row:
    """A claim's line, from its decisions. Raises `ValueError` for decisions that are none.

    `words` say what some conditions are, where their names do not; two with the same words are told once.
    """
    decided, told = verdict(decisions), words or {}
    holding = [told.get(condition, condition) for condition, decision in decisions.items() if decision == "holds"]
    return Row(claim, decided, " or ".join(dict.fromkeys(holding)) if decided == "holds if" else "")


def judged(name: str, **figures: object) -> Row:
    """The line of one of `CLAIMS`, decided by its figures."""
    if name not in CLAIMS:
        raise ValueError(f"no claim is called {name!r}; there are {', '.join(CLAIMS)}")
    claim = CLAIMS[name]
    return row(claim.words, claim.decide(**figures))


# --- two networks compared ------------------------------------------------------------------------


def _four_ways(as_published: Values, same_weights: Values, best_rates: Values, both_alike: Values) -> dict[str, Values]:
    """Spiking minus ordinary, in points: as in the article, with like initial weights, at best rates, and both."""
    return {
        "all is as in the article": as_published,
        "only the initial weights are made alike": same_weights,
        "only the learning rates are tuned": best_rates,
        "learning rates are tuned and initial weights alike": both_alike,
    }


def _alike(**gaps: Values) -> Decisions:
    return {name: decide_alike(gap, ALIKE) for name, gap in _four_ways(**gaps).items()}


def _ahead(**gaps: Values) -> Decisions:
    return {name: decide(gap, comparisons=len(gaps)) for name, gap in _four_ways(**gaps).items()}


def _first_attempt(at_its_rate: Values) -> Decisions:
    """Per cent at the article's learning rate. Every network has rates that are too high for it: they say nothing."""
    return {"": decide(at_its_rate, margin=TRAINED)}


def regularises(narrower: Values, higher: Values, settings: int = 1) -> str:
    """Is the gap between training and test narrower than the plain network's, and the test accuracy higher?

    Both in points, one a seed; `settings` is in how many settings it is asked.
    """
    return all_of(decide(narrower, comparisons=settings), decide(higher, comparisons=settings))


def _regulariser(
    spikes: Mapping[int, tuple[Values, Values]], dropout: Mapping[int, tuple[Values, Values]]
) -> Decisions:
    """At each number of images what `regularises` asks; only where it finds dropout can it decide on spikes."""
    passed = [size for size in sorted(dropout) if regularises(*dropout[size], len(dropout)) == "holds"]
    return {f"there are {size:,} images": regularises(*spikes[size], len(dropout)) for size in passed} or {
        "the test finds dropout": "open"
    }


# How a rate that is so many times another is told of.
TIMES = {0.25: "a fourth", 0.5: "half", 2.0: "twice", 4.0: "four times", 8.0: "eight times"}


def _varies(best: Values, others: Mapping[float, Values]) -> Decisions:
    """Per cent at the best rate and at so many times that rate, at which a network may or may not learn."""
    lost = {times: [one - two for one, two in zip(best, other, strict=True)] for times, other in others.items()}
    return {f"the learning rate is {TIMES[times]} as high": in_each(losses, MUCH) for times, losses in lost.items()}


def _gradual(steps_apart: Values, without_memory: Values) -> Decisions:
    """Steps between early and late first spikes; and in neurons without memory, of which as many fire."""
    return {
        "it is enough that first spikes do not all come at once": decide(steps_apart, margin=GRADUAL),
        "they must spread wider than those of neurons that fire by chance": decide(steps_apart, without_memory),
    }


def _reusable(loss_falls: Values, below_held: Values) -> Decisions:
    """By how much a few steps lower the loss, and by how much if the layer below the network does not learn."""
    return {"between two linear layers": decide(loss_falls, below_held)}


# --- labels, ensembles, depth ---------------------------------------------------------------------


def _ensembles_mend(silent_alone: Values, silent_together: Values) -> Decisions:
    """Labels of ten without a living neuron before training."""
    return {"before training": decide(silent_alone, silent_together)}


def _learns_better(first: Values, second: Values) -> str:
    """Per cent of digits read, one a training. Where some fail, how many learn is compared, by Fisher's exact test."""
    from scipy.stats import fisher_exact

    counts = [sum(value > LEARNED for value in values) for values in (first, second)]
    if counts == [len(first), len(second)]:
        return decide(first, second, comparisons=COMPARED)
    table = [[count, len(values) - count] for count, values in zip(counts, (first, second), strict=True)]
    clear = fisher_exact(table)[1] * COMPARED < 0.05
    return "open" if not clear else "holds" if counts[0] / len(first) > counts[1] / len(second) else "fails"


def _ensembles_read(together: Values, alone: Values) -> Decisions:
    return {"each at its best learning rate": _learns_better(together, alone)}


def _more_spikes(together: Values, alone: Values) -> Decisions:
    return {"before training": decide(together, alone)}


def _shared(as_it_is: Values, normalised: Values, without: Values) -> Decisions:
    """The share of output neurons that are dead after training: with a shared gradient, in two ways, and without."""
    return {
        "the silent are given it as it is": decide(without, as_it_is, comparisons=COMPARED),
        "it is shared by normalising the states to the output": decide(without, normalised, comparisons=COMPARED),
    }


def _third_layer(as_drawn: Values, by_thresholds: Values, by_weights: Values) -> Decisions:
    """Spikes a step of the third layer as it is drawn, and per cent of digits that deep networks learn to read.

    "Unless" says two things: that it works with its thresholds set, and not with its weights set in their place.
    """
    mended = all_of(decide([-rate for rate in as_drawn], margin=-SILENT), decide(by_thresholds, margin=LEARNED))
    return {
        "only thresholds may be adjusted": mended,
        "weights may be adjusted in their place": all_of(
            mended, decide([-share for share in by_weights], margin=-LEARNED)
        ),
    }


# --- credit through time --------------------------------------------------------------------------


def _recent(digits: Values, digits_null: Values, patterns: Values, patterns_null: Values) -> Decisions:
    """The share of the step, in per cent, from pairs at most two steps apart; the null has signals at random times."""
    return {
        "the input is digits": all_of(decide(digits, margin=50), decide(digits, digits_null)),
        "the input is patterns in time": all_of(decide(patterns, margin=50), decide(patterns, patterns_null)),
    }


def _refractory(without_reset: str) -> Decisions:
    """From the decision on the causal half in networks without a reset: what is there without it does not take it.

    That it takes a time axis, and a memory from step to step, is a law.
    """
    return {"": {"holds": "fails", "fails": "holds", "open": "open"}[without_reset]}


def _late(**paid: Values) -> Decisions:
    """By task: what late input gets where a later spike pays it, as a share of what the spike's own step gets.

    Without a later spike it gets nothing, which is a law.
    """
    return {f"the input is {task}": decide_alike(shares, 0.1) for task, shares in paid.items()}


def _first_told(earlier: Sequence[int]) -> Decisions:
    """Years of works that told of the link before the article, of 2019."""
    return {"": "fails" if any(year < 2019 for year in earlier) else "open"}


# --- real spikes ----------------------------------------------------------------------------------


def _binary(difference: Values) -> Decisions:
    return {"a surrogate takes the place of the derivative": decide_alike(difference, ALIKE)}


def _rectifier(steady: Values, flickering: Values) -> Decisions:
    """Points by which spikes of 0 or 1 are ahead of graded ones: then a rectifier is not the best way to fire."""
    return {
        "the image is steady": decide(steady, margin=WITHIN, comparisons=2),
        "the image flickers, as in the article": decide(flickering, margin=WITHIN, comparisons=2),
    }


def _saves(saved: Mapping[str, Values]) -> Decisions:
    """Energy that the ordinary network takes for an image less that of the spiking one, under each condition."""
    return {condition: decide(values, comparisons=len(saved)) for condition, values in saved.items()}


def _early(share_of_steps: Values, lost: Values) -> Decisions:
    """The share of the steps until an answer, and the points of accuracy that it costs."""
    sooner = decide([0.5 - share for share in share_of_steps])
    return {"": all_of(sooner, decide([-points for points in lost], margin=-WITHIN))}


def _bears(difference: Values) -> Decisions:
    """Points against the ordinary network under the same disturbance."""
    return {"": decide(difference, comparisons=DISTURBED)}


def _bears_loss(untrained: Values, trained: Values) -> Decisions:
    """The same, against an ordinary network whose training knew no losses, and against one whose training did."""
    return {
        "the ordinary network is not trained for it": decide(untrained, comparisons=DISTURBED),
        "it is trained for it": decide(trained, comparisons=DISTURBED),
    }


# --- rhythms, feedback, contrastive divergence ----------------------------------------------------


def _most(has: Sequence[bool]) -> str:
    """Do most networks have it? Of five or more all, or none: by a coin, five fall alike on one side once in 32."""
    return "open" if len(has) < 5 else "holds" if all(has) else "open" if any(has) else "fails"


def _rhythm(
    article: Sequence[bool],
    drawn: Sequence[bool],
    trained: Mapping[str, Sequence[bool]],
    nulls: Sequence[bool],
    control: bool,
) -> Decisions:
    """Has each network a rhythm: the article's, and layers that hear themselves, as drawn and trained, by their delay?

    Only if none of the `nulls` has, networks without a loop that were trained and heard alike, and the `control`, a
    loop set by hand to beat, has: else the test tells nothing.
    """
    decisions = {"it is the article's network": _most(article), "outputs are fed back, untrained": _most(drawn)}
    for when, has in trained.items():
        decisions[f"outputs are fed back {when}, and it is trained"] = _most(has)
    return decisions if control and not any(nulls) else dict.fromkeys(decisions, "open")


def _none_elsewhere(without_loop: Sequence[bool], drawn: Sequence[bool], trained: Sequence[bool]) -> Decisions:
    """Does each ordinary network with a loop go round by itself? One that does is no 'nothing'.

    Without a loop none can: where one does, the test is wrong, and tells nothing.
    """

    def none(has: Sequence[bool]) -> str:
        return "open" if any(without_loop) else "fails" if any(has) else "holds" if len(has) >= 5 else "open"

    return {"the network is trained": none(trained), "it is not trained": none(drawn)}


def _cycles_teach(alike_to_exact: Values, alike_if_short: Values, ahead: Mapping[str, Values]) -> Decisions:
    """Cosines with the exact gradient, for long halves and for halves of one step; and points ahead of each rival.

    The rivals are what has learned nothing, and rules without a free half.
    """
    beyond = [decide(points, comparisons=len(ahead)) for points in ahead.values()]
    return {
        "what differs are the halves of one cycle, which begins at rest and lasts longer than the neurons remember; a"
        " clock tells all synapses the half; synapses there and back are equal; and neurons fire by chance": all_of(
            decide(alike_to_exact, margin=FOLLOWS), *beyond
        ),
        # Nothing was learned in halves so short: a cosine can refute this, and not show it.
        "all this, but each half lasts one step": all_of(decide(alike_if_short, margin=FOLLOWS), "open"),
    }


def _before_a_goal(over_random: Mapping[int, Values], over_shuffled: Mapping[int, Values]) -> Decisions:
    """Points, at each number of labels, against weights drawn at random and against the same weights shuffled."""
    n = len(over_random) + len(over_shuffled)
    return {
        f"{labels:,} labels follow": all_of(
            decide(over_random[labels], comparisons=n), decide(over_shuffled[labels], comparisons=n)
        )
        for labels in sorted(over_random)
    }


def _slow_cycles(gain: Values, gain_with_more_time: Values) -> Decisions:
    return {
        "for two epochs": decide(gain, comparisons=2),
        "for four epochs": decide(gain_with_more_time, comparisons=2),
    }


CLAIMS: dict[str, Claim] = {
    "alike": Claim("The spiking network reads digits about as well as the ordinary one.", _alike),
    "ahead": Claim("It even does slightly better.", _ahead),
    "slower": Claim(
        "It takes much more time to train.", lambda ratios: {"on one machine": decide(ratios, margin=SLOWER)}
    ),
    "first attempt": Claim("It trains at the first attempt, with nothing tuned.", _first_attempt),
    "varies": Claim("Its performance may vary a lot with tinkering.", _varies),
    "regulariser": Claim("Spikes act as a regulariser, as dropout does.", _regulariser),
    "rectifier": Claim("A rectifier might not be the best way for a neuron to fire.", _rectifier),
    "gradual": Claim("Activity spreads through the neurons gradually, like a storm.", _gradual),
    "reusable": Claim("The network can serve as a layer inside any other one.", _reusable),
    "ensembles mend": Claim("An ensemble of neurons for each label mends labels that never fire.", _ensembles_mend),
    "ensembles read": Claim("With an ensemble for each label the network learns better.", _ensembles_read),
    "more spikes": Claim("An ensemble gives more spikes for each label.", _more_spikes),
    "shared": Claim("Sharing a gradient over an ensemble when one of its neurons fires avoids dead neurons.", _shared),
    "third layer": Claim("A third layer is silent unless the thresholds are adjusted with care.", _third_layer),
    "refractory": Claim("It takes a refractory firing.", _refractory),
    "recent": Claim("Most of the gradient goes to input that came just before the spike.", _recent),
    "late": Claim("Where a later spike pays late input, that gradient has strongly faded.", _late),
    "first told": Claim("It might be the first time that this link is written down.", _first_told),
    "binary": Claim("Spikes that are all or nothing read digits about as well as the ordinary network.", _binary),
    "saves": Claim("Spikes save energy.", _saves),
    "early": Claim("Spikes allow an early answer.", _early),
    "bears noise": Claim("Spiking networks bear noise.", _bears),
    "bears loss": Claim("Spiking networks bear lost spikes.", _bears_loss),
    "rhythm": Claim("Rhythms can arise in such a network.", _rhythm),
    "none elsewhere": Claim("In deep learning there is nothing like the rhythms of the brain.", _none_elsewhere),
    "cycles teach": Claim(
        "The difference between two cycles of a rhythm can serve as a local learning signal, by contrastive"
        " divergence.",
        _cycles_teach,
    ),
    "before a goal": Claim("Such learning helps even before there is a goal to learn from.", _before_a_goal),
    "slow cycles": Claim("Cycles of cycles, slow ones above fast ones, help.", _slow_cycles),
}


# --- the answer, in short -------------------------------------------------------------------------

WORDS = {
    "holds": "Yes",
    "holds if": "Under some conditions",
    "fails": "No, not as a whole",
    "open": "These measurements do not tell",
}
# The tasks of the question's conditions, `task, reset`.
TASKS = {
    "patterns": "on patterns that differ in time alone",
    "free": "on patterns that also differ in their number of pulses",
    "digits": "on digits",
}


class Half(Protocol):
    """Of the answer: the decision on one half of STDP under each condition, `task, reset`."""

    @property
    def decisions(self) -> Mapping[str, str]: ...


class Answer(Protocol):
    """The answer to the book's question, as chapter 8's `question` gives it."""

    @property
    def verdict(self) -> str: ...
    @property
    def causal(self) -> Half: ...
    @property
    def depression(self) -> Half: ...


def in_short(answer: Answer) -> str:
    """The answer to the book's question, as Markdown: its verdict, and in which tasks each half of STDP is there.

    In a task a half is there, or not there, if it is so with each reset that was tried; else it is open.
    """
    halves = (
        ("The first, in which input before a spike is strengthened,", answer.causal),
        ("The second, in which input after a spike is weakened,", answer.depression),
    )
    parts, n_there = [], 0
    for half, agreement in halves:
        found: dict[str, list[str]] = {"is there": [], "is not there": [], "is open": []}
        for task, words in TASKS.items():
            decided = verdict(
                {name: each for name, each in agreement.decisions.items() if name.startswith(f"{task}, ")}
            )
            found[{"holds": "is there", "fails": "is not there"}.get(decided, "is open")].append(words)
        n_there += len(found["is there"])
        told = [
            f"{how} {'in any task' if how == 'is not there' and len(tasks) == len(TASKS) else ' and '.join(tasks)}"
            for how, tasks in found.items()
            if tasks
        ]
        parts.append(f"{half} {', and '.join(told)}.")
    word = "No" if answer.verdict == "fails" and not n_there else WORDS[answer.verdict]
    return f"**{word}.** STDP has two halves. {' '.join(parts)}"


class KeyFigures(NamedTuple):
    """The figures that the book's answer needs, each as `mean ± half of its interval`, from the records.

    `accuracy`, per cent of the test digits by (record, network); `too_steep`, autograd's slope for the hidden layer
    over that of the mean loss, before and after training; `cosine`, of a trained step with a rule by (task, rule);
    `weakened`, per cent of the pairs whose late input is weakened, with a wanted and with an unwanted spike.
    """

    accuracy: dict[tuple[str, str], str]
    too_steep: dict[str, str]
    cosine: dict[tuple[str, str], str]
    weakened: list[str]


def key_figures() -> KeyFigures:
    """Read them from the records that chapters 04, 07, 08 and 09 explain."""
    accuracy = {
        (record, network): _told([100 * row["test_accuracy"] for row in _rows(record, network=network)], 1)
        for record, network in (("04_parity", "spiking"), ("04_parity", "mlp"), ("04_tuned", "mlp"))
    }
    trained = [
        row
        for row in _rows("07_perturbation", part="slope", task="digits", reset="scale")
        if "penalty" not in row["settings"]
    ]
    too_steep = {}
    for when in ("before", "after"):
        slopes = [row[when]["slopes"][0] for row in trained]
        too_steep[when] = _told([slope["says"][0] / slope["does"]["0.05"][0] for slope in slopes], 1)
    cosine = {
        (task, rule): _told(
            [
                row["probes"][-1]["cosines"][0]["centred"][rule]
                for row in _rows("08_plasticity", task=task, reset="scale")
            ]
        )
        for task, rule in (
            ("patterns", "pre first, timing"),
            ("patterns", "pre first, timing, shuffled"),
            ("patterns", "post first, timing"),
            ("free", "pre first, timing"),
            ("free", "Hebb"),
            ("digits", "pre first, timing"),
            ("digits", "Hebb"),
        )
    }
    weakened = [
        _told(
            [100 * row["after"]["window"]["late_weakened"][k] for row in _rows("09_after_spike", variant="provoked")], 0
        )
        for k in (0, 1)
    ]
    return KeyFigures(accuracy, too_steep, cosine, weakened)


def headline() -> str:
    """The answer in three numbers, as a Markdown table."""
    found = key_figures()
    columns = [
        (
            f"{found.accuracy['04_parity', 'spiking']} %",
            "of the digits are read by the spiking network. Its twin without spikes, at its own best learning rate,"
            f" reads {found.accuracy['04_tuned', 'mlp']} %.",
        ),
        (
            f"{found.cosine['patterns', 'pre first, timing']}",
            "is the cosine of a training step with what times add to the *first* half of STDP, on patterns that differ"
            " in time alone. With spikes at random times it is"
            f" {found.cosine['patterns', 'pre first, timing, shuffled']}; 1 is the same direction.",
        ),
        (
            f"{found.too_steep['before']} times",
            "as steep as the mean loss really is: that is what autograd says of the hidden layer before training, and"
            f" {found.too_steep['after']} times after it. It holds the spikes in place.",
        ),
    ]
    rows = (" | ".join(f"**{number}**" for number, _ in columns), " | ".join(text for _, text in columns))
    table = f"| {rows[0]} |\n| {' | '.join('---' for _ in columns)} |\n| {rows[1]} |\n"
    return f"{table}\n(± is the 95 % interval over five starts.)\n"


def of_the_halves(cosine: Mapping[tuple[str, str], str]) -> list[str]:
    """What a trained step has of STDP and of Hebb's rule, with `key_figures`' cosines: what is asked, each answer."""
    return [
        "STDP and Hebb's rule know no error. We ask what the times of the spikes add to the first half of STDP.",
        "On patterns that differ in time alone, it agrees with a step of training"
        f" (cosine {cosine['patterns', 'pre first, timing']}; with spikes at random times"
        f" {cosine['patterns', 'pre first, timing, shuffled']}).",
        "On patterns that also differ in their number of pulses it agrees less"
        f" ({cosine['free', 'pre first, timing']}), and the step agrees with Hebb's rule ({cosine['free', 'Hebb']}).",
        "On digits the step agrees with neither"
        f" ({cosine['digits', 'pre first, timing']} and {cosine['digits', 'Hebb']}).",
        "The second half, depression of input that comes late, is not there. On patterns that differ in time alone,"
        f" its cosine is even on the wrong side of 0 (+{cosine['patterns', 'post first, timing']}; depression would be"
        " below 0).",
    ]


def abstract(answer: Answer) -> str:
    """The book's answer as Markdown, its figures from the records; `answer` is that to the book's question."""
    accuracy, too_steep, cosine, weakened = key_figures()
    parts = [
        "*Does backpropagation through a spiking network engender spike-timing-dependent plasticity (STDP)?*"
        f" {in_short(answer)}\n",
        f"- **It learns.** The spiking network reads {accuracy['04_parity', 'spiking']} % of the digits rightly, its"
        f" twin without spikes {accuracy['04_parity', 'mlp']} % at the article's learning rate, and"
        f" {accuracy['04_tuned', 'mlp']} % at its own best.",
        "- **One neuron draws half a window.** Backpropagation gives input before a spike a credit that fades with its"
        " age, cut or turned at each spike in between, and input after the spike none. (The fading was told before, by"
        " Eshraghian and others.)",
        "- **It holds the spikes in place.** Where they may move, the effect of a pulse on a neuron can be over after"
        " one step, and autograd's lasts as long as the leak does. In a network that is shown digits, autograd's slope"
        f" for the hidden layer is {too_steep['before']} times that of the mean loss before training, and"
        f" {too_steep['after']} times after it. The networks learn by it all the same.",
        f"- **In a trained network an error sets the sign.** {' '.join(of_the_halves(cosine))} The answer"
        " asks for each half by itself.",
        "- **The article's repairs.** Weight decay weakens late input, and all other input as much. A negative signal"
        " after the spike draws depression with the error's sign: late input is weakened in"
        f" {weakened[0]} % of the pairs with a wanted spike, in {weakened[1]} % of those with an unwanted one.\n",
        "(± is the 95 % interval over five starts.)",
    ]
    return "\n".join(parts)


def _rows(record: str, **settings: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load_results(record)["trials"]
    return [row for row in rows if all(row["settings"].get(key) == value for key, value in settings.items())]


def _told(values: Values, digits: int = 2) -> str:
    mean, half = mean_and_interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}".replace("-", "−")
