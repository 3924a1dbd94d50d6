"""The console command: one way in to every command, lazy, with one line for every mistake and every Ctrl-C."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hwsim.__main__ import COMMANDS, available, main
from hwsim.ctrl_c import INTERRUPTED
from tests.small_workloads import chain

ROOT = Path(__file__).resolve().parent.parent.parent
# A module of `quant` says its own prog; the others are named as they are called.
OURS = [name for name in available() if COMMANDS[name][0].startswith("hwsim.")]


def run(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that hears Ctrl-C, whoever started the tests."""
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_console_command_is_installed_under_its_name() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts["hwsim"] == "hwsim.__main__:main"


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in available())
    named = ("evaluate", "table", "explain", "explore", "verify", "export-c", "export-onnx", "check", "train",
             "calibrate", "sensitivity")  # fmt: skip
    assert set(named) <= set(available())
    code = "import sys; from hwsim.__main__ import main; main(['--help']); "
    code += "assert not {'torch', 'numpy', 'rich', 'quant'} & set(sys.modules)"
    assert run(code).returncode == 0


@pytest.mark.parametrize("name", OURS)
def test_every_command_says_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: hwsim {name} ")


def test_a_saved_workload_is_priced_without_torch(tmp_path: Path) -> None:
    saved = tmp_path / "net.json"
    code = f"""
import sys
sys.modules["torch"] = None
from hwsim.__main__ import main
sys.exit(main(["evaluate", {str(saved)!r}, "eyeriss_v1", "--quick", "--json"]))
"""
    from hwsim.network.layer import Layer, Loops, Tensor
    from hwsim.network.workload import Workload

    weight = Tensor("w", (4, 3), 8, True, origin="weight")
    layer = Layer("fc", "linear", (Tensor("x", (1, 3), 8),), Tensor("y", (1, 4), 8), weight, Loops(K=4, C=3))
    Workload("net", [layer]).save(saved)
    found = run(code)
    assert found.returncode == 0, found.stderr


def test_unknown_command_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalute"]) == 2
    assert capsys.readouterr().err == "hwsim: no command 'evalute'; did you mean evaluate? `hwsim --help` lists them\n"
    assert main(["zzz"]) == 2
    assert capsys.readouterr().err == "hwsim: no command 'zzz'; `hwsim --help` lists them\n"


def test_check_lists_the_mistakes_of_every_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, worse = tmp_path / "bad.yaml", tmp_path / "worse.yaml"
    bad.write_text("name: [", encoding="utf-8")
    worse.write_text("nmae: x\n", encoding="utf-8")
    assert main(["check", "eyeriss_v1", str(bad), str(worse)]) == 2
    out, error = capsys.readouterr()
    assert out.startswith("eyeriss_v1: ok, 168 MAC units")
    assert "bad.yaml:1" in error
    assert "worse.yaml:1: nmae" in error


def test_ctrl_c_during_imports_is_one_line() -> None:
    """`python -m hwsim.x` imports the package first; from then on a signal says one line and ends."""
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('not reached')"
    for begin in ("import sys; sys.argv[:] = ['-m']; import hwsim", "from hwsim.console import prepare; prepare()"):
        found = run(f"{begin}; {kill}")
        assert (found.returncode, found.stdout, found.stderr) == (INTERRUPTED, "", "hwsim: interrupted\n")


def test_ctrl_c_during_work_is_one_line_and_puts_work_away() -> None:
    code = """
import os, signal
from hwsim.console import prepare
from hwsim.errors import exit_code_of
prepare()
def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("put away")
raise SystemExit(exit_code_of(work))
"""
    found = run(code)
    assert (found.returncode, found.stdout, found.stderr) == (INTERRUPTED, "put away\n", "hwsim: interrupted\n")


KILL = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize("module", ["typing", "hwsim.console"])
def test_ctrl_c_during_the_packages_own_imports_is_one_line(module: str) -> None:
    """Before any handler of ours stands Python raises a KeyboardInterrupt wherever it is."""
    code = f"""
import sys
sys.argv[:] = ["-m"]
sys.modules.pop("typing", None)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
import hwsim
"""
    found = run(code)
    assert (found.returncode, found.stdout, found.stderr) == (INTERRUPTED, "", "hwsim: interrupted\n")


def test_ctrl_c_during_an_import_within_the_work_is_one_line(tmp_path: Path) -> None:
    """A package may catch every exception of its imports: torch told of a module without an attribute instead."""
    (tmp_path / "greedy.py").write_text(
        f"try:\n    {KILL}\nexcept BaseException:\n    raise AttributeError from None\n"
    )
    code = f"""
import sys
from hwsim.console import prepare
from hwsim.errors import exit_code_of
prepare()
sys.path.insert(0, {str(tmp_path)!r})
def work():
    import greedy
raise SystemExit(exit_code_of(work))
"""
    found = run(code)
    assert (found.returncode, found.stdout, found.stderr) == (INTERRUPTED, "", "hwsim: interrupted\n")


