"""The workshop's three sets: no solution leaks to students, blanks and wrong answers are told why, solutions pass."""

from __future__ import annotations

import copy
import io
import re
import tokenize
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import make_workshop
import nbformat
import pytest
from make_workshop import Exercise, WorkshopError, exercises, has_tag, instructor_copy, student_copy
from nbclient import NotebookClient
from notebooks import CHAPTERS, NOTEBOOKS, PARAMETERS, code_cells, each_chapter, offline, read

ROOT = Path(__file__).resolve().parents[2]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# Wrong answers that a learner may well give, and words that the check must then say.
WRONG: dict[str, dict[int, list[tuple[str, str]]]] = {
    "how_we_compare": {
        1: [("n_needed = 5", "take more"), ("n_needed = 20", "take fewer"), ("n_needed = 10.0", "whole number")],
        2: [
            (
                "def alike_at_5(differences, margin):\n    return decide_alike(differences, margin) == 'holds'",
                "which interval",
            ),
            (
                "def alike_at_5(differences, margin):\n    return bool(abs(np.mean(differences)) < margin)",
                "the margin at which",
            ),
            ("def alike_at_5(differences, margin):\n    return decide(differences) == 'open'", "must call alike too"),
        ],
    },
    "01_neuron_dynamics": {
        1: [("wanted_decay = 0.9", "too fast"), ("wanted_decay = 20", "between 0 and 1")],
        2: [("wanted_penalty = 1.0", "make it larger"), ("wanted_penalty = 9.0", "make it smaller")],
        3: [("def credit(n, k, decay, threshold, penalty):\n    return decay**n", "1 spikes autograd finds")],
    },
    "02_images_to_spikes": {
        1: [("needed_steps = 10", "show it longer"), ("needed_steps = 5000", "least number")],
        2: [
            ("silent_images = images", "span 0 to 1"),
            ("silent_images, new_bias = images + 0.5, net.layers[0].linear.bias.detach()", "multiply out"),
        ],
        3: [
            ("def rate_code(image, n_steps, generator):\n    return image.expand(n_steps, -1, -1, -1) + 0.5", "0 or 1"),
            (
                "def rate_code(image, n_steps, generator):\n"
                "    once = torch.rand(image.shape, generator=generator) < image + 0.5\n"
                "    return once.float().repeat(n_steps, 1, 1, 1)",
                "fresh draws",
            ),
        ],
    },
    "03_training": {
        1: [("enough_steps = n_steps", "look for the first"), ("enough_steps = 0", "can be read")],
        2: [("steady_accuracy = 90", "between 0 and 1"), ("steady_accuracy = 0.0", "did you halve the image")],
        3: [
            (
                "def accumulate(frames, labels, sizes):\n"
                "    for part, part_labels in zip(frames.split(sizes, dim=1), labels.split(sizes)):\n"
                "        F.nll_loss(respond(part), part_labels).backward()",
                "weigh every example alike",
            )
        ],
    },
    "04_baseline": {
        1: [("half_width = 1e6", "multiply"), ("half_width = 0.0", "not quite")],
        2: [
            ("plain = flickering = live[0]", "plain should hold the row of"),
            ("plain = flickering = next(row for row in live if row['network'] == XAVIER)", "flickering holds the row"),
        ],
        3: [
            ("equal_step, equal_weights = [0.5], values(live, XAVIER)", "equal_step: one accuracy for each"),
            ("equal_step, equal_weights = [2.0] * len(seeds), values(live, XAVIER)", "between 0 and 1"),
            ("equal_step = equal_weights = [0.99] * len(seeds)", "comes out otherwise"),
        ],
    },
    "05_hebb_and_stdp": {
        1: [("by_hand = 1.0", "the four contributions")],
        2: [
            ("balanced_a_minus = -0.5", "positive"),
            ("balanced_a_minus = a_plus * tau_plus / tau_minus", "continuous"),
        ],
        3: [("critical_rate = 20", "steps per second|is no rate"), ("critical_rate = 1e-5", "too low")],
    },
    "06_stdp_from_gradients": {
        1: [
            ("by_hand = decay**7", "leak alone"),
            ("by_hand = decay**7 * (1 - penalty / threshold)", "two spikes on the way"),
            ("by_hand = decay**5 * (1 - penalty / threshold) ** 2", "not quite"),
        ],
        2: [
            ("def two_spikes(delay, gap, reset):\n    return 0.0", "paid by the second"),
            (
                "def two_spikes(delay, gap, reset):\n    told = decay, threshold, penalty, reset\n"
                "    return (window_law([delay], [], *told) + window_law([delay + gap], [], *told)).item()",
                "the second's cross the first",
            ),
            (
                "def two_spikes(delay, gap, reset):\n"
                "    return window_law([delay + gap], [gap], decay, threshold, penalty, reset).item()",
                "is each spike's part in the sum",
            ),
        ],
        3: [
            ("def passes(charge, reset, detached):\n    return 1.0", "forgets the charge"),
            (
                "def passes(charge, reset, detached):\n    return 0.0",
                "lets all pass",
            ),
            (
                "def passes(charge, reset, detached):\n    return 1.0 if reset == 'subtract' or charge < 1 else 0.0",
                "what does the gate take",
            ),
            (
                "def passes(charge, reset, detached):\n"
                "    kept = 1.0 if reset == 'subtract' or charge < 1 else 0.0\n"
                "    taken = 1 if reset == 'subtract' else charge\n"
                "    return kept if detached else kept - taken / (1 + (math.pi * charge) ** 2)",
                "is the surrogate taken at charge - 1",
            ),
        ],
    },
    "08_window_in_a_trained_network": {
        1: [
            ("paid_late = 0", "the next one does"),
            ("paid_late = 0.9**5", "count the steps"),
            ("paid_late = 0.9**4 / (1 + 0.5 * 0.9**5)", "discharge cuts"),
            ("paid_late = 0.9", "the law finds"),
        ],
        2: [
            (
                "def by_chance_alone(post, pre, decay):\n    return rule_steps(post, pre, decay)['pre first']",
                "still where they were",
            ),
            (
                "def by_chance_alone(post, pre, decay):\n"
                "    return rule_steps(post.mean(dim=(0, 1)).expand_as(post), pre, decay)['pre first']",
                "not over the examples",
            ),
            (
                "def by_chance_alone(post, pre, decay):\n"
                "    return rule_steps(post.mean(dim=0).expand_as(post), pre, decay)['STDP']",
                "another step",
            ),
        ],
        3: [
            ("best_r = two_sided(goal, up, down)['ratio']", "mind the sign"),
            ("best_r = -(goal * down).sum() / (down * down).sum()", "fit both at once"),
        ],
    },
    "07_what_the_gradient_misses": {
        1: [
            ("missed = 0.16", "takes output away"),
            ("missed = -0.2", "how many trials"),
            ("missed = -0.8 * 1.2", "not the whole charge"),
            ("missed = -0.8", "how far above"),
        ],
        2: [("sure_mean = 0.25", "still lie near the threshold"), ("sure_mean = -2.0", "nothing to move")],
        3: [
            (
                "def gain(reset):\n    return autograd_window(NoisyNeuron(reset=reset), 50, 2000, 0).mean.sum().item()",
                "held in place",
            ),
            ("def gain(reset):\n    return 0.0", "the whole window sums to"),
            ("def gain(reset):\n    return 0.14", "the whole window sums to"),
        ],
    },
    "09_closing_the_window": {
        1: [
            ("by_hand = 0.027", "the sign is not|one factor"),
            ("by_hand = -0.2 * -0.5 * -0.3", "leaks, too"),
            ("by_hand = -0.2 * 0.9 * -0.3", "lies on the path"),
        ],
        2: [
            ("short_strength = (1 - after_decay) / height", "never ends"),
            ("short_strength = 9.0", "too large"),
            ("short_strength = 0.1", "too small"),
        ],
        3: [
            (
                "def late_price(outputs, currents):\n"
                "    taken = outputs - after_spike(outputs, currents, after_decay, strength=1.0)\n"
                "    return taken.sum(dim=(0, 2)).mean()",
                "spikes feel its gradient",
            ),
            ("def late_price(outputs, currents):\n    return outputs * currents", "a loss is one number"),
            ("def late_price(outputs, currents):\n    return (outputs * currents).sum()", "the price should be"),
        ],
    },
    "10_learning_forward_in_time": {
        1: [("break_even = 87", "still fewer"), ("break_even = 100", "look for the smallest")],
        2: [
            ("def at_spikes(trace, fired, slope):\n    return [1.0]", "one eligibility for each spike"),
            (
                "def at_spikes(trace, fired, slope):\n    return [float(trace[step]) for step in fired]",
                "does what is lacking fade",
            ),
        ],
        3: [
            ("local_step = torch.ones(784, 100)", r"\[100, 784\]"),
            ("local_step = torch.zeros(100, 784)", "0 everywhere"),
            (
                "local_step = -torch.einsum(\n"
                "    'tbj,tbi->ji', factors[0].signals, spike_trace(factors[0].inputs, decay)\n)",
                "error that of the step after",
            ),
            (
                "local_step = three_factors(factors[0].inputs, factors[0].signals, factors[0].slopes, decay)",
                "sign is turned round",
            ),
        ],
    },
    "11_dead_neurons_and_ensembles": {
        1: [("enough = 5", "too few"), ("enough = 50", "49 would do")],
        2: [("bias = -1.0", "still dead"), ("bias = 1.0", "make the bias smaller")],
        3: [
            ("def shared(charges):\n    return (charges - 1).relu().sum()", "plain gradient"),
            ("def shared(charges):\n    return (charges - 1).relu().sum().detach()", "too much detached"),
        ],
    },
    "12_surrogate_gradients": {
        1: [("quarter = 0.3", "too far"), ("quarter = 0.01", "too near")],
        2: [
            ("levels_zero = levels_subtract = 1000", "count the different"),
            ("levels_zero, levels_subtract = 3, 9", "not quite"),
        ],
        3: [("late_credit = -1.0", "something positive"), ("late_credit = 1 / 1.6**2", "the charge lasts")],
    },
    "13_rhythms_and_recurrence": {
        1: [("my_penalty = 0.5", "raise it"), ("my_penalty = 9.0", "lower it")],
        2: [
            (
                "def signed_synchrony(spikes, signs):\n    return torch.from_numpy(measure_synchrony(spikes)[1])",
                "should be 4",
            )
        ],
        3: [
            ("def turns(gap, delay):\n    return 1", "17 to 21"),
            ("def turns(gap, delay):\n    return -(-(gap + 1) // delay)", "check gap|that is None"),
        ],
    },
    "14_contrastive_divergence": {
        1: [("both_on = 7.4", "no probability"), ("both_on = 1 / (1 + math.exp(-2))", "given that the other is on")],
        2: [
            (
                "def share_uncorrected(potential, rest):\n    return 1 / (1 + math.exp(-potential))",
                "that is the corrected neuron",
            )
        ],
        3: [
            ("visible_asymmetry = joint_asymmetry = 1.0", "is reversible: did you"),
            ("visible_asymmetry = joint_asymmetry = 0.0", "is not reversible"),
        ],
    },
}


