"""Bad input of every kind: exit code 2 or 3, one clear message, no traceback, no partial output file.

`python -m tests.commands.test_bad_inputs` prints the table of all cases with the message each gets.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwsim.evaluate import main
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
SPEC = (ROOT / "accel_specs" / "eyeriss_v1.yaml").read_text(encoding="utf-8")


def small_layer(name: str = "fc", k: int = 8, c: int = 16) -> Layer:
    """One linear layer at 8 bits."""
    return Layer(
        name,
        "linear",
        (Tensor(f"{name}.in", (1, c), 8),),
        Tensor(f"{name}.out", (1, k), 8),
        weight=Tensor(f"{name}.weight", (k, c), 8),
        loops=Loops(K=k, C=c),
    )


def conv_dict() -> dict[str, object]:
    """A saved workload of one convolution, to be spoilt."""
    layer = Layer(
        "conv",
        "conv",
        (Tensor("x", (1, 3, 8, 8), 8, signed=False),),
        Tensor("y", (1, 4, 6, 6), 8),
        weight=Tensor("w", (4, 3, 3, 3), 8),
        loops=Loops(K=4, C=3, P=6, Q=6, R=3, S=3),
    )
    return Workload("net", [layer]).to_dict()


@dataclass(frozen=True)
class Case:
    """What is given, what the exit code must be, and words the message must contain."""

    name: str
    arguments: Callable[[Path], list[str]]
    code: int
    says: str  # regular expression


def good(folder: Path) -> str:
    """A workload file that is fine."""
    path = folder / "good.json"
    Workload("net", [small_layer()]).save(path)
    return str(path)


def spec(text: str | bytes) -> Callable[[Path], list[str]]:
    """Arguments with a good model and this text as the accelerator file."""

    def arguments(folder: Path) -> list[str]:
        path = folder / "accel.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return [good(folder), str(path)]

    return arguments


def spoilt(pattern: str, replacement: str) -> Callable[[Path], list[str]]:
    """Arguments with the shipped Eyeriss spec after one substitution (which must hit)."""
    text, hits = re.subn(pattern, replacement, SPEC, count=1, flags=re.MULTILINE)
    assert hits == 1, f"{pattern!r} is not in the spec any more"
    return spec(text)


def model(text: str | bytes, name: str = "model.json", spec_name: str = "eyeriss_v1") -> Callable[[Path], list[str]]:
    """Arguments with this text as the model file."""

    def arguments(folder: Path) -> list[str]:
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return [str(path), spec_name]

    return arguments


def changed(change: Callable[[dict], None]) -> Callable[[Path], list[str]]:
    """Arguments with a one-convolution workload after `change`."""
    data = json.loads(json.dumps(conv_dict()))
    change(data)
    return model(json.dumps(data))


def with_options(*options: str, text: str | None = None) -> Callable[[Path], list[str]]:
    """A good model and spec with further options; `text` fills a file that replaces the word FILE."""

    def arguments(folder: Path) -> list[str]:
        extra = folder / "extra.yaml"
        if text is not None:
            extra.write_text(text, encoding="utf-8")
        return [good(folder), "eyeriss_v1", *(str(extra) if o == "FILE" else o for o in options)]

    return arguments


def set_path(*keys: object, value: object) -> Callable[[dict], None]:
    """A change that sets one value deep inside."""

    def change(data: dict) -> None:
        place = data
        for key in keys[:-1]:
            place = place[key]  # type: ignore[index]
        place[keys[-1]] = value  # type: ignore[index]

    return change


BOMB = "a: &a [1,1]\n" + "\n".join(f"b{i}: &b{i} [*{f'b{i - 1}' if i else 'a'},*a,*a,*a]" for i in range(20))
TWICE = r"clock_mhz.*(duplicate|twice)|(duplicate|twice).*clock_mhz"
BOUNDED = re.sub(r"size_bits: unlimited", "size_bits: 1024", SPEC)
WEIGHTS_ONLY = SPEC.replace("unlimited, keeps: [weight, input, output]", "unlimited, keeps: [weight]")
GLB_SIZE = r"size_bits: *\d[\d_]*"
CASES = [
    Case("accelerator file missing", lambda f: [good(f), str(f / "none.yaml")], 2, r"none\.yaml"),
    Case("accelerator name unknown", lambda f: [good(f), "eyeris_v1"], 2, r"eyeriss_v1"),
    Case("accelerator is a directory", lambda f: [good(f), str(f)], 2, r"directory|folder"),
    Case("accelerator empty", spec(""), 2, r"empty"),
    Case("accelerator truncated", spec(SPEC[: len(SPEC) // 2] + "\n  - {memory: ["), 2, r"accel\.yaml:\d+"),
    Case("accelerator binary", spec(bytes(range(256)) * 4), 2, r"accel\.yaml"),
    Case("accelerator is a list", spec("- a\n- b\n"), 2, r"expected"),
    Case("accelerator is a scalar", spec("42\n"), 2, r"expected"),
    Case("cyclic YAML alias", spec("a: &a\n  b: *a\n"), 2, r"alias|anchor|cycl|recurs"),
    Case("YAML bomb of aliases", spec(BOMB), 2, r"alias|anchor|unknown|large"),
    Case("YAML python tag", spec("!!python/object/apply:os.system ['echo hi']\n"), 2, r"tag|constructor|expected"),
    Case("unknown key", spoilt(r"^clock_mhz:", "clok_mhz:"), 2, r"clok_mhz"),
    Case("duplicate key", spoilt(r"^clock_mhz:(.*)$", r"clock_mhz:\1\nclock_mhz:\1"), 2, TWICE),
    Case("clock missing", spoilt(r"^clock_mhz:.*$", ""), 2, r"clock_mhz"),
    Case("clock negative", spoilt(r"^clock_mhz:.*$", "clock_mhz: -200"), 2, r"clock_mhz.*-200"),
    Case("clock zero", spoilt(r"^clock_mhz:.*$", "clock_mhz: 0"), 2, r"clock_mhz"),
    Case("clock NaN", spoilt(r"^clock_mhz:.*$", "clock_mhz: .nan"), 2, r"clock_mhz"),
    Case("clock infinite", spoilt(r"^clock_mhz:.*$", "clock_mhz: .inf"), 2, r"clock_mhz"),
    Case("clock with a unit", spoilt(r"^clock_mhz:.*$", "clock_mhz: 200 MHz"), 2, r"clock_mhz.*200 MHz"),
    Case("clock 1e3 (text in YAML)", spoilt(r"^clock_mhz:.*$", "clock_mhz: 1e3"), 2, r"1e3"),
    Case("size '64k'", spoilt(GLB_SIZE, "size_bits: 64k"), 2, r"size_bits.*64k"),
    Case("size negative", spoilt(GLB_SIZE, "size_bits: -5"), 2, r"size_bits.*-5"),
    Case("size zero", spoilt(GLB_SIZE, "size_bits: 0"), 2, r"size_bits"),
    Case("size is a list", spoilt(GLB_SIZE, "size_bits: [1, 2]"), 2, r"size_bits"),
    Case("size is on", spoilt(GLB_SIZE, "size_bits: on"), 2, r"size_bits"),
    Case("size fractional", spoilt(GLB_SIZE, "size_bits: 10.5"), 2, r"size_bits.*10\.5"),
    Case("outermost memory of 128 bytes", spec(BOUNDED), 3, r"does not fit .*dram holds 128 B.*--allow-overflow"),
    Case("no outermost memory", spec(WEIGHTS_ONLY), 2, r"expected the outermost memory to keep"),
    Case("model file missing", lambda f: [str(f / "none.json"), "eyeriss_v1"], 2, r"none\.json"),
    Case("model name unknown", lambda f: ["resnet19", "eyeriss_v1"], 2, r"resnet18"),
    Case("model is a directory", lambda f: [str(f), "eyeriss_v1"], 2, r"checkpoint|folder|directory"),
    Case("workload empty", model(""), 2, r"JSON"),
    Case("workload truncated", model(json.dumps(conv_dict())[:200]), 2, r"JSON"),
    Case("workload binary", model(bytes(range(256))), 2, r"cannot be read|JSON"),
    Case("workload of another kind", model('{"format": "other"}'), 2, r"saved workload"),
    Case("workload without layers", changed(set_path("layers", value=[])), 2, r"layer"),
    Case("workload newer version", changed(set_path("format_version", value=99)), 2, r"99"),
    Case("workload NaN", model(json.dumps(conv_dict()).replace('"bits": 8', '"bits": NaN', 1)), 2, r"NaN"),
    Case("workload huge nesting", model("[" * 100_000), 2, r"JSON"),
    Case("unknown operator", changed(set_path("layers", 0, "op", value="fft")), 2, r"fft"),
    Case("unknown layer key", changed(set_path("layers", 0, "colour", value=1)), 2, r"colour"),
    Case("bits zero", changed(set_path("layers", 0, "weight", "bits", value=0)), 2, r"bits"),
    Case("bits huge", changed(set_path("layers", 0, "weight", "bits", value=10**9)), 2, r"bits"),
    Case("bits as text", changed(set_path("layers", 0, "weight", "bits", value="8")), 2, r"bits"),
    Case("negative size", changed(set_path("layers", 0, "loops", "K", value=-4)), 2, r"positive|loops"),
    Case("zero stride", changed(set_path("layers", 0, "stride", value=[0, 1])), 2, r"stride"),
    Case("output shape contradicts", changed(set_path("layers", 0, "output", "shape", value=[1, 4, 7, 7])), 2, r"conv"),
    Case("channels contradict", changed(set_path("layers", 0, "inputs", 0, "shape", value=[1, 4, 8, 8])), 2, r"conv"),
    Case("rows contradict", changed(set_path("layers", 0, "inputs", 0, "shape", value=[1, 3, 9, 8])), 2, r"rows"),
    Case("bits argument nonsense", with_options("--bits", "W4"), 2, r"W4"),
    Case("bits argument out of range", with_options("--bits", "W99A4"), 2, r"99"),
    Case("bits argument empty", with_options("--bits", ""), 2, r"W<bits>A<bits>.*got ''"),
    Case("accelerator name empty", lambda f: [good(f), ""], 2, r"'': no such file or shipped spec"),
    Case("bits file missing", with_options("--bits", "none.yaml"), 2, r"none\.yaml"),
    Case("bits file wrong", with_options("--bits", "FILE", text="fc: {weight: four}\n"), 2, r"four"),
    Case("bits file names no layer", with_options("--bits", "FILE", text="nolayer: {weight: 4}\n"), 2, r"nolayer"),
    Case("mapping file missing", with_options("--mapping", "none.yaml"), 2, r"none\.yaml"),
    Case("mapping file wrong", with_options("--mapping", "FILE", text="layers: 3\n"), 2, r"layers"),
    Case("mapping without the layer", with_options("--mapping", "FILE", text="layers: {}\n"), 2, r"fc|layers"),
    Case("objective unknown", with_options("--objective", "speed"), 2, r"speed"),
    Case("gap out of range", with_options("--gap", "2"), 2, r"fraction"),
    Case("time limit negative", with_options("--time-limit", "-1"), 2, r"seconds"),
    Case("input shape symbolic", lambda f: ["resnet20", "eyeriss_v1", "--input", "N,3,32,32"], 2, r"N,3"),
    Case("input shape zero", lambda f: ["resnet20", "eyeriss_v1", "--input", "0,3,32,32"], 2, r"positive"),
    Case("module not there", lambda f: ["no_such_module:make", "eyeriss_v1"], 2, r"no_such_module"),
    Case("factory not there", lambda f: ["json:make_net", "eyeriss_v1"], 2, r"make_net"),
    Case("pt2 garbage", model(b"PK\x03\x04garbage", "net.pt2"), 2, r"net\.pt2"),
    Case("pickle refused", model(b"\x80\x04\x95garbage", "net.pth"), 2, r"net\.pth"),
    Case("layer fits nowhere", spoilt(GLB_SIZE, "size_bits: 1"), 3, r"glb holds 1 bits, its tiles need \d+"),
    Case("out is a file", lambda f: [good(f), "eyeriss_v1", "--out", good(f)], 2, r"^hwsim: \S*/good\.json: "),
]  # fmt: skip


def outcome(case: Case, folder: Path) -> tuple[int, str, list[str]]:
    """Exit code, what stderr said, and files that appeared beside the inputs."""
    arguments = case.arguments(folder)
    before = {p for p in folder.rglob("*") if p.is_file()}
    if "--out" not in arguments:
        arguments = [*arguments, "--out", str(folder / "out")]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(arguments)
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
    left = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p not in before]
    return code, errors.getvalue(), left


def test_there_are_at_least_forty_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_gets_one_clear_message(case: Case, tmp_path: Path) -> None:
    code, message, left = outcome(case, tmp_path)
    assert code == case.code, message
    assert "Traceback" not in message
    assert message.strip()
    assert re.search(case.says, message, re.IGNORECASE), message
    assert left == [], f"files left behind: {left}"


def print_table() -> None:
    """All cases with their exit code and the first lines of their message."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            code, message, _ = outcome(case, Path(folder))
            text = message.strip().replace(folder + "/", "").splitlines()
            shown = " / ".join(line.strip() for line in text if not line.startswith("usage"))[:150]
            print(f"{case.name:32} {code}  {shown}")


if __name__ == "__main__":
    print_table()
