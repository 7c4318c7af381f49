"""Data sets: the formats of their records, their files, errors with their places, and halves."""

from __future__ import annotations

import gzip
import json
import random
import re
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergekit_spectral.errors import MergeError
from mergekit_spectral.tuning.examples import (
    FORMATS,
    NAMES,
    ROLES,
    Conversation,
    Document,
    Example,
    Message,
    Question,
    read_data_set,
    split,
)

SYSTEM, ASK, TOOL = Message("system", "Be kind."), Message("user", "2+2?"), Message("tool", "5")
CHOSEN = Question("2+2?", "4", ("3", "4"))
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\nAdd.\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd."
    "\n\n### Input:\n{2} 2\n\n### Response:\n"
)


def turn(role: str, content: Any = "4", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def said(name: str, value: str = "4") -> dict[str, str]:
    return {"from": name, "value": value}


def asked(**values: Any) -> dict[str, Any]:
    return {"question": "2+2?", **values}


USER = turn("user", "2+2?")

RECORDS: dict[str, tuple[dict[str, Any], Example]] = {
    "OpenAI": ({"messages": [turn("system", "Be kind."), USER, turn("assistant")]},
        Conversation((SYSTEM, ASK), "4")),
    "ShareGPT": ({"conversations": [said("human", "2+2?"), said("gpt", " 4\n")], "id": 1},
        Conversation((ASK,), " 4\n")),
    "LMSYS": ({"conversation": [USER, turn("assistant")]}, Conversation((ASK,), "4")),
    "the last assistant turn": (
        {"messages": [USER, turn("assistant", "5"), USER, turn("assistant"),
            turn("user", [{"type": "image"}])]},
        Conversation((ASK, Message("assistant", "5"), ASK), "4")),
    "a tool": ({"messages": [USER, turn("ipython", "5"), turn("model")]},
        Conversation((ASK, TOOL), "4")),
    "a system message beside": (
        {"system": "Be kind.", "conversations": [said("human", "2+2?"), said("gpt")]},
        Conversation((SYSTEM, ASK), "4")),
    "two system messages": ({"system": "Be rude.", "messages":
        [turn("developer", "Be kind."), USER, turn("assistant")]},
        Conversation((SYSTEM, ASK), "4")),
    "an empty system message": ({"messages": [turn("system", ""), USER, turn("assistant")]},
        Conversation((Message("system", ""), ASK), "4")),
    "parts": ({"messages": [
        turn("user", [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]),
        turn("assistant", [{"type": "text", "text": "4"}])]},
        Conversation((ASK,), "4")),
    "keys of both kinds": ({"messages": [{**turn("user", "2+2?"), "from": None, "value": None},
        {**said("gpt"), "role": None, "content": None, "tool_calls": []}]},
        Conversation((ASK,), "4")),
    "UltraChat": ({"prompt": "2+2?", "messages": [USER, turn("assistant")]},
        Conversation((ASK,), "4")),
    "TRL, messages": ({"prompt": [USER], "completion": [turn("assistant")]},
        Conversation((ASK,), "4")),
    "TRL, a text": ({"prompt": [USER], "completion": "4"}, Conversation((ASK,), "4")),
    "MMLU": (asked(subject="x", choices=["3", "4"], answer=1), CHOSEN),
    "MMLU-Pro": (asked(options=["3", "4"], answer="B", answer_index=1), CHOSEN),
    "ARC": (asked(choices={"text": ["3", "4"], "label": ["1", "2"]}, answerKey="2"), CHOSEN),
    "ARC, a label that is a text": (
        asked(choices={"text": ["B", "A"], "label": ["A", "B"]}, answerKey="B"),
        Question("2+2?", "A", ("B", "A"))),
    "MedQA": (asked(options={"A": "3", "B": "4"}, answer="4", answer_idx="B"), CHOSEN),
    "HellaSwag": ({"ctx_a": "2", "ctx": "2+2?", "endings": ["3", "4"], "label": "1"}, CHOSEN),
    "OpenBookQA": ({"question_stem": "2+2?", "choices": {"text": ["3", "4"], "label": ["A", "B"]},
        "answerKey": "B"}, CHOSEN),
    "RACE": (asked(article="Sums.", options=["3", "4"], answer="B"),
        Question("Sums.\n\n2+2?", "4", ("3", "4"))),
    "a choice's text": (asked(choices=["four", "A"], answer="four"),
        Question("2+2?", "four", ("four", "A"))),
    "a choice twice": (asked(choices=["4", "4"], answer=1), Question("2+2?", "4", ("4", "4"))),
    "labels that are numbers": (
        asked(choices={"text": ["3", "4"], "label": [1, 2]}, answer=2), CHOSEN),
    "Alpaca": ({"instruction": "Add.", "input": "{2} 2", "output": "4", "text": "x"},
        Question(ALPACA_WITH_INPUT, "4")),
    "Alpaca without input": ({"instruction": "Add.", "input": "", "output": "4"},
        Question(ALPACA, "4")),
    "Alpaca with null": ({"instruction": "Add.", "input": None, "output": "4"},
        Question(ALPACA, "4")),
    "Alpaca with a rendered prompt": ({"instruction": "Add.", "prompt": "x", "output": "4"},
        Question(ALPACA, "4")),
    "Dolly": ({"instruction": "Add.", "context": "{2} 2", "response": "4", "category": "x"},
        Question(ALPACA_WITH_INPUT, "4")),
    "Alpaca with a system message": (
        {"instruction": "2+2", "input": "?", "output": "4", "system": "Be kind."},
        Conversation((SYSTEM, Message("user", "2+2\n\n?")), "4")),
    "OpenOrca": ({"system_prompt": "Be kind.", "question": "2+2?", "response": "4"},
        Conversation((SYSTEM, ASK), "4")),
    "OpenOrca without": ({"system_prompt": "", "question": "2+2?", "response": "4"},
        Conversation((ASK,), "4")),
    "GSM8K": (asked(answer="4\n#### 4"), Question("2+2?", "4\n#### 4")),
    "OpenAI's first": ({"prompt": "2+2?\n\n", "completion": " 4\n"}, Question("2+2?\n\n", " 4\n")),
    "MetaMathQA": ({"query": "2+2?", "response": "4", "type": "x", "original_question": "y"},
        Question("2+2?", "4")),
    "MATH-500": ({"problem": "2+2?", "solution": "2+2=4", "answer": "4"}, Question("2+2?", "4")),
    "BBH": ({"input": "2+2?", "target": "4"}, Question("2+2?", "4")),
    "Natural Instructions": ({"input": "2+2?", "output": ["4", "four"]}, Question("2+2?", "4")),
    "FLAN": ({"inputs": "2+2?", "targets": "4"}, Question("2+2?", "4")),
    "SQuAD": ({"context": "Sums.", "question": "2+2?", "answers": {"text": ["4"],
        "answer_start": [0]}}, Question("Sums.\n\n2+2?", "4")),
    "BoolQ with a text": (asked(passage="Sums.", answer="yes"),
        Question("Sums.\n\n2+2?", "yes")),
    "choices that are null": (asked(choices=None, answer="4"), Question("2+2?", "4")),
    "a number": (asked(answer=4), Question("2+2?", "4")),
    "a number with a fraction": (asked(answer=4.50), Question("2+2?", "4.5")),
    "C4": ({"text": " 2+2=4 \r\n", "url": "x"}, Document(" 2+2=4 \r\n")),
    "The Stack": ({"content": "2+2 == 4"}, Document("2+2 == 4")),
}  # fmt: skip


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def answered(number: int | str) -> dict[str, Any]:
    return {"question": f"{number}?", "answer": f"{number}"}


def some(count: int) -> list[Question]:
    return [Question(f"{number}?", str(number)) for number in range(count)]


def by_digest(*examples: Example) -> tuple[Example, ...]:
    return tuple(sorted(examples, key=lambda example: example.digest))


@pytest.mark.parametrize("name", RECORDS)
def test_a_record(name: str, tmp_path: Path):
    record, example = RECORDS[name]
    data = read_data_set(write(tmp_path / "data.jsonl", record))
    assert data.examples == (example,)
    expected = "answers"
    if isinstance(example, Document):
        expected = "text"
    elif isinstance(example, Question) and example.choices:
        expected = "choices"
    assert data.kind == expected


def test_numbers_are_answers_as_they_are_written(tmp_path: Path):
    (tmp_path / "data.jsonl").write_text('{"question": "a", "answer": 1.50}')
    assert read_data_set(tmp_path / "data.jsonl").examples == (Question("a", "1.50"),)


@pytest.mark.parametrize(
    ("record", "example"),
    [({p: "p", a: "a"}, Question("p", "a")) for p in NAMES["prompt"] for a in NAMES["answer"]]
    + [
        (asked(**{many: ["3", "4"], one: "B"}), CHOSEN)
        for many in NAMES["choices"]
        for one in NAMES["choice"]
    ]
    + [(asked(answer="a", **{c: "c"}), Question("c\n\n2+2?", "a")) for c in NAMES["context"]]
    + [
        ({"instruction": "Add.", i: "{2} 2", a: "4"}, Question(ALPACA_WITH_INPUT, "4"))
        for i in NAMES["input"]
        for a in NAMES["answer"]
    ]
    + [
        (asked(answer="4", **{s: "Be kind."}), Conversation((SYSTEM, ASK), "4"))
        for s in NAMES["system"]
    ]
    + [({t: "t"}, Document("t")) for t in NAMES["text"]],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_other_names(record: dict[str, Any], example: Example, tmp_path: Path):
    assert read_data_set(write(tmp_path / "data.jsonl", record)).examples == (example,)


@pytest.mark.parametrize(("role", "name"), [(r, name) for r in ROLES for name in ROLES[r]])
def test_a_role(role: str, name: str, tmp_path: Path):
    record = {"messages": [USER, turn(name), turn("assistant")]}
    (example,) = read_data_set(write(tmp_path / "data.jsonl", record)).examples
    assert isinstance(example, Conversation)
    if role == "assistant":
        assert example.messages[-1] == Message("assistant", "4")
    else:
        assert example.messages[-1].role == role


WRONG: dict[str, tuple[Any, str]] = {
    "unknown keys": (
        {"id": 1, "chosen": "a", "rejected": None},
        "no format has the keys id, chosen, rejected (null); the formats are chat "
        "(messages/conversations/conversation), multiple choice (prompt/question/query/… + "
        "choices/options/endings + answer/target/correct/…), Alpaca (instruction + "
        "answer/completion/response/…), prompt and answer (prompt/question/query/… + "
        "answer/completion/response/…), text (text/content).",
    ),
    "no keys": ({}, "no format has the keys (none); the formats are"),
    "many keys": ({str(n): n for n in range(20)}, "no format has the keys 0, 1, 2, 3, 4, 5, 6, 7, "
        "8, 9, 10, 11, …; the formats are"),
    "a list": (["a"], 'must be an object such as {"question": "…", "answer": "…"}; got a list.'),
    "a text": ("a", 'must be an object such as {"question": "…", "answer": "…"}; got "a".'),
    "no answer": (asked(answer=None),
        "no format has the keys question, answer (null); the formats are"),
    "two prompts": (asked(prompt="a", answer="b"),
        "`prompt` and `question` may each be the prompt; keep one."),
    "two contexts": (asked(context="a", passage="a", answer="b"),
        "`context` and `passage` may each be the context; keep one."),
    "a text with an answer": ({"content": "a", "output": "b"}, "has `content` and `output`; call "
        "the text `prompt` if that is its answer, or give the file with --text if not."),
    "an empty prompt": ({"prompt": " ", "answer": "a"},
        "`prompt` is empty; give its text, or remove the record."),
    "a prompt of another type": ({"prompt": 3, "answer": "a"}, "`prompt` must be text; got 3."),
    "an empty instruction": ({"instruction": "", "output": "a"}, "`instruction` is empty;"),
    "an empty answer": (asked(answer="\n"), "`answer` is empty; give its text, or remove the "),
    "no accepted answer": (asked(answers={"text": []}), "`answers` is empty;"),
    "accepted answers without text": (asked(answer={"value": "a"}),
        "`answer` must be text; got null."),
    "a truth value": (asked(answer=True), "`answer` must be text; got true."),
    "no number": (asked(answer=float("nan")), "`answer` must be text; got NaN."),
    "an empty text": ({"text": ""}, "`text` is empty;"),
    "a long value": ({"text": list(range(3))}, "`text` must be text; got a list."),
    "half a character": ({"text": "a \ud83d"},
        "`text` has \\ud83d, which is one half of a character; remove it."),
    "one choice": (asked(choices=["a"], answer=0),
        "`choices` must have two or more choices; got 1."),
    "no choice": (asked(options={}, answer=0), "`options` must have two or more choices; got 0."),
    "choices as a text": (asked(choices="a, b", answer=0),
        '`choices` must be a list of texts; got "a, b".'),
    "choices without labels": (asked(choices={"text": ["a", "b"], "label": 3}, answer=0),
        "`choices` must be a list of texts; got"),
    "a number as a choice": (asked(choices=["a", 3], answer=0),
        "choice 2 in `choices` must be text; got 3."),
    "an empty choice": (asked(choices=["a", ""], answer=0), "choice 2 in `choices` is empty;"),
    "a label too few": (asked(choices={"text": ["a", "b"], "label": ["A"]}, answerKey="A"),
        "`choices` must have a label for each choice; got 1 labels and 2 choices."),
    "an index out of range": (asked(choices=["a", "b"], answer=2),
        "`answer` is 2, but the 2 choices have the indices 0 to 1 and the labels A, B."),
    "a negative index": (asked(choices=["a", "b"], answer=-1), "`answer` is -1, but the 2 choices"),
    "a large index": (asked(choices=["a", "b"], label="9" * 5000),
        f'`label` is "{"9" * 38}…, but the 2 choices'),
    "a label out of range": (asked(choices=["a", "b"], answer="C"),
        '`answer` is "C", but the 2 choices have the indices 0 to 1 and the labels A, B.'),
    "a text for a position": (asked(choices=["x", "y"], answerKey="y"),
        '`answerKey` is "y", but the 2 choices'),
    "a hidden answer": (asked(choices=["x", "y"], label=""), '`label` is "", but the 2 choices'),
    "a letter and a text": (asked(choices=["B", "A"], answer="A"),
        '`answer` is "A", which is the label or index of one choice and the text of another; call '
        "it `answer_index` and give the index, from 0."),
    "an index and a text": (asked(choices=["1", "0"], answer="1"), '`answer` is "1", which is'),
    "a truth value for a choice": (asked(choices=["no", "yes"], answer=True),
        "`answer` must be a choice's index, label or text; got true."),
    "no messages": ({"messages": []}, "`messages` has no assistant turn, whose content would be "),
    "messages as a text": ({"messages": "a"}, '`messages` must be a list of messages; got "a".'),
    "a message as a text": ({"conversations": ["a", "b"]}, "message 1 in `conversations` must be "
        'an object with role and content, or from and value; got "a".'),
    "a message without a role": ({"messages": [{"text": "a"}]},
        "message 1 in `messages` must be an object with role and content, or from and value; "
        "got an object with the keys text."),
    "an unknown role": ({"messages": [USER, turn("bot")]}, 'message 2 in `messages` has the role '
        '"bot"; it must be one of system, developer, user, human, assistant, '),
    "no assistant": ({"messages": [USER]}, "`messages` has no assistant turn, whose content"),
    "no user": ({"messages": [turn("system"), turn("assistant")]},
        "`messages` has no user turn with content before the answer."),
    "an empty user": ({"messages": [turn("user", ""), turn("assistant")]},
        "`messages` has no user turn with content before the answer."),
    "an empty assistant": ({"messages": [USER, turn("assistant", "")]},
        "the assistant's answer, message 2 in `messages`, is empty; give its text, or remove "),
    "no content": ({"messages": [USER, turn("assistant", None)]},
        "the assistant's answer, message 2 in `messages`, must be text; got null."),
    "tool calls": ({"messages": [USER, turn("assistant", None, tool_calls=[{}])]},
        "the assistant's answer, message 2 in `messages`, has tool calls as an object; write"),
    "an image": ({"messages": [turn("user", [{"type": "image"}]), turn("assistant")]},
        "message 1 in `messages` has content other than text; remove the record."),
    "a part without text": ({"messages": [turn("user", [{"type": "text"}]), turn("assistant")]},
        "a part of message 1 in `messages` must be text; got null."),
    "a part of another type": ({"messages": [turn("user", ["a"]), turn("assistant")]},
        "message 1 in `messages` has content other than text; remove the record."),
}  # fmt: skip


def fails(path: Path, message: str, **options: Any) -> None:
    """Check that reading a data set fails with a sentence that begins with `message`."""
    with pytest.raises(MergeError) as raised:
        read_data_set(path, **options)
    said = raised.value.message
    assert said.startswith(message), said
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_record(name: str, tmp_path: Path):
    record, message = WRONG[name]
    path = write(tmp_path / "data.jsonl", *[answered(n) for n in range(16)], record)
    fails(path, f"{path}, line 17: {message}")


def test_a_wrong_record_of_a_list(tmp_path: Path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([answered(1), {"question": "a"}], indent=2))
    fails(path, f"{path}, record 2: no format has the keys question;")


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "a broken line": (".jsonl", b'{"text": "a"}\n\n{"text": "b" "c"}\n', ", line 3: not JSON "
        "(Expecting ',' delimiter at column 14); each line must be one record in JSON."),
    "half a line": (".jsonl", b'{"text": "a"}\n{"text": "b', ", line 2: not JSON (Unterminated "
        "string starting at column 10); each line must be one record in JSON."),
    "a list over lines": (".jsonl", b'[\n{"text": "a"}]', ", line 1: not JSON (Expecting value"),
    "a broken list": (".json", b'[{"text": "a"},\n{"text": "b"},\n}', ", line 3: not JSON ("),
    "a broken line of many": (".json", b'{"text": "a"}\n{"text": "b}\n', ", line 2: not JSON ("),
    "a broken first line": (".json", b'{"text": a}\n{"text": "b"}\n', ", line 1: not JSON ("),
    "no JSON": (".json", b"text", ", line 1: not JSON (Expecting value at column 1); the file must "
        "be a list of records, or have one per line."),
    "nested too deeply": (".json", b"[" * 200_000, ", line 1: not JSON ("),
    "a huge number": (".jsonl", b'{"text": ' + b"9" * 9000 + b"}", ", line 1: not JSON (Exceeds"),
    "no UTF-8": (".jsonl", '{"text": "a"}\n{"text": "é"}'.encode("latin-1"),
        ", line 2: not UTF-8 (byte 0xe9); save the file as UTF-8."),
    "no UTF-8 in the second record": (".json", '{"text": "a"}\n{"text": "é"}'.encode("latin-1"),
        ", line 2: not UTF-8 (byte 0xe9);"),
    "no UTF-8 in a list": (".json", '[{"text": "a"},\n{"text": "é"}]'.encode("latin-1"),
        ", line 2: not UTF-8 (byte 0xe9);"),
    "no UTF-8 in a text": (".txt", "a\nb\né".encode("latin-1"),
        ", line 3: not UTF-8 (byte 0xe9);"),
    "UTF-16": (".jsonl", '{"text": "a"}'.encode("utf-16"), " is binary or in UTF-16 (it has zero "
        "bytes); data must be text in UTF-8."),
    "binary": (".txt", bytes(range(256)), " is binary or in UTF-16 (it has zero bytes)"),
    "no bytes": (".jsonl", b"", " is empty; give a file with at least one example."),
    "blank lines": (".jsonl", b"\n \n", " is empty;"),
    "a blank list": (".json", b"\n", " is empty;"),
    "an empty list": (".json", b"[]", " is empty;"),
    "an empty list at a key": (".json", b'{"data": []}', " is empty;"),
    "a blank text": (".txt", b"\n\n", " is empty;"),
    "only a byte order mark": (".txt", b"\xef\xbb\xbf", " is empty;"),
    "no gzip": (".jsonl.gz", b'{"text": "a"}', " cannot be unpacked (Not a gzipped file"),
    "half a gzip": (".jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99)[:-12],
        " cannot be unpacked (Compressed file ended before the end-of-stream marker was reached); "
        "compress or download it again."),
    "a damaged gzip": (".txt.gz", gzip.compress(b"a")[:10] + b"\xff" * 20,
        " cannot be unpacked ("),
    "an empty gzip": (".txt.gz", gzip.compress(b""), " is empty;"),
    "another type": (".parquet", b"PAR1",
        " must be a file that ends in .jsonl, .json or .txt, each also with .gz; "
        "convert it, for example with to_json of the library datasets, or give"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file(name: str, tmp_path: Path):
    suffix, content, message = BROKEN[name]
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    fails(path, f"data {path}{message}" if "must be a file" in message else f"{path}{message}")


def test_a_missing_file(tmp_path: Path):
    path = tmp_path / "none.jsonl"
    fails(path, f"data {path} not found (working directory {Path.cwd()}); give a file or a folder.")


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("data.jsonl")
        fails(Path("data.jsonl"), "data.jsonl cannot be read (")


def test_a_folder_without_data(tmp_path: Path):
    (tmp_path / "notes.md").write_text("a")
    write(tmp_path / ".hidden.jsonl", {"text": "a"})
    (tmp_path / ".cache").mkdir()
    write(tmp_path / ".cache" / "data.jsonl", {"text": "a"})
    (tmp_path / "folder.json").mkdir()
    fails(
        tmp_path,
        f"data {tmp_path} is a folder without data files; they end in .jsonl, .json or .txt, each "
        "also with .gz.",
    )


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (answered(1), {"text": "a"}, "is a text, but {} is a question with an answer"),
        ({"text": "a"}, answered(1), "is a question with an answer, but {} is a text"),
        (
            {"messages": [USER, turn("assistant")]},
            asked(choices=["3", "4"], answer=1),
            "is a multiple choice question, but {} is a question with an answer",
        ),
    ],
)
def test_several_kinds(first: Any, second: Any, message: str, tmp_path: Path):
    path = write(tmp_path / "data.jsonl", first, first, second)
    right = "; a data set must be of one kind, so divide it into several."
    fails(path, f"{path}, line 3: {message.format(f'{path}, line 1')}{right}")
    path.unlink()
    one, other = write(tmp_path / "1.jsonl", first), write(tmp_path / "2.jsonl", second)
    fails(tmp_path, f"{other}, line 1: {message.format(f'{one}, line 1')}{right}")


def test_prompts_and_conversations_are_one_kind(tmp_path: Path):
    path = write(tmp_path / "data.jsonl", answered(1), {"messages": [USER, turn("assistant")]})
    assert read_data_set(path).kind == "answers"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one(limit: int, tmp_path: Path):
    path = write(tmp_path / "data.jsonl", {"text": "a"})
    fails(path, f"the limit of examples must be 1 or more; got {limit}.", limit=limit)


TWO = [answered(1), answered(2)]

FILES: dict[str, tuple[str, str]] = {
    "lines": (".jsonl", "".join(json.dumps(one) + "\n" for one in TWO)),
    "blank lines": (".jsonl", "\n" + "\r\n\r\n".join(json.dumps(one) for one in TWO)),
    "lines of json": (".json", "\n" + "\n\n".join(json.dumps(one) for one in TWO)),
    "capitals": (".JSONL", "\n".join(json.dumps(one) for one in TWO)),
    "a list": (".json", json.dumps(TWO)),
    "a list over lines": (".json", json.dumps(TWO, indent=2)),
    "a list of lines": (".json", ",\n".join(json.dumps(one) for one in TWO).join("[]")),
    "an object": (".json", json.dumps({"version": 1, "data": TWO}, indent=1)),
    "instances": (".json", json.dumps({"instances": TWO})),
    "rows": (".json", json.dumps({"features": [], "rows": TWO})),
    "the viewer's rows": (
        ".json",
        json.dumps({"rows": [{"row_idx": i, "row": one} for i, one in enumerate(TWO)]}),
    ),
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "mark"])
@pytest.mark.parametrize("packed", [False, True], ids=["", "gz"])
@pytest.mark.parametrize("name", FILES)
def test_a_file(name: str, packed: bool, mark: bytes, tmp_path: Path):
    suffix, text = FILES[name]
    content = mark + text.encode()
    path = tmp_path / f"math-v1.1{suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    data = read_data_set(path)
    assert data.examples == by_digest(Question("1?", "1"), Question("2?", "2"))
    assert (data.name, data.path, data.records) == ("math-v1.1", path, 2)


