"""Where the tests find real data and trained networks.

`data_dir()` is the folder named by HWSIM_DATA, else ../shared/data beside the checkout, else None.
Tests ask for the fixture of the same name (or a narrower one) and are skipped, with the reason, when it is absent.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# No test may read mappings that an older version found; decoded images still come from the user's cache folder.
os.environ.setdefault("HWSIM_CACHE", "")
CHECKOUT = Path(__file__).resolve().parent.parent


def data_dir() -> Path | None:
    """Folder with the real data sets and trained networks, or None when this machine has none."""
    named = os.environ.get("HWSIM_DATA")
    if named:
        return Path(named) if Path(named).is_dir() else None
    beside = CHECKOUT.parent / "shared" / "data"
    return beside if beside.is_dir() else None


def _need(*parts: str) -> Path:
    folder = data_dir()
    if folder is None:
        pytest.skip("no data folder: set HWSIM_DATA or place shared/data beside the checkout")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the data folder has no {'/'.join(parts)}")
    return path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run, new each time and one for all of its processes."""
    mine = tmp_path_factory.getbasetemp()
    return mine.parent if os.environ.get("PYTEST_XDIST_WORKER") else mine


@pytest.fixture(scope="module")
def shared_searches(run_folder: Path) -> Iterator[None]:
    """A mapping that a test of this run has searched for is not searched again: where the search is not the claim."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSIM_CACHE", str(run_folder / "searches"))
        yield


@pytest.fixture(name="data_dir", scope="session")
def _data_dir() -> Path:
    return _need()


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    return _need("cifar10")


@pytest.fixture(scope="session")
def fashion_mnist_dir() -> Path:
    return _need("fashion_mnist")


@pytest.fixture(scope="session")
def pretrained_dir() -> Path:
    return _need("pretrained")


@pytest.fixture(scope="session")
def mlperf_tiny_dir() -> Path:
    return _need("mlperf_tiny")


@pytest.fixture(scope="session")
def onnx_dir() -> Path:
    return _need("onnx")


@pytest.fixture(scope="session")
def tflite_dir() -> Path:
    return _need("tflite")


@pytest.fixture(scope="session")
def peers_dir() -> Path:
    return _need("peers")
