"""Read data files: find them, unpack them, and yield their records and documents with places."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Any

from mergekit_spectral.errors import MergeError, first_line

LINES, JSON, TEXT = ".jsonl", ".json", ".txt"
"""The suffixes of data files: a record per line, a list of records, one document."""

LIST_KEYS = ("data", "examples", "instances", "rows", "records")
"""Where an object in a ``.json`` may have its list of records."""

_SUFFIXES = (LINES, JSON, TEXT)
_GZIP = ".gz"
_START = 8192  # bytes; any binary format has a zero byte among them


@dataclass(frozen=True)
class Entry:
    """A record or a document of a data file.

    Attributes:
        content: any JSON value of a record, with floats as they are written; a str of a document.
        place: the file with the line or the record's number, for messages.
        is_document: whether it is a document.
    """

    content: Any
    place: str
    is_document: bool = False


def find_data_files(path: Path, text: bool = False) -> list[Path]:
    """List the data files of a data set: the file itself, or all that a folder contains.

    Args:
        path: a file or a folder. Hidden files and folders in it are left out.
        text: whether a file that is named directly may have any suffix.

    Raises:
        MergeError: there is no such file or folder, or no data file.
    """
    types = f"{', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}, each also with {_GZIP}"
    if not os.path.exists(path):
        raise MergeError(
            f"data {path} not found (working directory {Path.cwd()}); give a file or a folder."
        )
    if path.is_dir():
        inside = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        files = sorted(
            (file for file in inside if _suffix(file) in _SUFFIXES and not _is_hidden(file)),
            key=PurePath.as_posix,
        )
        if not files:
            raise MergeError(f"data {path} is a folder without data files; they end in {types}.")
        return [path / file for file in files]
    if not text and _suffix(path) not in _SUFFIXES:
        raise MergeError(
            f"data {path} must be a file that ends in {types}; convert it, for example with "
            "to_json of the library datasets, or give a text file with --text."
        )
    return [path]


def data_set_name(path: Path) -> str:
    """Return a file's name without the suffixes of data files, or a folder's name."""
    if path.is_dir():
        return path.resolve().name or str(path)
    unpacked = PurePath(path.stem if path.suffix.lower() == _GZIP else path.name)
    # "gsm8k-v1.1.jsonl" is "gsm8k-v1.1", and stays that if the suffix is missing.
    known = unpacked.suffix.lower() in (*_SUFFIXES, ".md")
    return unpacked.stem if known else unpacked.name


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield a file's records or, if it is not JSON, its text as one document.

    Files with a record per line are read line by line; blank lines have no effect.

    Raises:
        MergeError: the file cannot be read or unpacked, is empty, not UTF-8, or not JSON although
            its suffix claims it.
    """
    suffix = _suffix(path)
    if suffix == LINES or (suffix == JSON and _has_record_per_line(path)):
        entries = _read_lines(path)
    elif suffix == JSON:
        entries = _read_list(path)
    else:
        entries = _read_document(path)
    empty = True
    for entry in entries:
        empty = False
        yield entry
    if empty:
        raise MergeError(f"{path} is empty; give a file with at least one example.")


def _suffix(path: PurePath) -> str:
    return PurePath(path.name.lower().removesuffix(_GZIP)).suffix


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


@contextmanager
def _opened(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    try:
        with gzip.open(path) if path.suffix.lower() == _GZIP else path.open("rb") as file:
            if b"\0" in file.peek(_START)[:_START]:
                raise MergeError(
                    f"{path} is binary or in UTF-16 (it has zero bytes); data must be text in "
                    "UTF-8."
                )
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MergeError(
            f"{path} cannot be unpacked ({first_line(error)}); compress or download it again."
        ) from error
    except OSError as error:
        raise MergeError(
            f"{path} cannot be read ({error.strerror or first_line(error)}); change its "
            "permissions, or copy or download it again."
        ) from error


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, without their ends, and their numbers from 1."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            content = line if number > 1 else line.removeprefix(codecs.BOM_UTF8)
            text = _decode(content, path, number).rstrip()
            if text:
                yield number, text


def _read_all(path: Path) -> str:
    """Return a whole file's text, with the line ends of Unix, so that a copy of it is equal."""
    with _opened(path) as file:
        text = _decode(file.read().removeprefix(codecs.BOM_UTF8), path, 1)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(data: bytes, path: Path, line: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise MergeError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as "
            "UTF-8."
        ) from error


def _has_record_per_line(path: Path) -> bool:
    """Whether the first line of a file is an object, and not the last line."""
    lines = _numbered_lines(path)
    _, first = next(lines, (0, ""))
    try:
        return isinstance(json.loads(first), dict) and next(lines, None) is not None
    except (ValueError, RecursionError):
        return False  # the beginning of a list or of an object, or an error that is found later


def _read_lines(path: Path) -> Iterator[Entry]:
    for number, text in _numbered_lines(path):
        yield Entry(
            _parse(text, path, number, "each line must be one record in JSON"),
            f"{path}, line {number}",
        )


def _read_list(path: Path) -> Iterator[Entry]:
    text = _read_all(path)
    if not text.strip():
        return
    content = _parse(text, path, 1, "the file must be a list of records, or have one per line")
    for number, record in enumerate(_find_list(content), 1):
        yield Entry(record, f"{path}, record {number}")


def _read_document(path: Path) -> Iterator[Entry]:
    text = _read_all(path)
    if text.strip():
        yield Entry(text, str(path), is_document=True)


def _find_list(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        for key in LIST_KEYS:
            if isinstance(content.get(key), list):
                return [_without_index(record) for record in content[key]]
    return [content]  # a single record


def _without_index(record: Any) -> Any:
    """Return the record in an entry of ``rows`` as the Hub's viewer serves them, or `record`."""
    is_row = isinstance(record, dict) and "row_idx" in record
    return record.get("row", record) if is_row else record


def _parse(text: str, path: Path, line: int, right: str) -> Any:
    """Parse JSON.

    Args:
        text: one JSON value.
        path: of the file, for the message.
        line: number of the text's first line.
        right: what would be right, for the message.
    """
    try:
        return json.loads(text, parse_float=str)  # an answer 1.50 must not become 1.5
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise MergeError(f"{path}, line {line}: not JSON ({reason}); {right}.") from error
    except (ValueError, RecursionError) as error:
        raise MergeError(
            f"{path}, line {line}: not JSON ({first_line(error)}); {right}."
        ) from error
