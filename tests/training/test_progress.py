import io

import pytest

from vocalface.training import progress
from vocalface.training.progress import NullProgress, Pace, Progress, Reporter


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_time_left_follows_the_recent_pace():
    pace = Pace(1000, window=10)
    for second in range(101):  # one step a second, slow to begin with
        pace.add(second, second)
    assert pace.rate == pytest.approx(1) and pace.left == pytest.approx(900)
    for second in range(1, 31):  # then ten
        pace.add(100 + second, 100 + 10 * second)
    assert pace.rate == pytest.approx(10)
    assert pace.left == pytest.approx(60)


def test_unknown_and_finished():
    pace = Pace(10)
    assert pace.left is None
    pace.add(0, 0)
    pace.add(0, 0)
    assert pace.left is None
    pace.add(5, 10)
    assert pace.left == 0


def test_plain_lines_are_spaced(capsys):
    clock = Clock()
    with Progress(100, "face stage", clock=clock) as bar:
        for done in range(1, 101):
            clock.now += 0.25
            bar.update(done, loss=0.123456, note="x")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 5
    assert lines[0] == "face stage  20/100 (20 %)  0:20 left  loss=0.1235 note=x"
    assert "100/100" in lines[-1]


def test_setting_up_and_what_was_done_before_do_not_count_for_the_time_left(capsys):
    clock = Clock()
    with Progress(1000, "training", clock=clock) as bar:
        clock.now = 60.0  # imports and caches
        bar.update(500)  # resumed here
        clock.now += 10
        bar.update(510)
    lines = capsys.readouterr().err.splitlines()
    assert "? left" in lines[0] and "8:10 left" in lines[1]


def test_disabled_says_nothing(capsys):
    with Progress(3, "x", enabled=False) as bar:
        bar.update(3)
    with NullProgress(3, "x") as bar:
        bar.update(3, loss=1.0)
    assert capsys.readouterr() == ("", "")


def test_bars_on_a_terminal():
    stream = Terminal()
    with Progress(10, "outer", stream=stream) as outer, Progress(5, "inner", stream=stream) as inner:
        inner.update(5)
        outer.update(10, loss=0.5)
    assert "outer" in stream.getvalue() and "10/10" in stream.getvalue() and "inner" in stream.getvalue()


def test_reporter_and_track():
    stream = io.StringIO()
    reporter = Reporter(stream=stream)
    tell = reporter.count
    assert list(progress.track("abc", 3, "letters", tell)) == ["a", "b", "c"]
    tell(2, 2, "words")
    tell(1, 2, "unfinished")
    with reporter.start(7, "stage") as bar:
        bar.update(7)
    assert [line.split("  ")[:2] for line in stream.getvalue().splitlines()] == [
        ["letters", "3/3 (100 %)"],
        ["words", "2/2 (100 %)"],
        ["stage", "7/7 (100 %)"],
    ]
    assert list(progress.track("ab", 2, "silent", None)) == ["a", "b"]


def test_clock_text():
    assert [progress.clock_text(s) for s in (None, 5.4, 65, 3723)] == ["?", "0:05", "1:05", "1:02:03"]
