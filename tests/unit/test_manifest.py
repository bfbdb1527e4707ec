"""plugin.yaml: no text of it can hurt, and none is read otherwise than meant."""

import time

import pytest

from app.errors import DiscoveryError
from app.publishing.manifest import parse_manifest
from app.publishing.plain_yaml import MAX_BYTES
from app.records import Manifest


def parse(raw: str | bytes) -> Manifest:
    raw = raw if isinstance(raw, bytes) else raw.encode()
    return parse_manifest("sample", raw, "main:new_plugin")


def refusal(raw: str | bytes) -> DiscoveryError:
    with pytest.raises(DiscoveryError) as caught:
        parse(raw)
    error = caught.value
    assert error.plugin == "sample"
    assert error.phase == "discover"
    assert error.file == "plugin.yaml"
    return error


@pytest.mark.parametrize(
    "raw", ["", "\n\n", "# nothing\n", " \n" * 30_000, "{}", "---\n", "---\n...\n"]
)
def test_an_empty_manifest_gives_the_defaults(raw):
    assert parse(raw) == Manifest(entry="main:new_plugin")


def test_every_key_is_read():
    found = parse(
        "name: sample\ndescription: Does it\nversion: 1.2.3\nauthor: Ann\n"
        "entry: pkg.mod:make\nenabled: false\norigins: same\nhosts: [a.example]\nreload: fresh\n"
        "config:\n  a: [1, 2.5, x, true, null]\n  b: {c: d}\n"
    )
    assert found == Manifest(
        entry="pkg.mod:make",
        name="sample",
        description="Does it",
        version="1.2.3",
        author="Ann",
        enabled=False,
        origins=(),
        hosts=("a.example",),
        reload="fresh",
        config={"a": [1, 2.5, "x", True, None], "b": {"c": "d"}},
    )


@pytest.mark.parametrize(
    "written", ["1.10", "1", "0x10", "010", "1e3", "true", "no", "1:30", "2020-01-01", "=", ".inf"]
)
def test_a_version_stays_the_text_that_was_written(written):
    assert parse(f"version: {written}").version == written


def test_a_date_in_the_config_stays_text():
    config = parse("config:\n  day: 2020-01-02\n  at: 2020-01-02T03:04:05Z\n").config
    assert config == {"day": "2020-01-02", "at": "2020-01-02T03:04:05Z"}


@pytest.mark.parametrize("key", ["name", "description", "version", "author", "entry", "enabled"])
@pytest.mark.parametrize("value", ["", "~", "null"])
def test_a_key_that_is_left_empty_counts_as_left_out(key, value):
    assert parse(f"{key}: {value}\n") == parse("")


@pytest.mark.parametrize("word", ["true", "yes", "on", "True", "ON"])
def test_enabled_is_true(word):
    assert parse(f"enabled: {word}").enabled is True


@pytest.mark.parametrize("word", ["false", "no", "off", "False"])
def test_enabled_is_false(word):
    assert parse(f"enabled: {word}").enabled is False


@pytest.mark.parametrize("value", ["1", "0", "'yes'", "maybe", "[true]", "{a: true}", "1.0"])
def test_enabled_that_is_no_boolean_is_refused(value):
    error = refusal(f"version: 1\nenabled: {value}\n")
    assert "enabled" in error.message
    assert error.line == 2


@pytest.mark.parametrize(
    ("written", "origins"),
    [
        ("same", ()),
        ("'same'", ()),
        ("[]", ()),
        ("", None),
        ("[https://app.example.com]", ("https://app.example.com",)),
        ("[HTTPS://App.Example.com:443/]", ("https://app.example.com",)),
        ("[http://x:8080, capacitor://localhost]", ("http://x:8080", "capacitor://localhost")),
        ("\n- http://[::1]:9999\n- https://10.0.0.1", ("http://[::1]:9999", "https://10.0.0.1")),
    ],
)
def test_origins_are_same_or_a_list(written, origins):
    assert parse(f"origins: {written}").origins == origins