@pytest.mark.parametrize("lines", ["{}\n", "{}"])
def test_a_file_of_one_record(lines: str, tmp_path: Path):
    (tmp_path / "one.json").write_text(lines.format(json.dumps(answered(1))))
    (tmp_path / "lines.json").write_text(json.dumps(answered(1), indent=2))
    for name in ("one.json", "lines.json"):
        assert read_data_set(tmp_path / name).examples == (Question("1?", "1"),)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", ["wiki.en.txt", "wiki.en.txt.gz"])
def test_a_text(name: str, text: bool, tmp_path: Path):
    content = "\ufeffOne.\r\n\r\nTwo. \n".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    data = read_data_set(tmp_path / name, text)
    assert data.examples == (Document("One.\n\nTwo. \n"),)
    assert (data.name, data.kind) == ("wiki.en", "text")


@pytest.mark.parametrize(("name", "short"), [("a.md", "a"), ("a.b.py", "a.b.py"), ("A", "A")])
def test_a_text_of_any_suffix(name: str, short: str, tmp_path: Path):
    (tmp_path / name).write_text("One.")
    data = read_data_set(tmp_path / name, text=True)
    assert (data.examples, data.name) == ((Document("One."),), short)
    with pytest.raises(MergeError, match=r"must be a file that ends in .* with --text\."):
        read_data_set(tmp_path / name)


