"""What recipes expand to."""

from itertools import pairwise

import pytest

from limbeck.core.errors import ConfigError
from limbeck.core.fields import parse
from limbeck.core.plan import Gate, Plan, Stage
from limbeck.mechanics.build import teacher_candidate
from limbeck.mechanics.student import parameters_of, scaled, student_blueprint
from limbeck.pipeline.recipes import TaskSizes, with_recipes_expanded
from limbeck.planner.recipes import ALL, expanded
from limbeck.techniques import card, cards
from limbeck.testing import small_task

GATE = Gate(retention=0.9, pays="bytes")


def stage(recipe: str, **config) -> Stage:
    return Stage(technique=recipe, config=config, gate=GATE)


def stages(recipe: str, **config) -> tuple[Stage, ...]:
    return with_recipes_expanded(Plan(stages=(stage(recipe, **config),)), small_task()).stages


def test_recipes_have_names_of_their_own_and_expand_to_techniques():
    assert [r.name for r in ALL] == sorted(r.name for r in ALL) and not {r.name for r in ALL} & cards().keys()


def test_a_chain_goes_down_by_the_same_factor():
    task = small_task()
    found = stages("assistant_chain", student="limbeck:convnet", options={"width": 4}, assistants=2, distill={"training": {"epochs": 2}})
    assert [s.title for s in found] == ["assistant_chain-assistant-1", "assistant_chain-assistant-2", "assistant_chain"]
    teacher = teacher_candidate(task)
    counts = [parameters_of(student_blueprint(s.config["student"], s.config["options"], task=task, teacher=teacher), task) for s in found]
    sizes = [TaskSizes(task).teacher, *counts]
    steps = [a / b for a, b in pairwise(sizes)]
    whole = (sizes[0] / sizes[-1]) ** (1 / 3)
    assert sizes == sorted(sizes, reverse=True) and all(s == pytest.approx(whole, rel=0.3) for s in steps)
    assert [s.config.get("teacher", "") for s in found] == ["", "input", "input"] and all(s.config["training"] == {"epochs": 2} for s in found)
    assert found[-1].gate == GATE and all(s.gate.retention == 0 and s.gate.pays == "nothing" for s in found[:-1])
    for s in found:
        parse(card(s.technique).config, s.config, where=s.title)


def test_a_chain_through_named_models():
    found = stages("assistant_chain", student="small", through=["teacher"])
    assert [(s.config["student"], s.config.get("teacher", "")) for s in found] == [("teacher", ""), ("small", "input")]


def test_generations_learn_from_the_one_before():
    found = stages("born_again", student="small", generations=3, distill={"temperature": 2.0})
    assert [s.config.get("teacher", "") for s in found] == ["", "input", "input"] and {s.config["student"] for s in found} == {"small"}
    assert len(stages("born_again", student="small", generations=1)) == 1


def test_blocks_come_one_by_one_and_then_the_whole():
    found = stages("block_wise", student="small", blocks=["features.2", "features.5"], distill={"training": {"epochs": 4}})
    assert [s.technique for s in found] == ["distill", "finetune", "finetune"] and found[-1].config == {"training": {"epochs": 4}}
    assert [s.config["terms"][0]["options"] for s in found[:-1]] == [{"student": "features.2", "teacher": "auto"}, {"student": "features.5", "teacher": "auto"}]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (stage("assistant_chain", student="small"), "'small' can't be made larger or smaller"),
        (stage("assistant_chain", student="limbeck:convnet", options={"width": 256}), "the student has .* parameters and the teacher"),
        (stage("assistant_chain", student="small", distill={"student": "x"}), "distill sets student, options or teacher"),
        (stage("block_wise", student="small", blocks=[]), "names no block"),
        (stage("block_wise", student="small", blocks=["a", "b"], teachers=["c"]), "one path for each of the 2 blocks, got 1"),
        (stage("born_again", student="small", generations=0), "generations must be in"),
        (stage("born_again", student="small", generation=2), "generation.*generations"),
    ],
)
def test_what_a_recipe_refuses(found, message):
    with pytest.raises(ConfigError, match=message):
        with_recipes_expanded(Plan(stages=(found,)), small_task())


def test_refine_is_no_recipes():
    with pytest.raises(ConfigError, match="a recipe, which has no gentler setting"):
        expanded((Stage(technique="born_again", config={"student": "small"}, on_fail="refine"),), lambda: TaskSizes(small_task()))


def test_sizes_are_not_asked_without_a_recipe():
    plain = (Stage(technique="quantize"),)
    assert expanded(plain, lambda: pytest.fail("asked")) == plain


@pytest.mark.parametrize("factor", [0.3, 1.0, 5.0])
def test_a_family_is_scaled_to_a_number_of_parameters(factor):
    task = small_task()
    teacher = teacher_candidate(task)
    count = lambda options: parameters_of(student_blueprint("limbeck:resnet", options, task=task, teacher=teacher), task)  # noqa: E731
    wanted = round(count({}) * factor)
    got = count(scaled("limbeck:resnet", {}, task=task, teacher=teacher, parameters=wanted))
    assert got <= wanted and got >= 0.9 * wanted
    with pytest.raises(ConfigError, match="at its narrowest"):
        scaled("limbeck:resnet", {}, task=task, teacher=teacher, parameters=10)
