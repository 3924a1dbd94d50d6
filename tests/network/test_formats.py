"""Number formats: short names, bits per value with their scales, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from hwsim.errors import SpecError
from hwsim.network.bits_file import parse_wxay
from hwsim.network.formats import NAMED, Format, parse_format, parse_formats, short_name

LARGE = 4096

# Bits per value with scales, from the definitions: element + (scale + offset) / group.
STORED = [
    ("MXFP8", Fraction(33, 4)), ("MXFP8_E5M2", Fraction(33, 4)), ("MXFP6", Fraction(25, 4)),
    ("MXFP6_E3M2", Fraction(25, 4)), ("MXFP4", Fraction(17, 4)), ("MXINT8", Fraction(33, 4)),
    ("NVFP4", Fraction(9, 2) + Fraction(32, LARGE**2)), ("FP8", 8 + Fraction(32, LARGE**2)),
    ("4g32", Fraction(9, 2)), ("4g32z", Fraction(37, 8)), ("4g32zfp16", Fraction(5)), ("4g64", Fraction(17, 4)),
    ("4g64z", Fraction(69, 16)), ("4g64zfp16", Fraction(9, 2)), ("4g128", Fraction(33, 8)),
    ("4g128z", Fraction(133, 32)), ("4g128zfp16", Fraction(17, 4)), ("3g128", Fraction(25, 8)),
    ("2g64z", Fraction(73, 32)), ("4", 4 + Fraction(16, LARGE)), ("8", 8 + Fraction(16, LARGE)),
    ("BF16", Fraction(16)), ("FP16", Fraction(16)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "bits"), STORED)
def test_bits_per_value_count_every_scale_and_offset(name: str, bits: Fraction) -> None:
    assert parse_format(name).bits_per_value(LARGE, LARGE) == bits


@pytest.mark.parametrize(("name", "bits"), [("8", "8.125"), ("8z", "8.25"), ("4z", "4.25"), ("NVFP4", "4.5")])
def test_a_cache_has_a_scale_for_each_token_and_head(name: str, bits: str) -> None:
    rows, head = 1000, 128
    cache = parse_format(name, "cache")
    assert cache.bits * rows * head + cache.scales(rows, head) * cache.side_bits_each == Fraction(bits) * rows * head


def test_a_last_group_that_is_shorter_has_a_scale_too() -> None:
    assert parse_format("4g128").scales(10, 129) == 20
    assert parse_format("4g128").side_bits(10, 129) == 320


def test_short_names_mean_what_the_field_means() -> None:
    only = parse_formats("W4g128A16")
    assert (only.weight, only.activation, only.cache) == (parse_format("4g128"), NAMED["FP16"], None)
    assert parse_formats("w4a16kv8").cache == parse_format("8", "cache")
    assert parse_formats("KV8").weight == parse_formats("KV8").activation == NAMED["FP16"]
    assert parse_formats("MXFP4").weight == parse_formats("MXFP4").activation == NAMED["MXFP4"]
    assert parse_formats("WMXFP4ABF16-KVFP8").cache == NAMED["FP8"]
    assert parse_formats("WNVFP4AMXFP8_E5M2").activation.element == "e5m2"
    assert parse_formats("W4A8").weight.sharing == "channel"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected W4A16"), ("W4", "expected W4A16"), ("MXFP5", "expected W4A16"), ("W4g0A16", "a group has 1 to"),
        ("W99A8", "bits must be 1 to 16"), ("W4zfp8A16", "expected W4A16"), ("W4A16KV", "expected W4A16"),
        ("W0A8", "bits must be 1 to 16"), ("A8", "expected W4A16"),
    ],
)  # fmt: skip
def test_what_no_format_is_called_is_refused_with_the_names(text: str, part: str) -> None:
    with pytest.raises(SpecError, match=part):
        parse_formats(text, "--bits")


@pytest.mark.parametrize(
    "wrong",
    [
        {"element": "e9m9", "bits": 8}, {"element": "e4m3", "bits": 7}, {"element": "int", "bits": 0},
        {"element": "int", "bits": 4, "sharing": "group", "scale": "fp16"},
        {"element": "int", "bits": 4, "sharing": "tensor"}, {"element": "int", "bits": 4, "scale": "fp16"},
        {"element": "int", "bits": 4, "sharing": "tensor", "scale": "fp8"},
        {"element": "e2m1", "bits": 4, "sharing": "tensor", "scale": "fp16", "offset": "code"},
        {"element": "int", "bits": 4, "sharing": "tensor", "scale": "fp16", "offset": "x"},
    ],
)  # fmt: skip
def test_contradictions_are_no_format(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="format: "):
        Format(**wrong)  # type: ignore[arg-type]


def test_every_named_format_describes_itself() -> None:
    assert all(NAMED[name].describe() for name in NAMED)
    assert NAMED["NVFP4"].describe() == "e2m1, a e4m3 scale for each group of 16, a fp32 scale for the tensor"


@pytest.mark.parametrize("name", ["W4g128A16", "MXFP4", "WMXFP4ABF16", "KV8"])
def test_what_varies_integers_refuses_formats_with_the_way_out(name: str) -> None:
    """Where widths vary by themselves: the sentence names the command that prices a format."""
    with pytest.raises(SpecError, match=rf"got '{name}': a number format.*hwsim evaluate MODEL ACCEL --bits {name}"):
        parse_wxay(name, "--bits")
    with pytest.raises(SpecError, match=r"such as W4A4 or W8A8, got 'W4g'$"):
        parse_wxay("W4g", "--bits")


@pytest.mark.parametrize("name", [*NAMED, "4", "4g32", "3g128", "4g32z", "4g32zfp16", "8g64zfp32"])
def test_a_short_name_written_and_read_back_is_the_same_format(name: str) -> None:
    form = parse_format(name)
    assert parse_format(short_name(form, form.bits)) == form


def test_what_no_short_name_says_has_none() -> None:
    assert short_name(Format("e2m1", 4, "group", 64, "e8m0"), 4) == ""
    assert short_name(Format("int", 4, "group", 32, "fp16", "e4m3"), 4) == ""