def test_texts_of_records_that_have_more(tmp_path: Path):
    record = {"instruction": "a", "output": "b", "text": "a b"}
    path = write(tmp_path / "data.jsonl", record, {"text": "c", "answer": "d"})
    assert read_data_set(path, text=True).examples == by_digest(Document("a b"), Document("c"))


def test_records_without_text(tmp_path: Path):
    path = write(tmp_path / "data.jsonl", answered(1))
    message = "has the keys question, answer, but --text needs text, content; give questions with"
    fails(path, f"{path}, line 1: {message}", text=True)


def test_a_folder_is_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "math.v2"
    (folder / "more").mkdir(parents=True)
    (folder / "README.md").write_text("a")
    write(folder / "b.jsonl", answered(1), answered(2))
    (folder / "more" / "a.json.gz").write_bytes(gzip.compress(json.dumps(TWO[1:]).encode()))
    write(folder / "more.jsonl", answered(3))
    data = read_data_set(folder)
    assert data.examples == by_digest(*(Question(f"{n}?", str(n)) for n in (1, 2, 3)))
    assert (data.name, data.path, data.records) == ("math.v2", folder, 4)
    monkeypatch.chdir(folder)
    assert read_data_set(Path(".")).name == "math.v2"


@given(numbers=st.lists(st.integers(0, 12), min_size=1, max_size=30), limit=st.integers(1, 14))
def test_a_sample_does_not_depend_on_order(
    numbers: list[int], limit: int, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.getbasetemp() / "sampled.jsonl"
    data = read_data_set(write(path, *map(answered, numbers)), limit=limit)
    every = by_digest(*(Question(f"{number}?", str(number)) for number in set(numbers)))
    assert data.examples == every[:limit]
    assert data.records == len(numbers)


def test_a_sample_of_a_large_file_needs_little_memory(tmp_path: Path):
    path = write(tmp_path / "data.jsonl", *({"text": f"{n}" * 500} for n in range(700)))
    assert path.stat().st_size > 1e6
    tracemalloc.start()
    try:
        assert len(read_data_set(path, limit=10).examples) == 10
        assert tracemalloc.get_traced_memory()[1] < 3e5
    finally:
        tracemalloc.stop()


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
messages = st.builds(Message, st.sampled_from(sorted(ROLES)), texts)
examples = st.one_of(
    st.builds(Question, texts, texts),
    st.builds(Question, texts, texts, st.lists(texts, min_size=2, max_size=3).map(tuple)),
    st.builds(Conversation, st.lists(messages, min_size=1, max_size=3).map(tuple), texts),
    st.builds(Document, texts),
)


@given(examples, examples)
def test_digests_are_of_the_content(one: Example, other: Example):
    assert re.fullmatch("[0-9a-f]{64}", one.digest)
    assert (one.digest == other.digest) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Question("ab", "c"), Question("a", "bc")),
        (Question("a", "b", ("b", "c")), Question("a", "b")),
        (Question("a", "b", ("b", "c")), Question("a", "b", ("c", "b"))),
        (Question("a", "b", ("b", "c", "d")), Question("a", "b", ("b", "cd"))),
        (Conversation((Message("user", "a"),), "b"), Conversation((Message("tool", "a"),), "b")),
        (Conversation((Message("user", "a"),), "b"), Question("a", "b")),
        (Document("a\n"), Document("a")),
        (Document("é"), Document("e\u0301")),
    ],
)
def test_digests_of_similar_examples_differ(one: Example, other: Example):
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("example", "digest"),
    [
        (Question("2+2?", "4"), "1287646e43cef499"),
        (Question("é", "🙂", ("🙂", "\u2028")), "0c318b4b8ee4f506"),
        (Conversation((ASK,), "4"), "0d9c81b41a7fa71c"),
        (Document("a\nb"), "e7f6b10200cc81cf"),
    ],
)
def test_digests_stay_the_same_between_versions(example: Example, digest: str):
    assert example.digest.startswith(digest)


