"""No retired word of docs/decisions/0004-words.md is in a name or in what a person reads.

`python -m tests.test_words [FOLDER …]` lists what is found, by file.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PAGE = _ROOT / "docs" / "decisions" / "0004-words.md"
_FOLDERS = (".ci", "api", "bench", "chaos", "clients", "docs", "ops", "tests", "uplift", "worker")
_KINDS = {".py", ".lua", ".md", ".yml", ".yaml", ".json", ".toml", ".html"}
_NAMES = {".env.example", "Dockerfile", "Makefile", "Procfile", "run"}
_NOT_READ = {
    _PAGE,
    _ROOT / "CHANGELOG.md",  # history
    _ROOT / "bench" / "against" / "layouts.py",  # it starts older commits, by their names
    Path(__file__),
}
_WORD = re.compile(r"\w+")
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_+")


@dataclass(frozen=True)
class Finding:
    """A retired word, and where it is."""

    file: str
    line: int
    word: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word}"


@dataclass(frozen=True)
class Retired:
    """The lists of the page."""

    phrases: re.Pattern[str]
    phrases_that_stay: re.Pattern[str]
    identifiers: frozenset[str]
    identifier_endings: tuple[str, ...]
    values: frozenset[str]
    files: frozenset[str]

    def in_prose(self, text: str, *, line: int = 1) -> Iterator[tuple[int, str]]:
        """The phrases in a text, each with its line."""
        blanked = self.phrases_that_stay.sub(lambda found: re.sub(r"\S", "·", found[0]), text)
        for found in self.phrases.finditer(blanked):
            yield (
                line + blanked.count("\n", 0, found.start()),
                " ".join(_WORD.findall(found[0])).lower(),
            )

    @cache  # noqa: B019  there is one of these, and the same names come again and again
    def in_name(self, name: str) -> bool:
        """Whether a name is retired, or a part of it."""
        return self.is_identifier(name) or any(self.in_prose(_HUMP.sub(" ", name).strip()))

    def is_identifier(self, name: str) -> bool:
        """Whether this whole name is retired."""
        bare = name.lstrip("_")
        if bare in self.identifiers:
            return True
        is_test = bare.startswith("test_")  # its name is a sentence
        return not is_test and any(
            fnmatchcase(bare.lower(), end) for end in self.identifier_endings
        )

    def in_code(self, text: str, *, line: int = 1) -> Iterator[tuple[int, str]]:
        """Words of a text that can be nothing but names, and are retired."""
        for found in _WORD.finditer(text):
            if _HUMP.search(found[0].strip("_")) and self.in_name(found[0]):
                yield line + text.count("\n", 0, found.start()), found[0]

    def is_value(self, text: str) -> bool:
        """Whether a text is nothing but a retired value or name."""
        return text in self.values or self.is_identifier(text)


def _phrases(listed: str) -> re.Pattern[str]:
    # Between two words of a phrase a line may end, and a comment's next line begin.
    each = [
        r"[\s#>*]+".join(words.split()) for words in re.split(r"[,\n]+", listed) if words.strip()
    ]
    longest_first = "|".join(sorted(each, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{longest_first})(?!\w)", re.IGNORECASE)


@cache
def retired() -> Retired:
    """The lists as the page has them."""
    page = _PAGE.read_text(encoding="utf-8")
    lists = dict(re.findall(r"^```([a-z ]+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    identifiers = {*lists["identifiers"].split(), *lists["settings and metrics"].split()}
    endings = {each for each in identifiers if "*" in each}
    return Retired(
        phrases=_phrases(lists["phrases"]),
        phrases_that_stay=_phrases(lists["phrases that stay"]),
        identifiers=frozenset(identifiers - endings),
        identifier_endings=tuple(endings),
        values=frozenset(lists["values"].split()),
        files=frozenset(lists["files"].split()),
    )


def files() -> list[Path]:
    """All that we write by hand."""
    found = [path for folder in _FOLDERS for path in (_ROOT / folder).rglob("*")]
    found += _ROOT.iterdir()
    return sorted(
        path
        for path in found
        if path.is_file()
        and (path.suffix in _KINDS or path.name in _NAMES)
        and not path.name.endswith(".schema.json")
        and path not in _NOT_READ
        and "node_modules" not in path.parts
    )


def findings(path: Path) -> list[Finding]:
    """What is in one file."""
    name = str(path.relative_to(_ROOT))
    found = (
        {(1, f"the file's name: {path.name}")}
        if path.stem.removeprefix("test_") in (retired().files)
        else set()
    )
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".py":
            found.update(_in_python(text, is_test=name.startswith("tests/")))
        case ".json":
            found.update(_in_text(text.replace('"', "`")))  # each string stands alone
        case _:
            found.update(_in_text(text))
    return [Finding(name, line, word) for line, word in sorted(found)]


def _in_text(text: str) -> Iterator[tuple[int, str]]:
    words = retired()
    yield from words.in_prose(text)
    yield from words.in_code(text)
    for code in _CODE.finditer(text):
        for found in _WORD.finditer(code[0]):
            if words.is_value(found[0]):
                yield 1 + text.count("\n", 0, code.start() + found.start()), found[0]


def _in_python(text: str, *, is_test: bool) -> Iterator[tuple[int, str]]:
    words = retired()
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):  # what is around a node comes before it
        match node:
            case ast.Constant(value=str(string)):
                is_read = id(node) in docstrings or not is_test
                yield from _in_string(string, line=node.lineno, is_read=is_read)
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if node.body and isinstance(node.body[0], ast.Expr):
                    docstrings.add(id(node.body[0].value))
        for name in _names(node):
            if words.in_name(name):
                yield getattr(node, "lineno", 1), name
    if any(words.in_prose(text)):
        for line, comment in _comments(text):
            yield from words.in_prose(comment, line=line)


def _in_string(string: str, *, line: int, is_read: bool) -> Iterator[tuple[int, str]]:
    words = retired()
    if words.is_value(string):
        yield line, string
    yield from words.in_code(string, line=line)
    if is_read:
        yield from words.in_prose(string, line=line)


_NAMING_FIELDS = {
    ast.Name: ("id",),
    ast.Attribute: ("attr",),
    ast.ClassDef: ("name",),
    ast.FunctionDef: ("name",),
    ast.AsyncFunctionDef: ("name",),
    ast.arg: ("arg",),
    ast.keyword: ("arg",),
    ast.alias: ("name", "asname"),
    ast.ImportFrom: ("module",),
    ast.ExceptHandler: ("name",),
    ast.Global: ("names",),
    ast.Nonlocal: ("names",),
    ast.MatchAs: ("name",),
    ast.MatchStar: ("name",),
    ast.MatchMapping: ("rest",),
    ast.MatchClass: ("kwd_attrs",),
}


def _names(node: ast.AST) -> Iterator[str]:
    """Every name that the node itself gives or uses."""
    for field in _NAMING_FIELDS.get(type(node), ()):
        match getattr(node, field):
            case str(name):
                yield from name.split(".")
            case list(names):
                yield from names


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """Comments, those of lines that follow each other as one."""
    found = [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    numbered = enumerate(found)
    for _, lines in groupby(numbered, key=lambda each: each[1][0] - each[0]):
        block = [each for _, each in lines]
        yield block[0][0], "\n".join(string for _, string in block)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def pay(bell): ...", {"bell"}),
        ("class Turn: ...", {"Turn"}),
        ("turn = 1; key_ring = KeyRing()", set()),
        ("_ROWS_MOST = 1; max_rows = 2; almost = 3", {"_ROWS_MOST"}),
        ("row['rung_until'] = again", {"rung_until"}),
        ("state = 'recovered'", {"recovered"}),
        ("say('it recovered')", set()),
        ("say(f'{n} uploads begin anew')", {"anew"}),
        ("sql = 'SELECT last_answer FROM uploads'", {"last_answer"}),
        ("# nothing is known, for\n# want of Redis", {"for want of"}),
        ('def a():\n    """Begins\n    anew."""', {"anew"}),
        ("def test_a_worker_that_is_rung_starts(): ...", {"test_a_worker_that_is_rung_starts"}),
        ("# the key ring; the string; a spring", set()),
        ("setting('UPLIFT_PACE_MOST')", {"UPLIFT_PACE_MOST"}),
    ],
)
def test_the_finder_is_sharp(text: str, found: set[str]) -> None:
    assert {word for _, word in _in_python(text, is_test=False)} == found


def test_the_finder_says_the_line() -> None:
    assert list(_in_text("one\ntwo\nat the\nmost `paced`")) == [
        (3, "at the most"),
        (4, "paced"),
        (4, "paced"),
    ]


def test_no_retired_word_is_in_a_name_or_in_what_a_person_reads() -> None:
    found = [each for path in files() for each in findings(path)]
    assert not found, f"{len(found)} of them; python -m tests.test_words lists them all"


def main(folders: list[str]) -> None:
    """Print what is found in these folders or files, and then how much is in which file."""
    counts: Counter[str] = Counter()
    for path in files():
        name = str(path.relative_to(_ROOT))
        if not folders or name.startswith(tuple(folders)):
            for each in findings(path):
                print(each)
                counts[name] += 1
    print(f"\n{counts.total()} in {len(counts)} files")
    for name, count in counts.most_common():
        print(f"{count:5} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