@pytest.mark.parametrize(
    "written",
    [
        *("https://app.example.com", "any", "'*'", "true", "7", "{a: b}", "Same", "[same]"),
        *("['*']", "['null']", "[null]", "[app.example.com]", "['https://*.example.com']"),
        *("[https://x/path]", "[https://x:99999]", "[[https://x]]", "[{a: b}]", "['https://ü']"),
    ],
)
def test_origins_that_are_none_are_refused_with_what_is_expected(written):
    error = refusal(f"version: 1\norigins: {written}")
    assert "origins is" in error.message
    assert "https://app.example.com" in error.message
    assert error.line == 2


@pytest.mark.parametrize(
    ("written", "hosts"),
    [
        ("[]", ()),
        ("", None),
        ("[App.Example.com, b.example.]", ("app.example.com", "b.example")),
        ("[10.0.0.1, '[::1]', localhost]", ("10.0.0.1", "::1", "localhost")),
    ],
)
def test_hosts_are_a_list_of_names(written, hosts):
    assert parse(f"hosts: {written}").hosts == hosts


@pytest.mark.parametrize(
    "written",
    [
        *(
            "app.example.com",
            "same",
            "{a: b}",
            "[app.example.com:8080]",
            "[https://app.example.com]",
        ),
        *("['*']", "['*.example.com']", "['']", "[a/b]", "[[a]]", "['bücher.example']", "[null]"),
    ],
)
def test_hosts_that_are_none_are_refused_with_what_is_expected(written):
    error = refusal(f"version: 1\nhosts: {written}")
    assert "hosts is" in error.message
    assert "app.example.com" in error.message
    assert error.line == 2


def test_all_that_is_wrong_in_both_lists_is_named_at_once():
    error = refusal("origins: [https://fine.example, one, two]\nhosts: [three:1, fine, '*']\n")
    for word in ("'one'", "'two'", "'three:1'", "'*'"):
        assert word in error.message
    assert "fine" not in error.message


def test_a_list_of_names_has_a_limit():
    assert len(parse(f"hosts: [{', '.join(f'h{n}' for n in range(200))}]").hosts) == 200  # type: ignore[arg-type]
    error = refusal(f"hosts: [{', '.join(f'h{n}' for n in range(201))}]")
    assert "a list of 201, expected 200 at most" in error.message


def test_all_unknown_keys_are_named_at_once_with_the_line_of_the_first():
    error = refusal("version: 1\nverison: 2\nauthor: x\nconfg: {}\n1: x\n")
    for key in ("verison", "confg", "'1'"):
        assert key in error.message
    assert error.line == 2


def test_faults_of_several_kinds_are_named_at_once():
    error = refusal(
        "bogus: 1\nversion: [1]\nenabled: 3\nconfig: text\nentry: nothing\nname: other\n"
    )
    for word in ("bogus", "version", "enabled", "config", "entry", "name is 'other'"):
        assert word in error.message, word


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "config:\n  a: 1\n  a: 2\n",
        "config: {x: [{b: 1, b: 2}]}\n",
        "version: 1\nversion: 1\n",
        'config: {a: 1, "a": 2}\n',
    ],
)
def test_a_duplicate_key_is_refused_at_any_depth(text):
    assert "twice" in refusal(text).message


def test_a_duplicate_keys_line_is_that_of_the_second():
    assert refusal("version: 1\nauthor: x\nversion: 2\n").line == 3


@pytest.mark.parametrize(
    "text",
    [
        "config: &a {x: 1}\n",
        "config: {a: &x 1, b: *x}\n",
        "version: &v 1\n",
        "&k version: 1\n",
        "&root {version: 1}\n",
    ],
)
def test_an_anchor_or_alias_is_refused(text):
    assert "anchor or alias" in refusal(text).message