def blanks(notebook: Any, exercise: Exercise) -> set[str]:
    """The names that the learner is to define."""
    source = notebook.cells[exercise.exercise].source
    names = set()
    for line in re.findall(r"^([^\n]*= )None  # your code here", source, re.M):
        names |= set(re.findall(r"\w+", line))
    return names | set(re.findall(r"^def (\w+)\([^\n]*\n    (?:return None|pass)  # your code here", source, re.M))


# --- what an exercise must be --------------------------------------------------------------------


@each_chapter
def test_at_least_three_exercises_of_rising_difficulty(path: Path) -> None:
    found = exercises(read(path))
    assert len(found) >= 3
    assert [exercise.number for exercise in found] == list(range(1, len(found) + 1))
    order = ["easy", "medium", "hard"]
    ranks = [order.index(exercise.level) for exercise in found]
    assert ranks == sorted(ranks) and set(ranks) == {0, 1, 2}, f"{path.name}: {[e.level for e in found]}"


@each_chapter
def test_a_blank_is_marked_and_its_names_are_those_of_the_solution(path: Path) -> None:
    notebook = read(path)
    for exercise in exercises(notebook):
        blank, solution = (notebook.cells[i].source for i in (exercise.exercise, exercise.solution))
        assert "your code here" in blank, f"{path.name}, exercise {exercise.number}"
        assert "your code here" not in solution
        names = blanks(notebook, exercise)
        assert names, f"{path.name}, exercise {exercise.number}: no name for the learner to define"
        for name in names:
            assert re.search(rf"\b{name}\b", solution), f"{path.name}: the solution does not define {name}"
            assert f"`{name}" in notebook.cells[exercise.task].source, f"{path.name}: the task does not name `{name}`"


