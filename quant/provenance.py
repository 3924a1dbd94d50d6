"""Where a result comes from: commit, command, versions, device, date, as plain JSON for checkpoints and CSV rows."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def provenance(device: str | torch.device = "cpu") -> dict[str, Any]:
    """commit (with `+` when files differ from it; '' outside a checkout), command, versions, device, threads, date."""
    return {
        "commit": commit(),
        "command": command(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def command() -> str:
    """The command line as it can be typed again: `python -m package.module arguments`, or torchrun's."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    name = f"-m {spec.name.removesuffix('.__main__')}" if spec is not None else os.path.basename(sys.argv[0])
    starter = "python"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        starter = f"torchrun --nnodes {os.environ.get('GROUP_WORLD_SIZE', 1)}"
        starter += f" --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', 1)}"
    return " ".join([starter, name, *map(shlex.quote, sys.argv[1:])])


def commit() -> str:
    """Short hash of the checkout that holds this package, `+` appended when tracked files differ from it."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def device_name(device: str | torch.device) -> str:
    """The accelerator's name, or the processor's model."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
