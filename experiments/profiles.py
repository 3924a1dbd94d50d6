"""How much is trained: the profiles from smoke to imagenet as data, and the jobs they make for each question.

smoke: seconds on the embedded digits, to see that everything works; its accuracies mean little.
digits: half an hour on them, a SiLU and a ReLU network, three seeds, no download.
fashion: an hour on two cores, Fashion-MNIST, three seeds. cpu: two cores for some hours, CIFAR-10, three seeds from
one float network each. cpu_long: a day on two cores, the same networks for two to four epochs, from first
values of least squared error and with three times the papers' learning rate for the weights (docs/training_results.md).
gpu: one CUDA device, CIFAR-10, five seeds. imagenet: the papers' settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from experiments.jobs import Job
from experiments.table import MIXED

CONFIGS = ("1", "2", "3", "4")
POLICIES = ("pad_code", "snap_offset", "pad_beta", "border_bias")
INITS = ("minmax", "lsq", "lsqplus")
OFFSET_MODES = ("fixed_zero", "fixed_min", "learned")
BASELINES = ("pact", "dsq", "qil")


@dataclass(frozen=True)
class Profile:
    """Networks (templates of jobs: a SiLU one and a ReLU one), precisions and seeds.

    `epochs`: precisions that are trained longer than the template says, and for how many epochs.
    `allocations`: files of experiments/allocations, NETWORK-MACHINE-BITS[-METHOD]: widths by layer that cost on the
    machine what the uniform bits do; trained like those.
    `beyond`: precisions at which methods beside LSQ+ are compared, where it is not the fewest bits alone.
    """

    name: str
    silu: Job
    relu: Job | None
    bits: tuple[str, ...]
    seeds: tuple[int, ...]
    more_silu: tuple[Job, ...] = ()
    epochs: tuple[tuple[str, float], ...] = ()
    allocations: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()

    def at(self, network: Job, bits: str, **changes: Any) -> Job:
        """A network's job at a precision."""
        return replace(network, bits=bits, epochs=dict(self.epochs).get(bits, network.epochs), **changes)

    def networks(self) -> tuple[Job, ...]:
        return (self.silu, *([self.relu] if self.relu else []), *self.more_silu)

    def low_bits(self) -> tuple[str, ...]:
        """The precisions of Tables 5 and 6: below 8 bits."""
        return tuple(bits for bits in self.bits if "8" not in bits)


def _small(image: int) -> tuple[tuple[str, float], ...]:
    return (("depth", 1), ("image_size", image), ("in_channels", 1), ("width", 0.5))