@each_chapter
def test_a_task_says_what_to_expect(path: Path) -> None:
    """In brackets: a range, a shape, a comparison; or in the picture that the check draws."""
    notebook = read(path)
    for exercise in exercises(notebook):
        task, check = (notebook.cells[i].source for i in (exercise.task, exercise.check))
        assert re.search(r"\((?!easy|medium|hard)[^()]{12,}", task) or "plt.show()" in check, (
            f"{path.name}, exercise {exercise.number} does not say what to expect"
        )


@each_chapter
def test_every_way_a_check_fails_has_a_message(path: Path) -> None:
    import ast

    for cell in code_cells(read(path), "check"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Assert):
                assert node.msg is not None, f"{path.name}: this says nothing: {ast.unparse(node)}"


def test_an_exercise_without_its_solution_is_refused() -> None:
    notebook = read(CHAPTERS[0])
    notebook.cells = [cell for i, cell in enumerate(notebook.cells) if i != exercises(notebook)[1].solution]
    with pytest.raises(WorkshopError, match="then one tagged 'solution'"):
        student_copy(notebook)
    notebook = read(CHAPTERS[0])
    task = notebook.cells[exercises(notebook)[0].task]
    task.source = task.source.replace("(easy)", "(trivial)")
    with pytest.raises(WorkshopError, match="the levels are easy, medium, hard"):
        exercises(notebook)


