"""What is learned from a refused start of a session, and how texts are made to fit."""

import psycopg2
import pytest

from app.database.sessions import OWN_SETTINGS, Sessions
from app.database.texts import as_json, storable

AT = 'connection to server at "timezone.example.org" (10.0.0.1), port 6432 failed: '


def in_packet(sessions: Sessions) -> set[str]:
    return {part.partition("=")[0] for part in sessions.options["options"].split("-c ")[1:]}


@pytest.mark.parametrize(
    ("text", "left_out", "in_each"),
    [
        ("FATAL:  unsupported startup parameter: options", set(OWN_SETTINGS), True),
        ("FATAL:  unsupported startup parameter in options: row_security", {"row_security"}, True),
        (
            "FATAL:  Feature not supported: RDS Proxy currently doesn't support command-line "
            "options.",
            set(OWN_SETTINGS),
            True,
        ),
        (
            'FATAL:  unrecognized configuration parameter "idle_session_timeout"',
            {"idle_session_timeout"},
            False,
        ),
        (
            "FATAL:  unbekannter Konfigurationsparameter »idle_session_timeout«",
            {"idle_session_timeout"},
            False,
        ),
        ("Connection refused", set(), False),
        ('FATAL:  password authentication failed for user "benana"', set(), False),
    ],
)
def test_what_was_refused_is_left_out_of_the_startup_packet(
    text: str, left_out: set[str], in_each: bool
) -> None:
    sessions = Sessions({"dbname": "x"}, OWN_SETTINGS)
    assert sessions.learn(psycopg2.OperationalError(AT + text)) is bool(left_out)
    assert in_packet(sessions) == set(OWN_SETTINGS) - left_out
    assert sessions.pooled is in_each
    for name in left_out - {"idle_session_timeout"}:
        assert f"SET LOCAL {name} = " in sessions.beginning
    assert "idle_session_timeout" not in sessions.beginning


def test_our_options_follow_those_of_the_url() -> None:
    sessions = Sessions({"options": "-c search_path=a -c timezone=Asia/Tokyo"}, {"timezone": "UTC"})
    assert sessions.options["options"] == (
        "-c search_path=a -c timezone=Asia/Tokyo -c timezone=UTC"
    )


def test_a_text_is_written_with_a_backslash_where_an_encoding_lacks_it() -> None:
    assert storable({"é": ["€", 1]}, "iso8859_1") == {"é": ["\\u20ac", 1]}
    assert storable("\0\udcff€") == "�\\udcff€"
    assert as_json({"a": "€"}) == '{"a": "€"}'
    assert as_json(None) is None
