"""JSON that others wrote is right when it is used: types, ranges, depth, numbers; what is not gets one paragraph."""

import json
from contextlib import suppress
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from spikebridge.pipeline.base.display import printable
from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.foreign_json import Count, Range, Sha256, parse_json, read_json


class Inner(TypedDict):
    name: str
    counts: list[Count]


class Half(TypedDict, total=False):
    maybe: int


class Outer(Half):
    inner: Inner
    share: float | None
    mode: Literal["best", 1]
    either: int | str
    flag: bool
    free: Any
    table: dict[str, Inner]
    percent: NotRequired[Annotated[float, Range(0, 100)]]
    id: NotRequired[Sha256]


GOOD = {
    "inner": {"name": "a", "counts": [0, 1]},
    "share": 0.5,
    "mode": "best",
    "either": "x",
    "flag": True,
    "free": {"anything": [1, None]},
    "table": {"k": {"name": "b", "counts": []}},
}


def parse(text, form=Outer, **more):
    return parse_json(text, form, source="run/file.json", error=ShardSetError, remedy="Make it again.", **more)


def test_what_fits_comes_back_as_it_is():
    for good in (
        GOOD,
        {**GOOD, "share": None, "mode": 1, "either": 3, "percent": 100, "maybe": 3, "id": "0" * 64},
        {**GOOD, "of a later version": 1},
        {**GOOD, "share": 1},
    ):
        assert parse(json.dumps(good)) == good
    assert parse("[3]", list[int]) == [3]
    assert parse("null", Any) is None
    assert parse('[["a", 1]]', list[tuple[str, Count]]) == [["a", 1]]
    for text in ('[["a"]]', '[["a", 1, 2]]', '[["a", -1]]', '[{"a": 1}]'):
        with pytest.raises(ShardSetError, match=r"\[0\].* expected (a list of 2|from 0)"):
            parse(text, list[tuple[str, Count]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inner": []}, "inner is a list of 0; expected an object"),
        ({"inner": {"counts": []}}, r"inner\.name is missing; expected a text"),
        ({"inner": {"name": 3, "counts": []}}, r"inner\.name is the number 3; expected a text"),
        ({"inner": {"name": "", "counts": [1, -1]}}, r"inner\.counts\[1\] is the number -1; expected from 0 to 9,"),
        ({"inner": {"name": "", "counts": [True]}}, r"inner\.counts\[0\] is true; expected a whole number"),
        ({"inner": {"name": "", "counts": [1.0]}}, r"inner\.counts\[0\] is the number 1.0; expected a whole number"),
        ({"inner": {"name": "", "counts": [10**4000]}}, r"inner\.counts\[0\] is the number 1000.*; expected from"),
        ({"share": "0.5"}, 'share is the text "0.5"; expected a number'),
        ({"share": False}, "share is false; expected a number"),
        ({"mode": "last"}, 'mode is the text "last"; expected one of "best", 1'),
        ({"mode": True}, 'mode is true; expected one of "best", 1'),
        ({"either": []}, "either is a list of 0; expected a whole number or a text"),
        ({"flag": 1}, "flag is the number 1; expected true or false"),
        ({"table": {"a\n\x1b[31m": 3}}, r"table\.a\\n\\x1b\[31m is the number 3; expected an object"),
        ({"percent": 101}, "percent is the number 101; expected from 0 to 100"),
        ({"percent": None}, "percent is null; expected a number"),
        ({"id": "0" * 63 + "\n"}, r'id is the text "0{63}\\n"; expected a SHA-256'),
        ({"maybe": "3"}, 'maybe is the text "3"'),
        ({"flag": "\ud800"}, r'flag is the text "\\ud800"; expected true or false'),
        ({"free": "x" * 10**6, "flag": "y" * 10**6}, r'flag is the text "y{52}\.\.\.y{25}"; expected true or false'),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(changes, message):
    with pytest.raises(ShardSetError, match=rf"^run/file\.json: {message}.*\. Make it again\.$"):
        parse(json.dumps({**GOOD, **changes}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\0",
        b"\xff\xfe\x00",
        '{"a": NaN}',
        '{"a": [Infinity]}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        '{"a":' * 40 + "1" + "}" * 40,
        "[" * 33 + "]" * 33,
        '{"a": ' + "9" * 10**5 + "}",
    ],
)
def test_what_is_no_json_or_beyond_all_bounds(text):
    with pytest.raises(ShardSetError, match=r"^run/file\.json: .{10,300}\. Make it again\.$"):
        parse(text, Any)


def test_a_long_file_is_not_read(tmp_path):
    path = tmp_path / "long.json"
    path.write_text("1" * 101)
    with pytest.raises(ShardSetError, match=r"long\.json: longer than 100 bytes"):
        read_json(path, Any, error=ShardSetError, remedy="Make it again.", most_bytes=100)
    with pytest.raises(ShardSetError, match=r"none\.json: cannot be read \(No such file"):
        read_json(tmp_path / "none.json", Any, error=ShardSetError, remedy="Make it again.")


ODD = [
    None,
    True,
    0,
    -1,
    10**400,
    1e300,
    "",
    "\x1b[2J\ud800",
    "x" * 10**5,
    [],
    [[[]]],
    {},
    {"": {"\x1b": []}},
    [None, {}],
]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_any_json_is_taken_or_refused_in_a_line(name):
    for value in ODD:
        refusals = []
        with suppress(ShardSetError):
            parse_json(
                json.dumps({**GOOD, name: value}),
                Outer,
                source="f",
                error=lambda message, said=refusals: said.append(message) or ShardSetError(message),
                remedy="Do.",
            )
        assert all(printable(message) == message and len(message) < 300 for message in refusals)