# --- the copies ----------------------------------------------------------------------------------


def lines(source: str) -> set[str]:
    """The lines of code that say something, without comments and spaces; one that is laid out over several is one."""
    found, parts = set(), []
    plain = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)
    for token in tokenize.generate_tokens(io.StringIO(plain).readline):
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            found.add(re.sub(r"\s+", "", "".join(parts)))
            parts = []
        elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            parts.append(token.string)
    return {line for line in found if len(line) >= 12}


@each_notebook
def test_a_students_copy_holds_no_line_of_a_solution(path: Path) -> None:
    notebook = read(path)
    copied = student_copy(notebook)
    nbformat.validate(copied)
    assert not code_cells(copied, "solution")
    text = re.sub(r"\s+", "", "\n".join(cell.source for cell in copied.cells))
    assert "#Solution" not in text
    for exercise in exercises(notebook):
        # What the blank gives, and what the chapter has shown before, is no secret.
        before = notebook.cells[: exercise.exercise + 1]
        known = set().union(*(lines(cell.source) for cell in before if cell.cell_type == "code"))
        for line in lines(notebook.cells[exercise.solution].source) - known:
            assert line not in text, f"{path.name}, exercise {exercise.number}: the students' copy holds {line}"


@each_notebook
def test_copies_differ_from_the_chapter_in_nothing_else(path: Path) -> None:
    notebook, untouched = read(path), read(path)
    students, instructors = student_copy(notebook), instructor_copy(notebook, None)
    assert notebook == untouched
    nbformat.validate(instructors)
    sources = [cell.source for cell in notebook.cells]
    without = [cell for cell in notebook.cells if not has_tag(cell, "solution")]

    def own(copied: Any) -> list[str]:
        return [cell.source for cell in copied.cells if not cell.id.startswith("note-")]

    changed = [
        (cell.source, copied) for cell, copied in zip(without, own(students), strict=True) if cell.source != copied
    ]
    for was, now in changed:  # what is not true of a copy is left out, and nothing is put in
        assert "Open in Colab" in was or "Where a solution is folded" in was
        assert "Open in" not in now and "solution is folded" not in now
        assert "".join(now.split()) in "".join(was.split()) or now.split("[Open")[0] in was
    assert len(changed) <= 2
    assert own(instructors) == [
        source if source.startswith("# Solution") or not has_tag(cell, "solution") else f"# Solution\n{source}"
        for source, cell in zip(sources, notebook.cells)
    ]
    assert student_copy(notebook) == students, "the same notebook should make the same copy"


