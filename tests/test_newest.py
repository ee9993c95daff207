"""`make test-newest`: which releases are newer than those that were tested."""

from newest import list_changes, read_pins


def test_pins_are_read_by_the_names_that_pip_compares():
    pins = read_pins("torch==2.13.0\nIPython_Lexers==1.0\n# note\n-e .\n")
    assert pins == {"torch": "2.13.0", "ipython-lexers": "1.0"}


def test_only_what_differs_is_told():
    pinned = {"torch": "2.13.0", "trl": "1.16.0", "gone": "1"}
    assert list_changes(pinned, {"torch": "2.14.0", "trl": "1.16.0"}) == ["torch 2.13.0 -> 2.14.0"]


def test_nothing_newer_is_said_too():
    assert list_changes({"torch": "1"}, {"torch": "1"}) == [
        "Nothing is newer than requirements.txt"
    ]
