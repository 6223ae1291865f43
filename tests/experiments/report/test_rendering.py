"""What templates are given to write with."""

import base64
import hashlib

import pytest

from experiments.report.rendering import SCRIPT, STYLE, _environment, policy


def digest(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_nothing_is_allowed_but_pictures_our_style_and_our_script():
    allowed = dict(part.split(" ", 1) for part in policy({"style-src": "a", "script-src": "b"}).split("; "))
    assert allowed == {
        "default-src": "'none'",
        "img-src": "'self' data: file:",
        "style-src": f"'sha256-{digest('a')}'",
        "script-src": f"'sha256-{digest('b')}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_style_and_script_cannot_end_their_elements():
    assert "</" not in STYLE.read_text() + SCRIPT.read_text()


def rendered(template, **values):
    return _environment().from_string(template).render(**values)


def test_all_that_is_written_is_escaped_and_can_be_written():
    text = "<b>\x00'\"&</b>"
    assert rendered("{{ text }}{{ [text] | join }}{{ '%s' | format(text) }}", text=text).count("<") == 0
    assert rendered("{{ text }}", text=text) == "&lt;b&gt;\ufffd&#39;&#34;&amp;&lt;/b&gt;"


def test_what_is_left_out_of_a_page_is_an_error():
    with pytest.raises(Exception, match="'nothing' is undefined"):
        rendered("{{ nothing }}")


@pytest.mark.parametrize(("share", "text"), [(0.126, "13%"), (-0.001, "0%"), (1, "100%"), (float("nan"), "–")])
def test_shares_are_whole_percents(share, text):
    assert rendered("{{ share | percent }}", share=share) == text


@pytest.mark.parametrize(("value", "text"), [(1234.567, "1,234.57"), (-0.001, "0.00"), (float("nan"), "–")])
def test_numbers_have_two_digits_behind_the_point(value, text):
    assert rendered("{{ value | number }}", value=value) == text