def used(notebook: Any) -> Any:
    """The notebook as somebody leaves it who has run it in a front end that keeps no ids."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata["widgets"] = {"state": {"a": 1}}
    notebook.nbformat_minor = 4
    for i, cell in enumerate(notebook.cells):
        del cell["id"]
        if cell.cell_type == "code":
            cell.execution_count = i
            cell.outputs = [nbformat.v4.new_output("stream", text="the teacher's result")]
            cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    return notebook


@pytest.mark.parametrize("make", [student_copy, lambda notebook: instructor_copy(notebook, None)])
def test_a_copy_holds_nothing_of_a_run(make: Callable[[Any], Any]) -> None:
    source = read(CHAPTERS[0])
    left = used(source)
    copied = make(left)
    nbformat.validate(copied)
    assert "the teacher's result" not in nbformat.writes(copied) and "widgets" not in copied.metadata
    assert all(cell.execution_count is None and not cell.outputs for cell in code_cells(copied))
    assert [cell.source for cell in copied.cells] == [cell.source for cell in make(source).cells]
    assert left == used(source), "the notebook itself stays as it is"


def test_a_blank_that_is_filled_in_is_not_handed_out() -> None:
    notebook = read(CHAPTERS[0])
    notebook.cells[exercises(notebook)[1].exercise].source = "wanted_penalty = 2.0"
    with pytest.raises(WorkshopError, match="exercise 2 is answered already"):
        student_copy(notebook)


def test_links_of_copies_lead_to_what_is_beside_them(tmp_path: Path) -> None:
    make_workshop.copy_pages(tmp_path)
    beside = {path.name for path in tmp_path.iterdir()} | {path.name for path in NOTEBOOKS}
    assert {"glossary.md", "bibliography.md"} <= beside
    for path in NOTEBOOKS:
        text = "\n".join(cell.source for cell in student_copy(read(path)).cells if cell.cell_type == "markdown")
        assert "colab.research" not in text
        for link in re.findall(r"\]\(([^)#:]+)[)#]", text):
            assert link in beside, f"{path.name} links to {link}"


def test_colab_folds_what_jupyterlab_folds() -> None:
    copied = student_copy(read(CHAPTERS[0]))
    assert all(cell.metadata.cellView == "form" for cell in code_cells(copied, "check"))
    shown = instructor_copy(read(CHAPTERS[0]), None)
    assert not any("cellView" in cell.metadata for cell in code_cells(shown, "solution"))


@each_chapter
def test_an_instructors_copy_shows_solutions_and_adds_up_its_minutes(path: Path) -> None:
    notebook = read(path)
    copied = instructor_copy(notebook, {"sections": {}, "total_seconds": 12.0, "cpu_seconds": 20.0, "cores": 2})
    for cell in code_cells(copied, "solution"):
        assert not has_tag(cell, "hide-cell") and cell.metadata.jupyter.source_hidden is False
    notes = "\n".join(cell.source for cell in copied.cells if cell.id.startswith("note-"))
    told = re.findall(r"Exercise \d \((\w+)\): allow (\d+) min", notes)
    assert [level for level, _ in told] == [exercise.level for exercise in exercises(notebook)]
    of_exercises = sum(int(minutes) for _, minutes in told)
    by_section = make_workshop.section_minutes(notebook)
    text = sum(by_section.values()) - of_exercises
    assert f"about {text} min for the text and {of_exercises} min for the exercises" in notes
    assert "12 s on a machine with 2 cores" in notes
    told_sections = dict(re.findall(r"^> \*\*Instructor\.\*\* (.+): about (\d+) min\.", notes, re.M))
    assert {title: int(minutes) for title, minutes in told_sections.items()} == {
        title: minutes for title, minutes in by_section.items() if title not in ("Opening", "Exercises")
    }


# --- checks, run -------------------------------------------------------------------------------------


def stages(stem: str) -> tuple[Any, list[tuple[int, str, str | None]]]:
    """A notebook that tries each exercise: blank, wrong answers, solution, each with the check after it.

    With it, for each of those checks: its cell, what was tried, and what it must say (None: it must pass).
    """
    notebook = read(ROOT / "book" / f"{stem}.ipynb")
    cells, attempts, done = [], [], 0
    for exercise in exercises(notebook):
        cells += notebook.cells[done : exercise.exercise]
        check = notebook.cells[exercise.check]
        blank, solution = notebook.cells[exercise.exercise], notebook.cells[exercise.solution]
        named = "|".join(blanks(notebook, exercise))
        tried: list[tuple[Any, str, str | None]] = [(blank, "the blank", named)]
        for answer, words in WRONG.get(stem, {}).get(exercise.number, []):
            tried.append((nbformat.v4.new_code_cell(answer), answer, words))
        tried.append((solution, "the solution", None))
        for cell, what, words in tried:
            this_check = copy.deepcopy(check)
            if words is not None:
                this_check.metadata.tags = [*this_check.metadata.tags, "raises-exception"]
            cells += [copy.deepcopy(cell), this_check]
            attempts.append((len(cells) - 1, f"exercise {exercise.number}, {what}", words))
        done = exercise.check + 1
    notebook.cells = cells
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    return notebook, attempts


# Where the second set would make a wrong answer right.
ANSWERED_WITH = {
    "05_hebb_and_stdp": {"seed": 2, "n_pairings": 10, "n_steps": 500, "n_trials": 60, "n_rounds": 4, "n_sets": 3}
}


def said(cell: Any) -> tuple[str, str]:
    """The kind of error that a cell ended with, and its message; twice empty if it passed."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    return (errors[0].ename, errors[0].evalue) if errors else ("", "")


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p in CHAPTERS or p.stem in WRONG], ids=lambda path: path.stem)
def test_blanks_and_wrong_answers_are_told_what_is_wrong_and_solutions_pass(
    path: Path, passed_before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with passed_before(path, Path(__file__), ROOT / "book/_scripts/teach/make_workshop.py") as known:
        if known:
            return
        for name, value in offline(tmp_path).items():
            monkeypatch.setenv(name, value)
        notebook, attempts = stages(path.stem)
        (parameters,) = code_cells(notebook, "parameters")
        # At the lower bounds, which are the first set, two answers may be the same number.
        given = ANSWERED_WITH.get(path.stem, PARAMETERS[path.stem][1])
        parameters.source += "".join(f"\n{name} = {value!r}" for name, value in given.items())
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "book")}}).execute()
        for index, what, words in attempts:
            kind, message = said(notebook.cells[index])
            if words is None:
                assert kind == "", f"{path.name}, {what}: {kind}: {message}"
            else:
                assert kind == "AssertionError", f"{path.name}, {what}: {kind or 'the check passes'} {message}"
                assert re.search(words, message), f"{path.name}, {what}: the check says {message!r}, not {words!r}"


