"""Read a data set's examples, in the formats that data sets of the Hub have.

`FORMATS` lists the formats, and `NAMES` what their parts are called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, Protocol, TypeVar

from mergekit_spectral.errors import MergeError
from mergekit_spectral.tuning.data_files import (
    Entry,
    data_set_name,
    find_data_files,
    read_entries,
)

Kind = Literal["answers", "choices", "text"]
"""How examples are scored: by a free answer, by the choice of one of several, by perplexity."""

Role = Literal["system", "user", "assistant", "tool"]


class HasDigest(Protocol):
    """What can be split by its content."""

    @property
    def digest(self) -> str:
        """A hash of the content, in hexadecimal."""


E = TypeVar("E", bound=HasDigest)


@dataclass(frozen=True)
class Example:
    """What a merged model is scored on. Nothing is tokenized yet, and no text is stripped."""

    @property
    def kind(self) -> Kind:
        """How the example is scored."""
        raise NotImplementedError

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal: of equal examples equal, on every machine."""
        content = json.dumps([type(self).__name__, asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()


@dataclass(frozen=True)
class Question(Example):
    """A prompt and its answer.

    Attributes:
        prompt: text before the answer, without a separator between the two.
        answer: the expected text. Of a multiple choice question, the text of the right choice.
        choices: texts to choose the answer from, two or more; empty if the answer is free.
    """

    prompt: str
    answer: str
    choices: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        return "choices" if self.choices else "answers"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation(Example):
    """Messages and the assistant's answer to them, for the model's chat template.

    Attributes:
        messages: all messages before the answer; at least one is the user's.
        answer: content of the assistant's last message.
    """

    messages: tuple[Message, ...]
    answer: str

    @property
    def kind(self) -> Kind:
        return "answers"


@dataclass(frozen=True)
class Document(Example):
    """A text."""

    text: str

    @property
    def kind(self) -> Kind:
        return "text"


@dataclass(frozen=True)
class DataSet:
    """Examples of one kind.

    Attributes:
        name: the file's name without its suffixes, or the folder's name.
        path: the file or folder.
        examples: all different examples or a sample of them, by their digests; at least one.
        records: number of records and documents that were read, with duplicates.
    """

    name: str
    path: Path
    examples: tuple[Example, ...]
    records: int

    @property
    def kind(self) -> Kind:
        """How the examples are scored."""
        return self.examples[0].kind


def read_data_set(path: Path, text: bool = False, limit: int | None = None) -> DataSet:
    """Read the examples of a file, or of all data files in a folder.

    Args:
        path: a ``.jsonl``, ``.json`` or ``.txt`` file, which may be gzipped, or a folder of them.
        text: read texts only. A file that is named directly may then have any suffix.
        limit: largest number of examples. Those with the smallest digests are kept, so the sample
            is the same in whatever order and files the examples are. Only about twice this number
            is in memory at any time, except from a list in a ``.json`` file.

    Raises:
        MergeError: a file cannot be read, a record has none of the formats or lacks a part, the
            examples are of several kinds, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise MergeError(f"the limit of examples must be 1 or more; got {limit}.")
    kept: dict[str, Example] = {}
    first: tuple[Kind, str] | None = None
    records = 0
    for example, place in _read_examples(path, text):
        first = first or (example.kind, place)
        if example.kind != first[0]:
            raise MergeError(
                f"{place}: is {_KINDS[example.kind]}, but {first[1]} is {_KINDS[first[0]]}; a data "
                "set must be of one kind, so divide it into several."
            )
        records += 1
        kept[example.digest] = example
        if limit is not None and len(kept) >= 2 * limit:
            kept = _smallest(kept, limit)
    return DataSet(data_set_name(path), path, tuple(_smallest(kept, limit).values()), records)


def split(examples: Iterable[E]) -> tuple[tuple[E, ...], tuple[E, ...]]:
    """Split examples into a half that chooses and a half that reports.

    Equal examples count once. The rule: sort by the digests, read backwards, and cut in the middle.

    - The halves depend on the content alone, and their sizes differ by at most one. A rule by one
      bit of the digest could leave a half of few examples empty.
    - One example more makes at most one of the others change halves. If the halves took turns in
      the sorted order, every example after the new one would change.
    - `read_data_set` takes samples by the digests read forwards. Read backwards they are in an
      unrelated order, so a larger limit adds to both halves.

    Returns:
        The choosing half, which has the odd example, and the reporting half. Both are sorted, and
        neither is empty if there are two different examples.
    """
    different = {example.digest[::-1]: example for example in examples}
    ordered = tuple(different[key] for key in sorted(different))
    middle = (len(ordered) + 1) // 2
    return ordered[:middle], ordered[middle:]


_KINDS: dict[Kind, str] = {
    "answers": "a question with an answer",
    "choices": "a multiple choice question",
    "text": "a text",
}


def _read_examples(path: Path, text: bool) -> Iterator[tuple[Example, str]]:
    """Yield all examples, each with its place."""
    for file in find_data_files(path, text):
        for entry in read_entries(file):
            yield _to_example(entry, text), entry.place


def _smallest(examples: dict[str, Example], limit: int | None) -> dict[str, Example]:
    return dict(sorted(examples.items())[:limit])


# Records

NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "question", "query", "problem", "question_stem", "ctx", "input", "inputs"),
    "answer": ("answer", "completion", "response", "output", "solution", "target", "targets",
        "answers"),
    "choices": ("choices", "options", "endings"),
    "choice": ("answer", "target", "correct", "answerKey", "answer_idx", "answer_index", "label"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "context": ("context", "passage", "article"),
    "system": ("system", "system_prompt"),
    "text": ("text", "content"),
}  # fmt: skip
"""What data sets call the parts of a record. A key whose value is null counts as missing."""

ROLES: dict[Role, tuple[str, ...]] = {
    "system": ("system", "developer"),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "chatgpt", "model"),
    "tool": ("tool", "function", "observation", "ipython"),
}
"""What data sets call the roles in a conversation."""

_SEVERAL = ("answer", "choice")  # parts that may have several keys, of which the first is taken
_POSITIONS = ("answerKey", "answer_idx", "answer_index", "label")  # never the text of a choice

_ALPACA_PREAMBLE = (
    "Below is an instruction that describes a task{paired}. Write a response that appropriately "
    "completes the request.\n\n"
)
_ALPACA = _ALPACA_PREAMBLE.format(paired="") + "### Instruction:\n{instruction}\n\n### Response:\n"
_ALPACA_WITH_INPUT = (
    _ALPACA_PREAMBLE.format(paired=", paired with an input that provides further context")
    + "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


@dataclass(frozen=True)
class _Record:
    """A record of a data file.

    Attributes:
        values: its values by key, those that are not null.
        place: the file with the line or the record's number.
    """

    values: dict[str, Any]
    place: str

    def key(self, part: str) -> str | None:
        """Return the key of a part, the first of several, or None if the record lacks the part."""
        return next((key for key in NAMES[part] if key in self.values), None)

    def get(self, part: str) -> tuple[str, Any]:
        """Return the key of a part and its value, for messages and for use."""
        key = self.key(part)
        assert key is not None, f"{part} is not required by the format"
        return f"`{key}`", self.values[key]

    def text(self, part: str) -> str:
        """Return the text of a part that the record must have."""
        key, value = self.get(part)
        return self.require_text(key, value)

    def optional_text(self, part: str) -> str:
        """Return the text of a part, or an empty one."""
        return self.require_text(*self.get(part), empty=True) if self.key(part) else ""

    def require_text(self, name: str, value: Any, empty: bool = False) -> str:
        """Return a value, which must be a text that a tokenizer can read.

        Args:
            name: of the value, for messages.
            value: from JSON.
            empty: whether it may be empty, or consist of white space.
        """
        if not isinstance(value, str):
            raise self.error(f"{name} must be text; got {_shown(value)}")
        if not (empty or value.strip()):
            raise self.error(f"{name} is empty; give its text, or remove the record")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise self.error(
                f"{name} has {half}, which is one half of a character; remove it"
            ) from error
        return value

    def error(self, reason: str) -> MergeError:
        """Return an error that names the record's place."""
        return MergeError(f"{self.place}: {reason}.")


def _to_example(entry: Entry, text: bool) -> Example:
    """Make an example of a record or document.

    Args:
        entry: of a data file.
        text: whether to accept texts only.
    """
    if entry.is_document:
        return Document(entry.content)
    if not isinstance(entry.content, dict):
        raise MergeError(
            f'{entry.place}: must be an object such as {{"question": "…", "answer": "…"}}; got '
            f"{_shown(entry.content)}."
        )
    values = {key: value for key, value in entry.content.items() if value is not None}
    record = _Record(values, entry.place)
    for form in _TEXT_ONLY if text else FORMATS:
        if all(record.key(part) for part in form.parts):
            for part in (*form.parts, *form.optional):
                keys = [f"`{key}`" for key in NAMES[part] if key in values]
                if len(keys) > 1 and part not in _SEVERAL:
                    raise record.error(f"{' and '.join(keys)} may each be the {part}; keep one")
            return form.read(record)
    found = [key if key in values else f"{key} (null)" for key in entry.content]
    raise record.error(
        f"has the keys {_listed(found, 12) or '(none)'}, but --text needs {_listed(NAMES['text'])};"
        " give questions with --data"
        if text
        else f"no format has the keys {_listed(found, 12) or '(none)'}; the formats are "
        + ", ".join(f"{form.name} ({form.summary})" for form in FORMATS)
    )


def _chat(record: _Record) -> Example:
    key, turns = record.get("messages")
    return _conversation(record, key, turns)


def _multiple_choice(record: _Record) -> Example:
    key, choices = record.get("choices")
    labels: Any = ascii_uppercase
    if isinstance(choices, dict) and set(choices) >= {"text", "label"}:  # as in ARC
        labels, choices = choices["label"], choices["text"]
    elif isinstance(choices, dict):  # as in MedQA: {"A": "…", "B": "…"}
        labels, choices = list(choices), list(choices.values())
    if not isinstance(choices, list) or not isinstance(labels, (list, str)):
        raise record.error(f"{key} must be a list of texts; got {_shown(choices)}")
    if len(choices) < 2:
        raise record.error(f"{key} must have two or more choices; got {len(choices)}")
    if labels is not ascii_uppercase and len(labels) != len(choices):
        raise record.error(
            f"{key} must have a label for each choice; got {len(labels)} labels and "
            f"{len(choices)} choices"
        )
    texts = tuple(
        record.require_text(f"choice {number} in {key}", choice)
        for number, choice in enumerate(choices, 1)
    )
    answer = _right_choice(record, texts, dict(zip(map(str, labels), texts, strict=False)))
    return Question(_prompt(record), answer, texts)


def _right_choice(record: _Record, texts: tuple[str, ...], labelled: dict[str, str]) -> str:
    """Return the choice that an answer names by its label, its index from 0 or its text.

    Args:
        record: with the answer.
        texts: of the choices.
        labelled: the texts by label.

    Raises:
        MergeError: it names none, or as a label another one than as a text.
    """
    key, answer = record.get("choice")
    if isinstance(answer, bool) or not isinstance(answer, (str, int)):
        raise record.error(f"{key} must be a choice's index, label or text; got {_shown(answer)}")
    name = str(answer)
    named = set()
    if name in labelled:
        named.add(labelled[name])
    elif name.isdecimal() and len(name) < 4 and int(name) < len(texts):
        named.add(texts[int(name)])
    if isinstance(answer, str) and record.key("choice") not in _POSITIONS and answer in texts:
        named.add(answer)
    if not named:
        raise record.error(
            f"{key} is {_shown(answer)}, but the {len(texts)} choices have the indices 0 to "
            f"{len(texts) - 1} and the labels {', '.join(labelled)}"
        )
    if len(named) > 1:
        raise record.error(
            f"{key} is {_shown(answer)}, which is the label or index of one choice and the text "
            "of another; call it `answer_index` and give the index, from 0"
        )
    return named.pop()


def _alpaca(record: _Record) -> Example:
    instruction, more = record.text("instruction"), record.optional_text("input")
    answer = _answer(record)
    if record.key("system"):
        return _after_system(record, "\n\n".join(filter(None, (instruction, more))), answer)
    template = _ALPACA_WITH_INPUT if more else _ALPACA
    return Question(template.format(instruction=instruction, input=more), answer)


def _prompt_and_answer(record: _Record) -> Example:
    key, prompt = record.get("prompt")
    if isinstance(prompt, list):  # as in TRL: messages, of which the answer has the last
        _, last = record.get("answer")
        turns = last if isinstance(last, list) else [{"role": "assistant", "content": last}]
        return _conversation(record, key, prompt + turns)
    if record.key("system"):
        return _after_system(record, _prompt(record), _answer(record))
    return Question(_prompt(record), _answer(record))


def _document(record: _Record) -> Example:
    return Document(record.text("text"))


def _text(record: _Record) -> Example:
    answer = record.key("answer")
    if answer:
        text, _ = record.get("text")
        raise record.error(
            f"has {text} and `{answer}`; call the text `prompt` if that is its answer, or give the "
            "file with --text if not"
        )
    return _document(record)


def _prompt(record: _Record) -> str:
    context, prompt = record.optional_text("context"), record.text("prompt")
    return f"{context}\n\n{prompt}" if context else prompt


def _answer(record: _Record) -> str:
    key, answer = record.get("answer")
    if isinstance(answer, dict):  # as in SQuAD
        answer = answer.get("text")
    if isinstance(answer, list):  # of accepted answers
        answer = answer[0] if answer else ""
    if isinstance(answer, int) and not isinstance(answer, bool):
        answer = str(answer)
    return record.require_text(key, answer)


def _after_system(record: _Record, prompt: str, answer: str) -> Conversation:
    system = record.optional_text("system")
    messages = (Message("system", system), Message("user", prompt))
    return Conversation(messages if system else messages[1:], answer)


def _conversation(record: _Record, key: str, turns: Any) -> Conversation:
    """Take the last message of the assistant for the answer, and ignore what follows it."""
    if not isinstance(turns, list):
        raise record.error(f"{key} must be a list of messages; got {_shown(turns)}")
    roles = [_role(record, turn, f"message {n} in {key}") for n, turn in enumerate(turns, 1)]
    if "assistant" not in roles:
        raise record.error(f"{key} has no assistant turn, whose content would be the answer")
    last = len(roles) - 1 - roles[::-1].index("assistant")
    messages = tuple(
        Message(role, _content(record, turn, f"message {n} in {key}"))
        for n, (role, turn) in enumerate(zip(roles[:last], turns, strict=False), 1)
    )
    if not any(message.role == "user" and message.content.strip() for message in messages):
        raise record.error(f"{key} has no user turn with content before the answer")
    system = record.optional_text("system")
    if system and messages[0].role != "system":
        messages = (Message("system", system), *messages)
    name = f"the assistant's answer, message {last + 1} in {key},"
    return Conversation(messages, record.require_text(name, _content(record, turns[last], name)))


def _role(record: _Record, turn: Any, name: str) -> Role:
    given = _first(turn, "role", "from") if isinstance(turn, dict) else None
    if given is None:
        raise record.error(
            f"{name} must be an object with role and content, or from and value; got {_shown(turn)}"
        )
    role = next((role for role, names in ROLES.items() if given in names), None)
    if role is None:
        every = ", ".join(name for names in ROLES.values() for name in names)
        raise record.error(f"{name} has the role {_shown(given)}; it must be one of {every}")
    return role


def _content(record: _Record, turn: dict[str, Any], name: str) -> str:
    if turn.get("tool_calls") or turn.get("function_call"):
        raise record.error(
            f"{name} has tool calls as an object; write them into the content as the model does, "
            "or remove the record"
        )
    content = _first(turn, "content", "value")
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {} for part in content]
        if any(part.get("type") != "text" for part in parts):
            raise record.error(f"{name} has content other than text; remove the record")
        content = "".join(
            record.require_text(f"a part of {name}", part.get("text"), empty=True) for part in parts
        )
    return record.require_text(name, content, empty=True)


def _first(turn: dict[str, Any], *keys: str) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


@dataclass(frozen=True)
class Format:
    """A form of records.

    Attributes:
        name: for messages and docs.
        parts: names in `NAMES` of what a record must have.
        read: makes an example of a record that has them.
        optional: what else is used. All other keys are ignored.
    """

    name: str
    parts: tuple[str, ...]
    read: Callable[[_Record], Example]
    optional: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The parts with their most common names, as in ``prompt/question/… + text``."""
        return " + ".join(_listed(NAMES[part], 3, "/") for part in self.parts)


FORMATS = (
    Format("chat", ("messages",), _chat, ("system",)),
    Format("multiple choice", ("prompt", "choices", "choice"), _multiple_choice, ("context",)),
    Format("Alpaca", ("instruction", "answer"), _alpaca, ("input", "system")),
    Format("prompt and answer", ("prompt", "answer"), _prompt_and_answer, ("context", "system")),
    Format("text", ("text",), _text),
)
"""All formats. The first whose parts a record has is the record's."""

_TEXT_ONLY = (Format("text", ("text",), _document),)


def _listed(names: Iterable[str], most: int = 100, separator: str = ", ") -> str:
    names = list(names)
    return separator.join(names[:most] + ["…"] * (len(names) > most))


def _shown(value: Any) -> str:
    """Return a JSON value, or what it is if it is long."""
    if isinstance(value, dict):
        return f"an object with the keys {_listed(value, 6) or '(none)'}"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"