def test_an_alias_bomb_is_refused_at_once():
    lines = ["config:", "  l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30)]
    began = time.perf_counter()
    assert "anchor or alias" in refusal("\n".join(lines)).message
    assert time.perf_counter() - began < 1


def test_an_alias_that_holds_itself_is_refused():
    assert "anchor or alias" in refusal("config: &a {b: *a}\n").message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("depth", [40, 5_000])
def test_deep_nesting_is_refused_and_does_not_exhaust_the_stack(opening, depth):
    error = refusal("config: " + opening * depth if opening in "[{a: " else opening * depth)
    assert "nested" in error.message or "not YAML" in error.message


def test_nesting_that_a_person_writes_is_fine():
    found = parse("config: " + "{a: " * 20 + "1" + "}" * 20)
    for _ in range(19):
        found = found.config if isinstance(found, Manifest) else found["a"]  # type: ignore[assignment]
    assert found is not None


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xfe",
        b"version: \xe9\n",
        bytes(range(256)),
        b"\x80",
        "version: 1\n".encode("utf-16"),
        "a: b".encode("utf-32"),
    ],
)
def test_what_is_not_utf_8_text_is_refused(raw):
    message = refusal(raw).message
    assert "UTF-8" in message or "not YAML" in message


@pytest.mark.parametrize("raw", [b"version: a\x00b\n", b"version: \x07\n", b"\x1b[0m"])
def test_control_characters_are_refused(raw):
    refusal(raw)


def test_a_byte_order_mark_is_skipped():
    assert parse(b"\xef\xbb\xbfversion: 1\n").version == "1"


def test_windows_line_ends_are_fine():
    assert parse(b"version: 1\r\nauthor: x\r\n") == parse(b"version: 1\nauthor: x\n")


def test_a_manifest_of_the_largest_size_is_read_and_one_byte_more_is_refused():
    raw = b"version: 1\n#"
    assert parse(raw + b"x" * (MAX_BYTES - len(raw))).version == "1"
    assert "65,536" in refusal(raw + b"x" * (MAX_BYTES - len(raw) + 1)).message


@pytest.mark.parametrize(
    "text",
    [
        "text",
        "[1, 2]",
        "- a\n",
        "5",
        "!!set {a}",
        "!!omap [a: 1]",
        "!!python/object:os.system {}",
        "|\n  x\n",
    ],
)
def test_a_manifest_that_holds_no_mapping_is_refused(text):
    assert "mapping" in refusal(text).message


@pytest.mark.parametrize("text", ["a: 1\n---\nb: 2\n", "version: 1\n---\n", "---\n---\n"])
def test_several_documents_are_refused(text):
    refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "version: 'x\n",
        "a: [1\n",
        "\tversion: 1\n",
        "a: b: c\n",
        "@x",
        "%YAML 9.9\n---\na: 1\n",
        'version: "\\q"\n',
        "{",
        "a:\n - b\n c",
    ],
)
def test_broken_yaml_is_refused_with_a_line(text):
    error = refusal(text)
    assert error.line is not None
    assert error.line >= 1


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['echo hurt']",
        "!!python/name:os.system ''",
        "!!python/object/new:os.system [x]",
        "!!python/module:os ''",
        "!unknown x",
        "!!binary aGk=",
        "!!set {a, b}",
        "!!timestamp 2020-01-01",
        ".nan",
        ".inf",
        "-.inf",
        "[1, [.inf]]",
        "!!int x",
        "!!float x",
        "!!timestamp 2020-99-99",
        "9" * 5000,
    ],
)
def test_a_config_value_that_json_does_not_have_is_refused(value):
    assert "config" in refusal(f"version: 1\nconfig: {{a: {value}}}\n").message


@pytest.mark.parametrize("value", ["!!bool maybe", "!!int ''", "!!float ''", "!!timestamp x"])
def test_a_tag_that_its_value_does_not_fit_is_refused(value):
    assert "config" in refusal(f"config: {{a: {value}}}\n").message


@pytest.mark.parametrize("value", ["!!bool maybe", "!!bool ''"])
def test_an_enabled_whose_tag_does_not_fit_is_refused(value):
    assert "enabled" in refusal(f"enabled: {value}\n").message


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system ['echo hurt']", "[x]", "{a: b}", "''"]
)
def test_a_text_key_takes_text_alone(value):
    assert "version" in refusal(f"version: {value}\n").message


@pytest.mark.parametrize("key", ["version", "author", "description", "name", "entry"])
def test_a_nul_in_a_text_is_refused(key):
    assert key in refusal(f'{key}: "a\\0b"\n').message


