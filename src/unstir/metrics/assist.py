"""Features of images computed by several processes, of which the first measures and the others compute for it.

A `Shared` network of the first process sends the images, and each process computes a share of the batches, the same
ones that one process alone would compute. Whatever else the first does may depend on files and on what it finds, for
the others do nothing but wait to be asked (`serve`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from unstir.distributed import processes
from unstir.metrics import classifier
from unstir.metrics.features import BATCH, Network, Outputs
from unstir.progress import Progress


class Shared(Network):
    """The first process's handle to a network that all processes have, as the ``number``-th of theirs."""

    def __init__(self, network: Network, number: int) -> None:
        self._network, self._number = network, number
        self.name, self.hash, self.trust = network.name, network.hash, network.trust
        self.titles = network.titles  # type: ignore[misc]  # of its class

    def outputs(
        self, images: Tensor, index: Tensor | None = None, batch_size: int = BATCH, progress: Progress | None = None
    ) -> Outputs:
        """As those of the network; all processes compute them."""
        images = images if index is None else images[index]
        self._network.outputs(images[:1], batch_size=batch_size)  # which refuses what the others could not compute
        processes.of_first({"network": self._number, "batch_size": batch_size})
        processes.tensors_of_first({"images": images})
        return _outputs(self._network, images, batch_size, progress)


def networks_of_first(networks: Sequence[Network], load: Callable[[], Network]) -> Sequence[Network]:
    """The first process's networks in all of them; what the others give is not looked at.

    The classifier's weights are sent; a network of another name each of the others gets by ``load()``. Raises UserError
    in all where its weights are not the first one's.
    """
    found = list[Network]()
    for number, name in enumerate(processes.of_first([network.name for network in networks])):
        own = networks[number] if processes.is_first() else None
        if name == classifier.Classifier.name:
            assert own is None or isinstance(own, classifier.Classifier)
            found.append(classifier.of_first(own))
        else:
            found.append(_loaded(own, load))
    processes.agree({network.name: network.hash for network in found}, "give all the same file of weights")
    return found


def _loaded(own: Network | None, load: Callable[[], Network]) -> Network:
    """A network that each process has, or loads, by itself; where one cannot, all end with the status of a mistake."""
    return processes.made_by_all(lambda: own or load())


@contextmanager
def assisted(networks: Sequence[Network]) -> Iterator[Sequence[Network]]:
    """The same networks for the first process, in a block in which the others `serve` them."""
    if processes.size() == 1:
        yield networks
        return
    yield [Shared(network, number) for number, network in enumerate(networks)]
    processes.of_first({"network": None})


def serve(networks: Sequence[Network]) -> None:
    """Compute for the first process until it leaves its block of `assisted`."""
    while (asked := processes.of_first({"network": 0, "batch_size": 0}))["network"] is not None:
        images = processes.tensors_of_first({})["images"]
        _outputs(networks[asked["network"]], images, asked["batch_size"], None)


def _outputs(network: Network, images: Tensor, batch_size: int, progress: Progress | None) -> Outputs:
    """The outputs for all images in the first process, and for its own share of them in each of the others."""
    num, batches = processes.size(), -(-len(images) // batch_size)
    ends = [min(-(-batches * rank // num) * batch_size, len(images)) for rank in range(num + 1)]
    own = images[ends[processes.rank()] : ends[processes.rank() + 1]]
    features, logits = torch.empty(0, dtype=torch.float64), None
    if len(own):  # as that of the first always has
        tell = progress and (lambda done, total: progress(done * len(images) // total, len(images)))
        features, logits = network.outputs(own, batch_size=batch_size, progress=tell)
    lengths = [end - begin for begin, end in pairwise(ends)]
    features = processes.rows_to_first(features, lengths)
    return Outputs(features, None if logits is None else processes.rows_to_first(logits, lengths))
