import pytest

from mergekit_spectral.demo.examples import HELD_OUT_EXAMPLES, Example, Task
from mergekit_spectral.demo.tasks import TASKS

every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[list[Example], list[Example]]]:
    return {task.name: (task.train(), task.held_out()) for task in TASKS}


@every_task
def test_held_out_examples_share_no_key_with_training(task: Task, splits):
    train, held_out = splits[task.name]
    assert len(held_out) == HELD_OUT_EXAMPLES
    assert len(train) > 5 * len(held_out)
    assert {e.key for e in train}.isdisjoint(e.key for e in held_out)
    assert {e.prompt for e in train}.isdisjoint(e.prompt for e in held_out)


@every_task
def test_each_prompt_has_one_answer(task: Task, splits):
    train, held_out = splits[task.name]
    assert len({e.prompt for e in train + held_out}) == len(train) + len(held_out)


@every_task
def test_examples_and_their_order_are_deterministic(task: Task, splits):
    assert task.held_out(20) == splits[task.name][1][:20]


def test_prompts_tell_the_tasks_apart(splits):
    openings = [
        {" ".join(e.prompt.split()[:2]) for e in held_out} for _, held_out in splits.values()
    ]
    assert openings == [{"The number"}, {"The plural"}, {"The sentiment"}]


def test_answers_are_what_the_packages_say(splits):
    answers = {e.prompt: e.answer for split in splits.values() for e in split[0] + split[1]}
    assert answers["The number 780 in Spanish is"] == " setecientos ochenta"
    assert answers["The plural of bacterium is"] == " bacteria"
    assert answers["The plural of ceremony is"] == " ceremonies"
    assert answers["The sentiment of cowardly is"] == " negative"
    assert answers["The sentiment of helpful is"] == " positive"


def test_a_guess_at_the_commonest_answer_is_not_strong(splits):
    # Else an adapter's accuracy would say little.
    plurals, sentiment = splits["plurals"][1], splits["sentiment"][1]
    assert sum(e.answer == f" {e.key}s" for e in plurals) < 0.75 * len(plurals)
    assert sum(e.answer == " negative" for e in sentiment) < 0.75 * len(sentiment)
