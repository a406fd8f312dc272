"""A tensor lives from its maker to its last reader."""

from limbeck.analysis.flow import Flow, Step, live_bytes


def step(name: str, reads: tuple[str, ...], makes: dict[str, int], shows: dict[str, str] | None = None, inside: int = 0) -> Step:
    return Step(name=name, operator=name, reads=reads, makes=makes, shows=shows or {}, inside_bytes=inside)


def live(*steps: Step, inputs: dict[str, int] | None = None, outputs: tuple[str, ...] = ()) -> list[int]:
    return live_bytes(Flow(steps, inputs if inputs is not None else {"x": 10}, outputs, 0))


def test_a_chain_holds_two_neighbours():
    assert live(step("a", ("x",), {"a": 100}), step("b", ("a",), {"b": 50}), step("c", ("b",), {"c": 5}), outputs=("c",)) == [110, 150, 55]


def test_a_residual_is_held_until_it_is_added():
    steps = (step("a", ("x",), {"a": 100}), step("b", ("a",), {"b": 30}), step("c", ("b",), {"c": 100}), step("add", ("a", "c"), {"y": 100}))
    assert live(*steps, outputs=("y",)) == [110, 130, 230, 300]


def test_an_output_is_held_to_the_end_and_what_nobody_reads_only_while_it_is_made():
    assert live(step("a", ("x",), {"a": 7, "idle": 90}), step("b", ("x",), {"b": 1}), outputs=("a", "b")) == [107, 18]


def test_another_view_of_the_same_bytes_has_none_of_its_own_and_keeps_them_alive():
    steps = (step("a", ("x",), {"a": 100}), step("view", ("a",), {"v": 100}, {"v": "a"}), step("again", ("v",), {"w": 100}, {"w": "v"}), step("c", ("w",), {"c": 1}))
    assert live(*steps, outputs=("c",)) == [110, 100, 100, 101]


def test_an_input_that_nobody_reads_costs_nothing_and_one_read_late_is_held():
    assert live(step("a", ("x",), {"a": 1}), step("b", ("a", "late"), {"b": 1}), inputs={"x": 10, "late": 20, "never": 99}, outputs=("b",)) == [31, 22]


def test_what_is_alive_inside_a_branch_is_added_while_it_runs():
    assert live(step("a", ("x",), {"a": 5}), step("if", ("a",), {"y": 2}, inside=40), outputs=("y",)) == [15, 47]


def test_no_step_no_bytes():
    assert live() == []
