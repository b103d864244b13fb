"""The bounds of batches of images that several processes computed in turn, brought together in the first."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unstir.diffusion.likelihood import Bound
from unstir.distributed import processes


def bounds_to_first(own: list[Bound], lengths: Sequence[int], terms: int) -> list[Bound]:
    """The bounds of all batches, by their numbers, in the first process; in the others their ``own``.

    ``lengths`` are the numbers of images of all batches, which the processes compute in turn; each image has so many
    ``terms``. The tensors are laid out anew as they were computed, so that sums over them have the same last bits.
    """
    size = processes.size()
    if size == 1:
        return own
    turns = [range(rank, len(lengths), size) for rank in range(size)]
    rows = [torch.cat((each.prior[:, None], each.decoder[:, None], each.terms), 1) for each in own]
    drawn = [torch.stack((torch.tensor(each.times, dtype=torch.float64), each.weights))[None] for each in own]
    none = torch.empty(0, terms + 2, dtype=torch.float64), torch.empty(0, 2, terms, dtype=torch.float64)
    images = [sum(lengths[number] for number in turn) for turn in turns]
    all_rows = processes.rows_to_first(torch.cat((none[0], *rows)), images)
    all_drawn = processes.rows_to_first(torch.cat((none[1], *drawn)), [len(turn) for turn in turns])
    if not processes.is_first():
        return own
    numbers = [number for turn in turns for number in turn]
    parts = torch.split(all_rows, [lengths[number] for number in numbers])
    found = {}
    for number, part, (times, weights) in zip(numbers, parts, all_drawn, strict=True):
        prior, decoder, columns, weights = map(_laid_out, (part[:, 0], part[:, 1], part[:, 2:], weights))
        found[number] = Bound(prior, columns, decoder, tuple(times.long().tolist()), weights, own[0].dims)
    return [found[number] for number in range(len(lengths))]


def _laid_out(tensor: Tensor) -> Tensor:
    """A copy whose numbers follow each other in memory of its own."""
    return tensor.clone(memory_format=torch.contiguous_format)