@given(st.lists(examples, max_size=12), st.randoms(use_true_random=False))
def test_halves(drawn: list[Example], order: random.Random):
    choosing, reporting = split(drawn)
    assert not {*choosing} & {*reporting}
    assert {*choosing, *reporting} == {*drawn}
    assert len(choosing) + len(reporting) == len({*drawn})
    assert 0 <= len(choosing) - len(reporting) <= 1
    again = drawn * 2
    order.shuffle(again)
    assert split(again) == (choosing, reporting)


@given(st.lists(examples, max_size=12), examples)
def test_one_more_example_moves_at_most_one(drawn: list[Example], more: Example):
    before, after = split(drawn), split([*drawn, more])
    moved = {*before[0]} & {*after[1]} | {*before[1]} & {*after[0]}
    assert len(moved) <= 1


def test_a_larger_sample_adds_to_both_halves():
    every = by_digest(*some(400))
    before, after = split(every[:200]), split(every)
    moved = {*before[0]} & {*after[1]} | {*before[1]} & {*after[0]}
    assert len(moved) < 30


def test_the_docs_list_all_names():
    docs = Path(__file__).parents[2] / "docs"
    lines = {line for file in docs.glob("tune*.md") for line in file.read_text().splitlines()}
    for part, names in (NAMES | ROLES).items():
        assert any(
            line.startswith(f"| {part} | ") and f"| `{'`, `'.join(names)}` |" in line
            for line in lines
        ), part
    for form in FORMATS:
        assert any(line.startswith(f"| {form.name} |") for line in lines), form.name