def test_every_exercise_has_been_tried_with_wrong_answers() -> None:
    """Of the chapters listed; a new chapter is held to its blanks and solutions until it is listed."""
    for stem, answers in WRONG.items():
        numbers = {exercise.number for exercise in exercises(read(ROOT / "book" / f"{stem}.ipynb"))}
        assert set(answers) == numbers, stem


# --- slides --------------------------------------------------------------------------------------

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="


def with_outputs(path: Path) -> Any:
    """The chapter as if it had run: a picture for each figure, a widget for each explorer, one line for the rest."""
    notebook = read(path)
    for cell in code_cells(notebook):
        if "plt.show()" in cell.source:
            data = {"image/png": PNG}
        elif "Explorer(" in cell.source:
            data = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "NeuronExplorer()"}
        elif "Markdown(" in cell.source:
            data = {"text/markdown": "A **measured** number."}
        else:
            continue
        cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    return notebook


@pytest.fixture(scope="module", params=[CHAPTERS[0], CHAPTERS[-1]], ids=lambda path: path.stem)
def slides(request: pytest.FixtureRequest) -> tuple[Any, str]:
    notebook = with_outputs(request.param)
    return notebook, make_workshop.slides_html(notebook, f"../../html/book/{request.param.stem}.html")


def test_slides_load_nothing_but_their_assets(slides: tuple[Any, str], tmp_path: Path) -> None:
    _, html = slides
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]+)\"", html)
    inside = [url for url in loaded if not url.startswith("data:image/")]
    make_workshop.copy_assets(tmp_path)
    assert inside and all((tmp_path / url.removeprefix("assets/")).is_file() for url in inside), inside
    for own in [html, *(path.read_text("utf-8") for path in tmp_path.glob("*.css"))]:
        assert not re.search(r"(url\(|@import|import\(|fetch\()[\"' ]*(https?:)?//", own)