@pytest.mark.parametrize("key", ["version", "author", "description"])
def test_a_text_that_utf_8_cannot_hold_is_refused(key):
    # YAML's escapes can write a lone surrogate; the database could not store it.
    assert key in refusal(f'{key}: "a\\ud800b"\n').message


@pytest.mark.parametrize(("key", "limit"), [("version", 100), ("author", 255)])
def test_a_text_has_a_limit(key, limit):
    assert getattr(parse(f"{key}: {'x' * limit}"), key) == "x" * limit
    assert str(limit) in refusal(f"{key}: {'x' * (limit + 1)}").message


@pytest.mark.parametrize(
    "entry",
    [
        "main",
        "main:",
        ":new",
        "main.py:new",
        "a b:c",
        "main:new()",
        "../x:y",
        "a..b:c",
        "main:new.x",
        "1a:b",
        "é:f",
        "a/b:c",
        "main:new\\n",
    ],
)
def test_an_entry_that_is_no_module_and_function_is_refused(entry):
    if entry == "main.py:new":
        assert parse(f"entry: '{entry}'").entry == entry  # a package `main` with a module `py`
        return
    assert "module:function" in refusal(f'entry: "{entry}"\n').message


def test_another_name_than_the_folders_is_refused():
    message = refusal("name: other").message
    assert "'other'" in message
    assert "'sample'" in message


def test_keys_of_the_config_that_are_no_text_are_never_mixed_up():
    # 1 == True in Python: one of the two values would be lost in silence.
    try:
        config = parse("config: {1: a, true: b}\n").config
    except DiscoveryError as error:
        assert "key" in error.message  # noqa: PT017
    else:
        assert sorted(config.values()) == ["a", "b"]


@pytest.mark.parametrize("key", ["[a]", "{a: b}", "? [x]\n "])
def test_a_collection_as_a_key_is_refused(key):
    refusal(f"{{{key}: 1}}" if "?" not in key else f"{key}: 1")


def test_a_merge_key_at_the_top_is_an_unknown_key():
    assert "<<" in refusal("<<: {version: 1}\n").message


def test_a_merge_key_in_the_config_overrides_nothing():
    try:
        config = parse("config: {<<: {a: 1, b: 2}, a: 3}\n").config
    except DiscoveryError:
        return
    assert config == {"a": 3, "b": 2}


@pytest.mark.parametrize("value", ["text", "[1]", "5", "true"])
def test_a_config_that_is_no_mapping_is_refused(value):
    assert "expected a mapping" in refusal(f"config: {value}").message


def test_a_config_with_a_single_equals_sign_is_text():
    # PyYAML resolves a bare `=` to a tag that it then cannot construct.
    assert parse("config: {a: =}\n").config == {"a": "="}


@pytest.mark.parametrize("written", ["12:30", "22:22", "1:30.5"])
def test_a_time_of_day_in_the_config_is_no_number_of_base_60(written):
    assert parse(f"config: {{at: {written}}}\n").config == {"at": written}


def test_a_large_integer_of_the_config_is_kept():
    assert parse("config: {a: 123456789012345678901234567890}").config["a"] == int(
        "123456789012345678901234567890"
    )


def test_unicode_is_kept():
    assert parse("author: Zoë ☃ 🐍\n").author == "Zoë ☃ 🐍"


@pytest.mark.parametrize(
    "raw",
    [
        b"config: {" + b"a," * 30_000,
        b"[" * 60_000,
        b"- " * 30_000,
        b"a: " * 20_000,
        b"'" * 60_001,
        b"? " * 30_000,
        b"&a " * 20_000,
        b"!!x " * 15_000,
        b"*a " * 20_000,
        b"{}," * 20_000,
        b"a\n" * 30_000,
        b"\xf0\x9f\x90\x8d" * 16_000,
    ],
)
def test_no_manifest_within_the_limit_takes_long_or_escapes_the_error(raw):
    began = time.perf_counter()
    refusal(raw)
    assert time.perf_counter() - began < 5


def test_a_way_to_reload_that_there_is_not_is_refused():
    for wrong in ("never", "true", "[hot]"):
        error = refusal(f"version: 1.0.0\nreload: {wrong}\n")
        assert "expected auto (Benana tries it), hot (" in error.message
        assert error.line == 2
