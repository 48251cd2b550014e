"""Text, JSON and folders of users: every encoding is read or named, litter is never data."""

import json

import pytest

from core.user_files import read_json, read_json_lines, read_json_object, read_text, visible, visible_files


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a fox", "a fox"),
        (b"\xef\xbb\xbfa fox", "a fox"),
        ("拥抱".encode(), "拥抱"),
        (b"", ""),
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        ("a\u2028b".encode(), "a\u2028b"),
    ],
)
def test_utf8_is_read_with_and_without_a_mark(tmp_path, data, text):
    (tmp_path / "x.txt").write_bytes(data)
    assert read_text(tmp_path / "x.txt") == text


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("a fox".encode("utf-16"), "got UTF-16"),
        ("a fox".encode("utf-32"), "got UTF-32"),
        ("a fox hugs a bear".encode("utf-16-le"), "UTF-16 or a binary file"),
        ("one\nune étreinte".encode("cp1252"), "byte 0xe9 in line 2"),
        ("拥抱".encode("gb18030"), "another encoding"),
    ],
)
def test_other_encodings_are_named_with_the_file(tmp_path, data, named):
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(ValueError, match=named) as report:
        read_text(tmp_path / "x.txt")
    assert "x.txt: expected text in UTF-8" in str(report.value) and "Save it again as UTF-8" in str(report.value)


def test_what_is_not_there_or_a_folder_is_named(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name}: cannot be read"):
            read_json(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1', "not JSON: .* in line 1, column 8"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON"),
        ("[1]", "expected a JSON object, got a list"),
    ],
)
def test_broken_json_is_named(tmp_path, text, expected):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=expected) as report:
        read_json_object(tmp_path / "x.json")
    assert "x.json" in str(report.value)


def test_lines_keep_their_numbers_and_only_line_ends_end_them(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [json.dumps("a\u2028b\u0085c", ensure_ascii=False), "", "{oops", "2"]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    values, faults = read_json_lines(path)
    assert values == {1: "a\u2028b\u0085c", 4: 2}
    assert len(faults) == 1 and f"{path}, line 3: not JSON" in faults[0]


def test_hidden_and_system_entries_are_skipped(tmp_path):
    for name in (
        ".git/x.png",
        "__MACOSX/._cat.png",
        ".ipynb_checkpoints/cat.png",
        "@eaDir/cat.png",
        "cat/1.PNG",
        "cat/._1.png",
        "dog.png",
        "notes.txt",
        ".DS_Store",
        "Thumbs.db",
        "folder.png/inside.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in visible(tmp_path)] == ["cat", "dog.png", "folder.png", "notes.txt"]
    assert [path.name for path in visible_files(tmp_path, {".png"})] == ["dog.png"]
    assert [path.name for path in visible_files(tmp_path, {".png"}, deep=True)] == ["1.PNG", "dog.png", "inside.png"]
