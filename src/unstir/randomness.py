"""Every random number of the package, a function of (seed, stream, step, slot) and of nothing else.

No generator state exists, so none can be lost, restored wrongly or shared by mistake. A *stream* names a use ("noise",
"dropout", "sample"), a *step* is the optimiser step or the diffusion time, and a *slot* is the place in the global
batch or the index of the image. Two processes that split a batch between them therefore draw the numbers that one
process would have drawn, and an image comes out the same in whatever batch it is computed.

    training    time, noise, perturbation, dropout ...        the optimiser step; the place in the global batch
                order                                          the epoch; an order of all images (`Order`)
    held-out    watched loss, watched bound, watched steps     the time or the number of the call; the image
    sampling    start, sample, inpaint ...                     the diffusion time; the index of the image
    likelihood  likelihood, likelihood times                   the diffusion time or the number of the call; the image

The generator is SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"): number i of a
slot is ``mix64(start + i * gamma)`` where both ``start`` and the odd ``gamma`` are hashed from the four coordinates.
It is written in integer tensor operations, so its bits are the same on every device.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

VERSION = 1  # grows when the same key gives other numbers; checkpoints record it, for a continued run would differ

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of SplitMix64
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # "variant 13" of the 64-bit finaliser
_SHIFTS = (30, 27, 31)
LISTED = 1 << 20  # an order of at most so many is a list of them all; a part of a longer one is computed by itself
_ROUNDS = 8  # of the Feistel network that orders more
_BLOCK = 1 << 17  # numbers mixed at once on a CPU: 1 MiB, so that the ten passes of `mix64` stay in the cache


@dataclass(frozen=True)
class Key:
    """Names random numbers of a stream by integers ``seed`` and ``step``, for ``slots``, int64 [B], on a device."""

    seed: int
    stream: str
    step: int
    slots: Tensor

    def __post_init__(self) -> None:
        if self.slots.dtype != torch.int64 or self.slots.ndim != 1:
            raise ValueError(f"slots must be int64 [B], not {self.slots.dtype} {list(self.slots.shape)}")

    def __getitem__(self, part: slice) -> "Key":
        """The same numbers for a part of the batch: ``key[8:16]`` draws what slots 8 to 15 draw."""
        return Key(self.seed, self.stream, self.step, self.slots[part])


def bits(key: Key, n: int) -> Tensor:
    """64 random bits in each of n numbers a slot: int64 [B, n], every value equally likely."""
    start, gamma = _start_and_gamma(key)
    index = torch.arange(1, n + 1, device=start.device)
    out = torch.empty(len(start), n, dtype=torch.int64, device=start.device)
    rows = max(1, _BLOCK // max(n, 1)) if start.device.type == "cpu" else max(1, len(start))
    work = torch.empty(min(rows, len(start)), n, dtype=torch.int64, device=start.device)
    for first in range(0, len(start), rows):
        block = out[first : first + rows]
        torch.mul(index, gamma[first : first + rows, None], out=block)
        block.add_(start[first : first + rows, None])
        _mix64_(block, work[: len(block)])
    return out


def normal(key: Key, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float32 [B, *shape], by the Box-Muller transform of 32-bit uniforms (|z| <= 6.67)."""
    n = math.prod(shape)
    pairs = bits(key, (n + 1) // 2)
    uniform = (pairs & 0xFFFFFFFF).float().add_(1.0).mul_(2.0**-32)  # (0, 1], so that its logarithm is finite
    radius = uniform.log_().mul_(-2.0).sqrt_()
    angle = (pairs >> 32).float().mul_(2 * math.pi * 2.0**-32)
    both = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
    return both[:, :n].reshape(-1, *shape)


def integers(key: Key, low: int, high: int) -> Tensor:
    """One integer a slot, uniform on low..high with both ends included (to within 2^-32): int64 [B]."""
    return low + (_upper(key) * (high - low + 1) >> 32)


def uniform(key: Key, dtype: torch.dtype = torch.float32) -> Tensor:
    """One number a slot, uniform on [0, 1): [B], in steps of 2^-24 for float32 and of 2^-53 for float64."""
    if dtype == torch.float64:
        return (bits(key, 1)[:, 0] >> 11 & (1 << 53) - 1).double() * 2.0**-53
    return (_upper(key) >> 8).float() * 2.0**-24


def coin(key: Key, probability: float) -> Tensor:
    """One event a slot that is true with the given probability in [0, 1] (to within 2^-33): bool [B]."""
    return _upper(key) < round(probability * 2**32)


def kept(key: Key, n: int, dropout: float) -> Tensor:
    """The n elements a slot that dropout keeps: bool [B, n], each true with 1 - dropout to within 2^-17.

    One key gives the same numbers each time: ask once for all masks of a step, and split them. Nothing is scaled:
    multiply by the mask and divide by 1 - ``dropout``.
    """
    lanes = bits(key, (n + 3) // 4).view(torch.int16)[:, :n]
    return lanes >= round(dropout * 65536) - 32768


def permutation(seed: int, stream: str, step: int, n: int) -> Tensor:
    """A random order of 0..n-1: int64 [n] on the CPU, a function of its arguments alone."""
    return torch.argsort(bits(Key(seed, stream, step, torch.zeros(1, dtype=torch.int64)), n)[0], stable=True)


@dataclass(frozen=True)
class Order:
    """A random order of 0..n-1, a function of its fields; ``order[places]`` is what stands there, int64 on the CPU.

    Up to `LISTED` it is `permutation`. A longer one is a bijection of the places, so that neither time nor memory grows
    with n: a Feistel network (Luby & Rackoff 1988, "How to construct pseudorandom permutations") over the next power
    of two, applied again wherever it leaves 0..n-1 (fewer than twice on average).
    """

    seed: int
    stream: str
    step: int
    n: int

    def __getitem__(self, places: slice) -> Tensor:
        if self.n <= LISTED:
            return permutation(self.seed, self.stream, self.step, self.n)[places]
        found = self._mixed(torch.arange(*places.indices(self.n)))
        while len(beyond := torch.nonzero(found >= self.n)[:, 0]):
            found[beyond] = self._mixed(found[beyond])
        return found

    def _mixed(self, x: Tensor) -> Tensor:
        """A bijection of 0..2^b-1, b the bits of n - 1: each half in turn changes by a random function of the other."""
        low = (self.n - 1).bit_length() // 2
        sizes = (low, (self.n - 1).bit_length() - low)
        halves = [x & (1 << low) - 1, x >> low]
        for number in range(_ROUNDS):
            changed, by = number % 2, halves[1 - number % 2]
            mask = bits(Key(self.seed, f"{self.stream} round {number}", self.step, by), 1)[:, 0]
            halves[changed] = halves[changed] ^ (mask & (1 << sizes[changed]) - 1)
        return halves[0] | halves[1] << low


def derive_seed(seed: int, stream: str) -> int:
    """A 63-bit seed for a generator that is not ours (the initial weights are drawn by torch.nn.init)."""
    return _mix64(_mix64(seed & _MASK64) ^ stream_id(stream)) >> 1


def _upper(key: Key) -> Tensor:
    """The upper 32 bits of one number a slot, as int64 [B] in 0..2^32-1; whole numbers are the same on every device."""
    return (bits(key, 1)[:, 0] >> 32) & 0xFFFFFFFF


def _start_and_gamma(key: Key) -> tuple[Tensor, Tensor]:
    """Per slot the first state and the odd increment of its SplitMix64 stream: int64 [B] each."""
    base = _mix64(_mix64(_mix64(key.seed & _MASK64) ^ stream_id(key.stream)) ^ (key.step & _MASK64))
    start = key.slots * _signed(_GOLDEN) + _signed(base)
    _mix64_(start, torch.empty_like(start))
    gamma = start ^ _signed(_mix64(base))
    _mix64_(gamma, torch.empty_like(gamma))
    return start, gamma | 1


def _mix64_(x: Tensor, work: Tensor) -> None:
    """SplitMix64's output function in place, on int64 whose arithmetic wraps; `work` is scratch of x's shape."""
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        torch.bitwise_right_shift(x, shift, out=work)
        work.bitwise_and_((1 << (64 - shift)) - 1)  # torch shifts arithmetically; this makes the shift logical
        x.bitwise_xor_(work)
        if multiplier != 1:
            x.mul_(_signed(multiplier))


def _mix64(x: int) -> int:
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        x = ((x ^ (x >> shift)) * multiplier) & _MASK64
    return x


def _signed(x: int) -> int:
    """The int64 that has the same bits as a 64-bit unsigned integer."""
    x &= _MASK64
    return x - (1 << 64) if x >> 63 else x


@cache
def stream_id(stream: str) -> int:
    """The number that stands for a stream in its keys, of 64 bits."""
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