@pytest.mark.parametrize(
    ("then", "code", "says"),
    [
        (KILL, INTERRUPTED, "hwsim: interrupted\n"),
        (f"import atexit; atexit.register(lambda: exec({KILL!r}))", INTERRUPTED, "hwsim: interrupted\n"),
        ("sys.late = Late()", 0, ""),
    ],
)
def test_ctrl_c_after_the_work_is_one_line_or_nothing(then: str, code: int, says: str) -> None:
    """While Python takes itself down there is nobody left to say a line, and nothing left to stop."""
    found = run(f"""
import os, sys
from hwsim.console import prepare
from hwsim.errors import exit_code_of
prepare()
class Late:
    def __del__(self, kill=os.kill, number=os.getpid()):
        kill(number, 2)
code = exit_code_of(lambda: print("done"))
{then}
raise SystemExit(code)
""")
    assert (found.returncode, found.stdout, found.stderr) == (code, "done\n", says)


def test_a_job_that_was_told_to_ignore_ctrl_c_goes_on() -> None:
    """A shell starts its background jobs so: the terminal's Ctrl-C is for the one in front."""
    code = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    found = run(f"{code}from hwsim.console import prepare; prepare(); os.kill(os.getpid(), 2); print('reached')")
    assert (found.returncode, found.stdout, found.stderr) == (0, "reached\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["table", "none", "eyeriss_v1", "--bits", ""], "--bits: expected W<bits>A<bits>"),
        (["table", "resnet8", "eyeriss_v1", "--assignments", "random:0"], "random:0: expected random:N"),
        (["evaluate", "none", "eyeriss_v1", "--format", "timeloop"], "--format timeloop needs --out DIR"),
    ],
)
def test_empty_and_missing_arguments_are_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def ended(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A shell's line; $HWSIM is the console command."""
    environment = {**os.environ, "HWSIM": f"{sys.executable} -m hwsim", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("evaluate net.json eyeriss_v1 --quick --out out", 0),
        ("evaluate net.json eyeriss_v1 --quick --json", 0),
        ("check --schema", 0),
        ("check eyeriss_v1 nowhere.yaml", 2),
        ("--help", 0),
        ("evaluate --help", 0),
    ],
)
def test_a_reader_that_leaves_changes_neither_the_exit_code_nor_a_file(
    arguments: str, code: int, tmp_path: Path
) -> None:
    """The reader is gone before the first line: `| true`. Files are written whole, nothing is said of the pipe."""
    chain().save(tmp_path / "net.json")
    found = ended(f"$HWSIM {arguments} | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert int(found.stdout) == code
    assert "roken pipe" not in found.stderr
    assert "Traceback" not in found.stderr
    if "--out" in arguments:
        whole = json.loads((tmp_path / "out" / "report.json").read_text())
        assert whole["totals"]["macs"] == chain().macs


@pytest.mark.long
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
@pytest.mark.parametrize("arguments", ["--help", "evaluate --help", "evaluate net.json eyeriss_v1 --quick --out out"])
def test_an_output_that_takes_nothing_is_one_line_and_an_error(arguments: str, where: str, tmp_path: Path) -> None:
    chain().save(tmp_path / "net.json")
    found = ended(f"$HWSIM {arguments} {where}", tmp_path)
    assert found.returncode == 2
    last = found.stderr.splitlines()[-1]
    assert last.startswith("hwsim: standard output: ")
    assert found.stderr.count("standard output") == 1
    assert "--out" not in arguments or json.loads((tmp_path / "out" / "report.json").read_text())


@pytest.mark.long
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "2> >(true)", "<&- >&- 2>&-"])
def test_a_closed_error_output_keeps_the_exit_code(where: str, tmp_path: Path) -> None:
    """Bad input is 2 whether somebody can be told or not."""
    assert ended(f"$HWSIM check nowhere.yaml {where}", tmp_path).returncode == 2
    if ">&- 2" not in where:
        assert ended(f"$HWSIM check eyeriss_v1 {where}", tmp_path).returncode == 0


def test_files_never_take_the_place_of_a_closed_output(tmp_path: Path) -> None:
    """With descriptor 1 closed, the next file that is opened would be descriptor 1: prints would go into it."""
    code = "from hwsim.console import prepare; prepare(); print(open('kept', 'w').fileno() > 2, file=open('said', 'w'))"
    ended(f'{sys.executable} -c "{code}" <&- >&- 2>&-', tmp_path)
    assert (tmp_path / "said").read_text() == "True\n"