PROFILES = {
    "smoke": Profile(
        "smoke",
        Job("silu_se_net", _small(8), "digits", float_epochs=15, epochs=3, batch_size=64),
        None,
        ("W2A2", "W4A4", "W8A8"),
        (0,),
    ),
    "digits": Profile(
        "digits",
        Job("silu_se_net", _small(8), "digits", float_epochs=30, epochs=8, batch_size=64),
        Job("resnet8", (("image_size", 8), ("in_channels", 1), ("width", 0.5)), "digits",
            float_epochs=30, epochs=8, batch_size=64),
        ("W2A2", "W4A4"),
        (0, 1, 2),
    ),
    "fashion": Profile(
        "fashion",
        Job("silu_se_net", _small(28), "fashion_mnist", float_epochs=2, epochs=0.25),
        Job("resnet8", (("image_size", 28), ("in_channels", 1), ("width", 0.5)), "fashion_mnist",
            float_epochs=2, epochs=0.25),
        ("W2A2", "W4A4"),
        (0, 1, 2),
    ),
    "cpu": Profile(
        "cpu",
        Job("silu_se_net", (), "cifar10", float_epochs=20, epochs=0.5, float_seed=0),
        Job("resnet8", (), "cifar10", weights="pretrained", epochs=0.5),
        ("W2A2", "W4A4"),
        (0, 1, 2),
        epochs=(("W2A2", 1.0),),
        allocations=(
            "resnet8-bit_fusion-w4a4", "resnet8-unpu-w4a4", "resnet8-stripes-w4a4", "resnet8-bit_fusion-w2a2",
            "resnet8-stripes-w4a4-finetune", "resnet8-unpu-w4a4-finetune", "resnet8-bit_fusion-w4a4-finetune",
            "resnet8-stripes-w2a2-finetune", "resnet8-unpu-w4a4-finetune_90",
        ),
    ),
    "cpu_long": Profile(
        "cpu_long",
        Job("silu_se_net", (), "cifar10", float_epochs=20, epochs=2, float_seed=0, init="mse",
            weight_learning_rate=0.03),
        Job("resnet8", (), "cifar10", weights="pretrained", epochs=2, init="mse", weight_learning_rate=0.03),
        ("W2A2", "W3A3", "W4A4"),
        (0, 1, 2),
        epochs=(("W2A2", 4), ("W3A3", 3)),
        beyond=("W3A3", "W2A2"),
    ),
    "gpu": Profile(
        "gpu",
        Job("silu_se_net", (("depth", 3), ("width", 2.0)), "cifar10", float_epochs=100, epochs=30,
            float_weight_decay=5e-4),
        Job("resnet18", (("image_size", 32),), "cifar10", float_epochs=100, epochs=30, float_weight_decay=5e-4),
        ("W2A2", "W3A3", "W4A4"),
        (0, 1, 2, 3, 4),
    ),
    "imagenet": Profile(
        "imagenet",
        Job("efficientnet_b0", (), "imagenet", float_epochs=350, epochs=90, batch_size=256, first_last="same"),
        Job("resnet18", (), "imagenet", float_epochs=90, epochs=90, batch_size=256, first_last="same"),
        ("W2A2", "W3A3", "W4A4"),
        (0, 1, 2, 3, 4),
        (Job("mixnet_s", (), "imagenet", float_epochs=250, epochs=90, batch_size=256, first_last="same"),),
    ),
}  # fmt: skip


def config_jobs(profile: Profile) -> Iterator[Job]:
    """Tables 2 to 4: configurations 1 to 4 of every network at every precision, seed by seed."""
    for seed in profile.seeds:
        for network in profile.networks():
            for bits in profile.bits:
                for config in CONFIGS:
                    yield profile.at(network, bits, config=config, seed=seed)


def mixed_jobs(profile: Profile) -> Iterator[Job]:
    """Mixed precision: every allocation, trained like the uniform network that it is compared with."""
    for seed in profile.seeds:
        for name in profile.allocations:
            of, _, bits, *_ = name.split("-")
            network = next(network for network in profile.networks() if network.network == of)
            config = "1" if network is profile.relu else "4"
            yield replace(profile.at(network, bits.upper(), config=config, seed=seed), bits=f"{MIXED}{name}")


def baseline_jobs(profile: Profile) -> Iterator[Job]:
    """Table 4: PACT, DSQ and QIL on the ReLU network."""
    if profile.relu is None:
        return
    for seed in profile.seeds:
        for bits in profile.low_bits():
            for method in BASELINES:
                # Configuration 1: codes 0..p, which is how the three are defined behind a ReLU.
                yield profile.at(profile.relu, bits, config="1", method=method, seed=seed)


def init_jobs(profile: Profile) -> Iterator[Job]:
    """Table 5: three initialisations of configuration 4 on the SiLU network."""
    for seed in profile.seeds:
        for bits in profile.low_bits():
            for init in INITS:
                yield profile.at(profile.silu, bits, config="4", init=init, seed=seed)


def offset_jobs(profile: Profile) -> Iterator[Job]:
    """Table 6: the offset of configuration 4 fixed at 0, fixed at the minimum, learned."""
    for seed in profile.seeds:
        for bits in profile.low_bits():
            for mode in OFFSET_MODES:
                yield profile.at(profile.silu, bits, config="4", offset_mode=mode, seed=seed)


def padding_jobs(profile: Profile) -> Iterator[Job]:
    """The four padding policies of configuration 4 on the SiLU network."""
    for seed in profile.seeds:
        for bits in profile.low_bits():
            for policy in POLICIES:
                yield profile.at(profile.silu, bits, config="4", padding_policy=policy, seed=seed)
