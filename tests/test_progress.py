import pytest

from fnn.train import progress
from fnn.train.progress import Report


def report(step, valid=None):
    return Report(step, 10, 5.0, 0.25, valid or {})


def test_plain_lines_come_after_evaluations_and_at_the_end(capsys):
    with progress.lines(10, every_seconds=0.0) as show:
        show(report(1))
        show(report(2, {"loss": 0.5}))
        show(report(3, {"loss": 0.5}))  # no new evaluation
        show(report(4, {"loss": 0.4}))
        show(report(5, {"loss": 0.4}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines] == ["step 2/10", "step 4/10", "step 5/10"]
    assert lines[0] == "step 2/10 | 5 steps/s | loss 0.2500 | valid loss 0.5000 | 2 s left"


def test_plain_lines_are_throttled(capsys):
    with progress.lines(10, every_seconds=1000.0) as show:
        for step in range(1, 6):
            show(report(step, {"loss": float(step)}))
    assert len(capsys.readouterr().out.splitlines()) == 2  # the first and the last


def test_a_file_gets_plain_lines_and_a_terminal_the_bar(monkeypatch, capsys):
    with progress.auto(10) as show:
        show(report(2, {"loss": 0.5}))
    assert "step 2/10" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "bar", lambda steps: progress.silent(steps))
    with progress.auto(10) as show:
        show(report(2, {"loss": 0.5}))
    assert capsys.readouterr().out == ""  # the bar that stands in for the real one is silent


def test_without_rich_a_terminal_gets_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "rich.progress", None)
    with progress.auto(10) as show:
        show(report(2, {"loss": 0.5}))
    assert "step 2/10" in capsys.readouterr().out


def test_the_bar_shows_step_rate_loss_and_validation(capsys):
    pytest.importorskip("rich")
    with progress.bar(10) as show:
        show(report(4, {"loss": 0.4}))
    text = capsys.readouterr().out
    assert "4/10" in text and "loss 0.2500" in text and "valid loss 0.4000" in text


@pytest.mark.parametrize("columns", [9, 12, 20, 30, 40, 50, 60, 70, 80, 100, 200])
def test_the_bar_stays_on_one_line_and_never_cuts_the_step(columns, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", str(columns))
    with progress.bar(1500) as show:
        show(Report(1200, 1500, 846.0, 0.001, {"loss": 0.0123, "accuracy": 0.9876}))
    [line] = capsys.readouterr().out.strip("\n").split("\n")
    assert "1200/1500" in line and len(line.rstrip()) <= columns and "\u2026" not in line
    assert ("loss 0.0010" in line) == (columns >= 30)
    assert ("valid loss 0.0123" in line) == (columns >= 50)
    assert ("accuracy 0.9876" in line) == (columns >= 80)


def test_a_terminal_that_cannot_overwrite_a_line_gets_plain_lines(capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # what a pipe is to rich otherwise
    with progress.bar(10) as show:
        show(report(4, {"loss": 0.4}))
    assert capsys.readouterr().out == line_of(report(4, {"loss": 0.4}))


def line_of(shown):
    return progress.line(shown) + "\n"


def test_no_color_means_no_escape_code_of_a_color(capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        with progress.bar(10) as show:
            show(report(4, {"loss": 0.4}))
        assert ("m\u2501" in capsys.readouterr().out) == (no_color == "")


def test_no_time_is_left_to_tell_before_the_rate_is_known():
    assert Report(1, 10, 0.0, 0.5, {}).seconds_left == 0.0