def test_slides_show_every_heading_figure_and_exercise_and_no_solution(slides: tuple[Any, str]) -> None:
    notebook, html = slides
    made = make_workshop.slides_of(notebook, "page.html")
    headings = [slide.heading for slide in made if not slide.heading.startswith("####")]
    wanted = re.findall(
        r"^#{1,3} .+$", "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown"), re.M
    )
    assert headings == [heading for heading in wanted if heading != "## Sources"]
    figures = [
        cell
        for cell in code_cells(notebook)
        if "plt.show()" in cell.source and not {"check", "remove-output"} & set(cell.metadata.get("tags", []))
    ]
    assert html.count("data:image/png;base64") == len(figures)
    for cell in figures:
        # Whoever cannot see the wall can ask the page what it shows.
        alt = cell.metadata.mystnb.image.alt
        assert alt in unescape(html), alt
    text = re.sub(r"<[^>]+>|\s+", "", html)
    for exercise in exercises(notebook):
        before = notebook.cells[: exercise.exercise + 1]
        known = set().union(*(lines(cell.source) for cell in before if cell.cell_type == "code"))
        for line in lines(notebook.cells[exercise.solution].source) - known:
            assert line not in text
    assert not re.search(r'href="\w+\.ipynb', html), "the slides stand beside no notebooks"
    assert re.search(r'href="\.\./\.\./html/book/\d\d_\w+\.html', html)
    assert html.count("<section") == html.count("</section>") > len(made)


def test_prose_goes_to_the_notes_and_no_slide_is_overfull(slides: tuple[Any, str]) -> None:
    notebook, html = slides
    made = make_workshop.slides_of(notebook, "page.html")
    assert html.count('<aside class="notes">') == sum(bool(slide.told) for slide in made) > 5
    for slide in made:
        assert slide.size <= make_workshop.ROOM or len(slide.shown) <= 2, slide.heading
        assert slide.shown or slide.heading.startswith("#")


def test_an_explorer_becomes_a_link_to_its_page() -> None:
    html = make_workshop.slides_html(with_outputs(CHAPTERS[0]), "../../html/book/01_neuron_dynamics.html")
    assert 'href="../../html/book/01_neuron_dynamics.html"' in html
    assert "application/vnd.jupyter.widget" not in html


def test_the_vendored_reveal_is_what_its_note_says() -> None:
    folder = ROOT / "book" / "_scripts" / "teach" / "slides" / "reveal"
    note = (folder / "README.md").read_text("utf-8")
    version = re.search(r"reveal\.js (\d+\.\d+\.\d+)", note)
    assert version and f"reveal.js {version.group(1)}" in (folder / "reveal.js").read_text("utf-8")[:200]
    assert "sphinx-revealjs==" in note
    assert "Hakim El Hattab" in (folder / "LICENSE").read_text("utf-8")
