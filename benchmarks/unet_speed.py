"""Our U-Net against diffusers' UNet2DModel: time of a training step and of a forward pass, as ratios.

    python benchmarks/unet_speed.py                          # two small networks, about a minute on two cores
    python benchmarks/unet_speed.py --sizes ho --rounds 3    # Ho et al.'s network, about two minutes
    OMP_NUM_THREADS=1 python benchmarks/unet_speed.py --cpu-time    # steadier where others use the machine
    python benchmarks/unet_speed.py --sizes tiny --device cuda --compile

Both networks have the same shape and do the same work, in one process and in turns, and medians are compared: the times
themselves drift with the machine's load, their ratio hardly does. A training step is noising, forward, backward,
clipping at norm 1 and AdamW (fused for both: the networks are compared, not the optimisers), with each network's own
dropout. A ratio above 1 is the factor by which ours is faster.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import diffusers
import torch
from torch import Tensor, nn

from unstir.nn.config import UNetConfig
from unstir.nn.unet import UNet
from unstir.randomness import Key

SIZES = {  # config, height and width, batch
    "tiny": (UNetConfig(channels=32, mults=(1, 2, 2), attention=(1,)), 16, 64),
    "small": (UNetConfig(channels=32, mults=(1, 2, 2, 2), attention=(1,)), 32, 32),
    "ho": (UNetConfig(), 32, 16),
    "report": (UNetConfig(mults=(1, 2, 3, 4), attention=(2,), dropout=0.15), 32, 16),
}
Call = Callable[[Tensor, Tensor, int], Tensor]  # of x, t and the number of the step
Step = Callable[[], object]


def peer(config: UNetConfig) -> nn.Module:
    """The network of diffusers that has the same shape, with one head."""
    levels = range(len(config.mults))
    return diffusers.UNet2DModel(
        freq_shift=config.freq_shift,
        flip_sin_to_cos=config.flip_sin_to_cos,
        down_block_types=tuple("AttnDownBlock2D" if i in config.attention else "DownBlock2D" for i in levels),
        up_block_types=tuple("AttnUpBlock2D" if i in config.attention else "UpBlock2D" for i in reversed(levels)),
        block_out_channels=config.widths,
        layers_per_block=config.num_blocks,
        downsample_padding=config.downsample_padding,
        dropout=config.dropout,
        attention_head_dim=None,
        norm_num_groups=config.groups,
        norm_eps=config.norm_eps,
    )


def trainer(net: nn.Module, call: Call, x_0: Tensor, autocast: bool) -> Step:
    """A training step of the network, as a function of nothing."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    counter = itertools.count()
    device = x_0.device

    def step() -> None:
        t = torch.randint(0, 1000, (len(x_0),), device=device)
        eps = torch.randn_like(x_0)
        abar = (1 - t / 1000).view(-1, 1, 1, 1)
        x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            raw = call(x_t, t, next(counter))
        (raw.float() - eps).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=True)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def sampler(call: Call, x: Tensor, dtype: torch.dtype) -> Step:
    """A forward pass without gradients, as a function of nothing."""
    t = torch.full((len(x),), 500, device=x.device)

    def forward() -> None:
        with torch.inference_mode():
            call(x.to(dtype), t, 0)

    return forward


def medians(
    calls: dict[tuple[str, int], Step], rounds: int, device: torch.device, cpu_time: bool
) -> dict[tuple[str, int], float]:
    """Median seconds of each call, the calls taking turns."""
    clock = time.process_time if cpu_time else time.perf_counter
    times: dict[tuple[str, int], list[float]] = {name: [] for name in calls}
    for name, call in [*calls.items()] * (rounds + 1):  # the first round warms up
        start = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def build(size: str, device: torch.device, compiled: bool, channels_last: bool) -> tuple[UNet, nn.Module, Call, Call]:
    """Both networks of a size and how to call them."""
    torch.manual_seed(0)
    config, _, batch = SIZES[size]
    slots = torch.arange(batch, device=device)
    net, other = UNet(config).to(device), peer(config).to(device)
    for module in (net, other):
        if channels_last:
            module.to(memory_format=torch.channels_last)
        if compiled:
            module.compile()
    return (
        net,
        other,
        lambda x, t, step: net(x, t, dropout_key=Key(0, "dropout", step, slots)),
        lambda x, t, step: other(x, t, return_dict=False)[0],
    )


def compare(size: str, args: argparse.Namespace) -> list[tuple[str, float, float]]:
    """Rows of (what, our seconds, their seconds) for one size."""
    device = torch.device(args.device)
    config, side, batch = SIZES[size]
    net, other, ours, theirs = build(size, device, args.compile, args.channels_last)
    x = torch.randn(batch, config.in_channels, side, side, device=device)
    calls = {}
    for dtype in (torch.float32, torch.bfloat16):
        low = dtype == torch.bfloat16
        name = "bfloat16 autocast" if low else "float32"
        calls[f"train {name}"] = trainer(net, ours, x, low), trainer(other, theirs, x, low)
    rows = timed(calls, args)
    net.eval()
    other.eval()
    for dtype in (torch.float32, torch.bfloat16):
        net.to(dtype)
        other.to(dtype)
        name = f"forward {str(dtype).removeprefix('torch.')} weights"
        rows += timed({name: (sampler(ours, x, dtype), sampler(theirs, x, dtype))}, args)
    return rows


def timed(calls: dict[str, tuple[Step, Step]], args: argparse.Namespace) -> list[tuple[str, float, float]]:
    """A row for each pair of calls, all of them taking turns."""
    flat = {(name, who): pair[who] for name, pair in calls.items() for who in range(2)}
    result = medians(flat, args.rounds, torch.device(args.device), args.cpu_time)
    return [(name, result[name, 0], result[name, 1]) for name in calls]


def main() -> None:
    """Print one table a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "small"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="time of the processor, not of the wall")
    args = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    for size in args.sizes:
        config, side, batch = SIZES[size]
        print(f"\n{size}: channels {config.widths}, {side}x{side}, batch {batch}, {args.device}")
        print(f"{'':28}{'ours ms':>10}{'theirs ms':>11}{'ratio':>8}")
        for what, mine, other in compare(size, args):
            print(f"{what:28}{mine * 1e3:10.1f}{other * 1e3:11.1f}{other / mine:8.2f}")


if __name__ == "__main__":
    main()
