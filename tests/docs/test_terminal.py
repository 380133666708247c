"""The screen that captures are read from."""

from tests.docs import captures, terminal

BAR = "\r\x1b[2K\x1b[1mLoading\x1b[0m 1/9\r\n\x1b[32mTraining\x1b[0m 0/9"
AGAIN = "\r\x1b[2K\x1b[1A\x1b[2KLoading 9/9\r\nTraining 4/9\r\n"


def test_what_is_written_over_is_gone():
    assert terminal.screen(f"start\r\n{BAR}{AGAIN}end\r\n") == ["start", "Loading 9/9", "Training 4/9", "end", ""]


def test_a_command_has_a_terminal_of_the_wanted_width():
    code, output = terminal.run(["bash", "-c", "test -t 1 && stty size"], columns=80, rows=30)
    assert (code, terminal.screen(output)) == (0, ["30 80", ""])


def test_a_capture_takes_the_place_of_the_block_below_its_comment(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- captured: x -->\n```text\nold\n```\n```text\nother\n```\n")
    captures.put("x", ["new \\1"], page)
    assert page.read_text() == "a\n<!-- captured: x -->\n```text\nnew \\1\n```\n```text\nother\n```\n"
