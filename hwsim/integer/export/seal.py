# pyright: basic
"""The line of an exported file that says which trained network it is, and the hash of all its other content.

    /* hwsim identity 0123456789abcdef seal fedcba9876543210 */      first line of a C file
    hwsim.identity, hwsim.seal                                        metadata of an ONNX model

`quant.checkpoint.identity` is what a report and a certificate carry too. The seal tells a file as it was written from
one that was edited or cut since; it is no signature.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hwsim.errors import RequestError, reason
from hwsim.files.identity import content_hash
from hwsim.files.reading import read_bytes

LINE = re.compile(r"/\* hwsim identity ([0-9a-f]+) seal ([0-9a-f]+) \*/\n")
KEYS = ("hwsim.identity", "hwsim.seal")


def sealed_c(text: str, identity: str) -> str:
    """The text of a C file behind the line that names its network."""
    return f"/* hwsim identity {identity} seal {content_hash(text.encode())} */\n{text}"


def identity_of_c(path: Path) -> tuple[str, bool]:
    """(identity, whether the rest is as it was written) of a C file; ends of lines may have been changed by an editor.

    Raises RequestError for a file without that line.
    """
    text = read_bytes(path).decode(errors="replace").replace("\r\n", "\n")
    found = LINE.match(text)
    if found is None:
        raise RequestError(f"{path}: has no identity: hwsim export-c CHECKPOINT FILE.c writes one into its first line")
    return found[1], content_hash(text[found.end() :].encode()) == found[2]


def seal_onnx(model: Any, identity: str) -> None:
    """Identity and seal into a model's metadata."""
    model.metadata_props.add(key=KEYS[0], value=identity)
    model.metadata_props.add(key=KEYS[1], value=content_of_onnx(model))


def content_of_onnx(model: Any) -> str:
    """Hash of what a model computes: its graph, its functions and the versions of their operators."""
    parts = (model.graph, *model.functions, *model.opset_import)
    return content_hash(b"".join(part.SerializeToString(deterministic=True) for part in parts))


def identity_of_onnx(path: Path) -> tuple[str, bool]:
    """(identity, whether graph and weights are as they were written). Raises RequestError where there is none."""
    try:
        import onnx
    except ImportError as problem:
        raise RequestError(f"{path}: needs the onnx package ({problem}): pip install 'hwsim[onnx]'") from None
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception as problem:  # a protobuf fails in its own ways
        raise RequestError(f"{path}: cannot be read as ONNX: {reason(problem)}") from None
    said = {item.key: item.value for item in model.metadata_props}
    if not all(key in said for key in KEYS):
        raise RequestError(f"{path}: has no identity: hwsim export-onnx CHECKPOINT FILE.onnx writes one")
    return said[KEYS[0]], said[KEYS[1]] == content_of_onnx(model)
