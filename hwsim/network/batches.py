"""A network at a smaller batch: the same layers on fewer images, derived from shapes and loops alone.

Nothing is extracted anew, so saved workloads can be split as well. What does not see the batch (weights, tensors
that no batched input reaches) stays as it is. A network that mixes its images, or whose shapes do not tell the batch,
is refused by name.
"""

from __future__ import annotations

import dataclasses

from hwsim.errors import WorkloadError
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload


def batch_of(workload: Workload) -> int:
    """Images that the network works on at once: the first size of its first input.

    1 where that is a vector, and where a convolution says that it is no batch.
    """
    made = {layer.output.name for layer in workload}
    entering = [t for layer in workload for t in layer.inputs if t.name not in made]
    first = entering[0].shape[0] if entering and len(entering[0].shape) > 1 else 1
    return 1 if any(layer.op == "conv" and layer.loops.N % first for layer in workload) else first


def at_batch(workload: Workload, images: int) -> Workload:
    """The network on `images` of its batch. Raises WorkloadError naming what does not follow the batch."""
    batch = batch_of(workload)
    if not 1 <= images <= batch:
        raise WorkloadError(f"{workload.name}: expected 1 to {batch} images of its batch, got {images}")
    if images == batch:
        return workload
    smaller = Smaller(workload, batch, images)
    layers = [smaller.layer(layer) for layer in workload]
    found = Workload(workload.name, layers, workload.coverage, workload.notes, workload.identity)
    if found.macs * batch != workload.macs * images:
        raise WorkloadError(
            f"{workload.name}: {workload.macs:,} MACs of {batch} images, but {found.macs:,} of {images}: some layer "
            "does not follow the batch"
        )
    return found


class Smaller:
    """Layers of a network at another batch, in order of execution."""

    def __init__(self, workload: Workload, batch: int, images: int) -> None:
        self.batch, self.images = batch, images
        made = {layer.output.name for layer in workload}
        self.batched = {
            t.name for layer in workload for t in layer.inputs if t.name not in made and not t.shape[0] % batch
        }

    def layer(self, layer: Layer) -> Layer:
        """One layer; its output is batched where any operand is."""
        weight = layer.weight if layer.weight_is_activation else None
        read = [*layer.inputs, *([] if weight is None else [weight])]
        if not any(t.name in self.batched for t in read):
            return layer
        self.batched.add(layer.output.name)
        return dataclasses.replace(
            layer,
            inputs=tuple(self.tensor(t, layer) for t in layer.inputs),
            output=self.tensor(layer.output, layer),
            weight=layer.weight if weight is None else self.tensor(weight, layer),
            loops=self.loops(layer) if layer.has_macs else layer.loops,
        )

    def tensor(self, tensor: Tensor, layer: Layer) -> Tensor:
        """A tensor on fewer images: the batch leads its shape, perhaps with heads or tokens, or is one size alone."""
        if tensor.name not in self.batched:
            return tensor
        places = [i for i, n in enumerate(tensor.shape) if n == self.batch]
        leads = not tensor.shape[0] % self.batch
        if not leads and len(places) != 1:
            raise self.strange(layer, f"tensor {tensor.name} of shape {tensor.shape}")
        shape = list(tensor.shape)
        place = 0 if leads else places[0]
        shape[place] = self.share(shape[place])
        grouped = tensor.format is not None and tensor.scales > 1
        if grouped and tensor.scales % self.batch:
            raise self.strange(layer, f"tensor {tensor.name} with {tensor.scales} scales")
        scales = self.share(tensor.scales) if grouped else tensor.scales
        return dataclasses.replace(tensor, shape=tuple(shape), scales=scales)

    def loops(self, layer: Layer) -> Loops:
        """Loops on fewer images: the batch is N; of products of activations G, of rows of a matrix P."""
        loops = layer.loops
        if not loops.N % self.batch:
            return dataclasses.replace(loops, N=self.share(loops.N))
        # As many rows as images: the first size may be that of the rows (tokens), which such a product mixes.
        if layer.weight_is_activation and self.batch == loops.P:
            raise self.strange(layer, f"loops {loops.as_dict()}")
        if layer.weight_is_activation and not loops.G % self.batch:
            return dataclasses.replace(loops, G=self.share(loops.G))
        if layer.op != "conv" and not loops.P % self.batch:
            return dataclasses.replace(loops, P=self.share(loops.P))
        raise self.strange(layer, f"loops {loops.as_dict()}")

    def share(self, n: int) -> int:
        """So much of a size as `images` have of the batch."""
        return n // self.batch * self.images

    def strange(self, layer: Layer, what: str) -> WorkloadError:
        """What does not follow the batch."""
        return WorkloadError(f"layer {layer.name}: {what} does not follow the batch of {self.batch}, the first "
                             "size of the network's input")  # fmt: skip
