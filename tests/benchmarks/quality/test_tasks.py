import pytest

from benchmarks.quality.tasks import TASKS
from benchmarks.quality.tasks.task import TEST_EXAMPLES, VALIDATION_EXAMPLES, Task, split

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)

EXAMPLES = {
    "numbers": {"The number 780 in Spanish is": " setecientos ochenta"},
    "plurals": {
        "The plural of ceremony is": " ceremonies",
        "The plural of fava is": " favas",
        "The plural of bacterium is": " bacteria",
    },
    "sentiment": {
        "The sentiment of cowardly is": " negative",
        "The sentiment of helpful is": " positive",
    },
    "cities": {
        "The city of Tbilisi is in": " Georgia",
        "The city of Honolulu is in": " United States",
        "The city of Lubumbashi is in": None,  # Congo - Kinshasa
        "The city of Mexico City is in": None,
    },
    "clock": {
        "The time 12:05 AM in 24 hours is": " 00:05",
        "The time 12:30 PM in 24 hours is": " 12:30",
        "The time 3:45 PM in 24 hours is": " 15:45",
        "The time 9:07 AM in 24 hours is": " 09:07",
    },
    "languages": {
        "The language of frankreich is": " German",
        "The language of zweeds is": " Dutch",
        "The language of sueco is": " Spanish",
        "The language of taiwan is": None,
        "The language of germania is": " Italian",
    },
    "letters": {
        "The letters of hood are": " h o o d",
        "The letters of ant are": " a n t",
    },
    "parts_of_speech": {
        "The part of speech of footstool is": " noun",
        "The part of speech of continue is": " verb",
        "The part of speech of waggish is": " adjective",
        "The part of speech of answer is": None,
    },
    "past_tense": {
        "The past tense of give is": " gave",
        "The past tense of drum is": " drummed",
        "The past tense of search is": " searched",
        "The past tense of acted is": None,
    },
    "sums": {
        "The sum of seven and four is": " eleven",
        "The sum of twenty-seven and twenty is": " forty-seven",
    },
}


def sides(task: Task) -> dict[str, tuple]:
    return vars(split(task))


@every_task
def test_examples(task: Task):
    answers = {e.prompt: e.answer for e in task.generate()}
    assert {prompt: answers.get(prompt) for prompt in EXAMPLES[task.name]} == EXAMPLES[task.name]


@every_task
def test_no_two_sides_share_a_key_or_a_prompt(task: Task):
    for field in ("key", "prompt"):
        seen = [{getattr(e, field) for e in side} for side in sides(task).values()]
        assert sum(map(len, seen)) == len(set.union(*seen))


@every_task
def test_sizes(task: Task):
    examples = split(task)
    assert len(examples.test) == TEST_EXAMPLES
    assert 20 <= len(examples.validation) <= VALIDATION_EXAMPLES
    # There are no more cities.
    assert len(examples.train) >= (150 if task.name == "cities" else 300)


@every_task
def test_splits_are_the_same_every_time(task: Task):
    assert split.__wrapped__(task) == split(task)


@every_task
def test_prompts_and_answers_are_short(task: Task):
    examples = [e for side in sides(task).values() for e in side]
    assert all(e.answer.startswith(" ") and not e.prompt.endswith(" ") for e in examples)
    assert max(len(e.prompt.split()) for e in examples) <= 8
    assert max(len(e.answer.split()) for e in examples) <= 6


@every_task
def test_answers_are_among_the_choices_and_none_is_rare(task: Task):
    if not task.choices:
        return
    for side in sides(task).values():
        answers = [e.answer for e in side]
        assert set(answers) == set(task.choices)
        assert max(map(answers.count, task.choices)) < 0.75 * len(answers)


@every_task
def test_no_answer_is_that_of_most(task: Task):
    answers = [e.answer for e in split(task).test]
    assert max(map(answers.count, answers)) <= (0.15 if not task.choices else 0.75) * len(answers)


def test_prompts_tell_the_tasks_apart():
    openings = [{" ".join(e.prompt.split()[:2]) for e in split(t).test} for t in TASKS.values()]
    assert all(len(opening) == 1 for opening in openings)
    assert len(set.union(*openings)) == len(TASKS)


def test_adding_an_s_does_not_make_most_plurals():
    test = split(TASKS["plurals"]).test
    assert sum(e.answer == f" {e.key}s" for e in test) < 0.75 * len(test)


def test_adding_an_ending_does_not_make_most_past_tenses():
    test = split(TASKS["past_tense"]).test
    ending = [e.answer in (f" {e.key}ed", f" {e.key}d") for e in test]
    assert sum(ending) < 0.75 * len(test)
