"""The U-Net of denoising diffusion (Ho et al. 2020, appendix B), in the structure of diffusers' UNet2DModel.

Down the levels a stack of residual blocks at each resolution, in the middle block - attention - block, and up again
with one more block per level, each taking the output of its counterpart down as well as its own input. The time
(and the class, or the vector that describes an image) enters every residual block; an image that describes another is
joined to x_t.
"""

import math
from itertools import repeat
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from unstir import randomness
from unstir.errors import UserError
from unstir.nn.blocks import Attention, Downsample, GroupNorm, Level, ResBlock, TimeEmbedding, Upsample
from unstir.nn.config import AUGMENTATION, UNetConfig
from unstir.parts import network


class UNet(nn.Module):
    """A network F(x_t, t): images [B, C, H, W] and times [B] to [B, out_channels, H, W].

    Its weights are drawn from torch's global generator: fork and seed that around the call for reproducible ones.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self._multiple = config.multiple  # once: torch.compile cannot follow a property that asks super()
        first, last = config.widths[0], config.widths[-1]
        self.time = TimeEmbedding(first, config.freq_shift, config.flip_sin_to_cos, config.time_table)
        self.label = nn.Embedding(config.num_classes, 4 * first) if config.num_classes else None
        self.augment = nn.Linear(len(AUGMENTATION), 4 * first, bias=False) if config.augmented else None
        self.vector = _perceptron(config.condition_size, 4 * first) if config.condition_values else None
        inputs = config.in_channels + (config.condition_size if config.condition_channels else 0)
        self.input_conv = nn.Conv2d(inputs, first, 3, padding=1, padding_mode=config.padding)
        down, skips = _levels_down(config)
        self.down = cast("list[Level]", nn.ModuleList(down))
        blocks = [ResBlock(config, last, last), ResBlock(config, last, last)]
        self.middle = Level(blocks, [Attention(config, last), nn.Identity()], None)
        self.up = cast("list[Level]", nn.ModuleList(_levels_up(config, skips)))
        self.output_norm = GroupNorm(config.groups, first, config.norm_eps)
        outputs = config.out_channels or config.in_channels
        self.output_conv = nn.Conv2d(first, outputs, 3, padding=1, padding_mode=config.padding)
        _initialise(self)

    def checkpoint_activations(self, levels: int) -> None:
        """Have the backward pass recompute so many levels, from full resolution down; the middle goes with the last."""
        for number, level in self.numbered():
            level.checkpointed = number < levels

    def numbered(self) -> list[tuple[int, Level]]:
        """The levels in order of execution, each with its number: how often the height was halved."""
        last = len(self.config.mults) - 1
        numbers = (*range(last + 1), last, *range(last, -1, -1))
        return list(zip(numbers, (*self.down, self.middle, *self.up), strict=True))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
        *,
        dropout_key: randomness.Key | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """F(x, t): float [B, C, H, W] to [B, out_channels, H, W] in the type of x.

        ``t`` is int64 [B], the network's time 0..T-1; ``condition``, given exactly if the config has one, is a class,
        int64 [B] in 0..num_classes-1, a vector, float [B, K + 1], or an image, float [B, C' + 1, H, W]; the last number
        or channel of these is 1, and all are 0 where the condition is hidden. ``dropout_key`` names the dropout masks
        of this pass and has a slot for each image; it is required in training mode if dropout > 0, and without effect
        otherwise. ``augmentation``, float [B, 7], says how each image was augmented, for a network with that input;
        None is zeros, no augmentation.

        Raises UserError where images or conditions do not fit the network, ValueError where t or the key is wrong.
        """
        self._check(x, t, condition, augmentation)
        keep = iter(self._dropout_masks(x, dropout_key)) if self.training and self.config.dropout else repeat(None)
        time = self._embedding(t, condition, augmentation)
        if self.config.condition_channels and condition is not None:
            x = torch.cat((x, condition.to(x.dtype)), 1)
        h = self.input_conv(x.to(self.input_conv.weight.dtype))
        skips = [h]
        for level in self.down:
            for stage in level.stages():
                h = level.run(stage, time, next(keep), h)
                skips.append(h)
            if level.resize is not None:
                h = level.run(level.resize, h)
                skips.append(h)
        for stage in self.middle.stages():
            h = self.middle.run(stage, time, next(keep), h)
        for level in self.up:
            for stage in level.stages():
                h = level.run(stage, time, next(keep), h, skips.pop())
            if level.resize is not None:
                h = level.run(level.resize, h, skips[-1])
        out: Tensor = self.output_conv(nn.functional.silu(self.output_norm(h)))
        return out.to(x.dtype)

    def _embedding(self, t: Tensor, condition: Tensor | None, augmentation: Tensor | None) -> Tensor:
        """SiLU of what the network knows of time, condition and augmentation, once for all blocks: [B, D]."""
        time: Tensor = self.time(t)
        if self.label is not None and not self.config.label_beside:
            time = time + self.label(condition)
        if self.vector is not None and condition is not None:
            time = time + self.vector(condition.to(next(self.vector.parameters()).dtype))
        if self.augment is not None and augmentation is not None:
            time = time + self.augment(augmentation.to(self.augment.weight.dtype))
        if self.label is not None and self.config.label_beside:
            time = torch.cat((time, self.label(condition)), dim=1)
        return nn.functional.silu(time)

    def _check(self, x: Tensor, t: Tensor, condition: Tensor | None, augmentation: Tensor | None) -> None:
        """Refuse what does not fit, by shapes and types only: reading values would wait for the device."""
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_channels:
            raise UserError("x", list(x.shape), f"must be [B, {config.in_channels}, H, W], by in_channels")
        multiple = self._multiple
        if any(side != 1 and side % multiple for side in x.shape[2:]):
            levels = f"must have sides that are 1 or multiples of {multiple}, for {len(config.mults)} levels"
            raise UserError("x", list(x.shape), levels, "resize or crop the images, or use fewer mults")
        if t.shape != x.shape[:1] or t.is_floating_point():
            raise ValueError(f"t must be integers of shape [{len(x)}], not {t.dtype} {list(t.shape)}")
        if augmentation is not None and augmentation.shape != (len(x), len(AUGMENTATION) * config.augmented):
            takes = f"[{len(x)}, {len(AUGMENTATION)}]" if config.augmented else "none"
            raise ValueError(f"augmentation is of shape {list(augmentation.shape)}; this network takes {takes}")
        self._check_condition(x, condition)

    def _check_condition(self, x: Tensor, condition: Tensor | None) -> None:
        """Refuse a condition that the network does not know, and the lack of one that it needs."""
        config = self.config
        if condition is None and config.condition_size:
            raise UserError("condition", None, "is needed for each image by this network")
        if condition is None:
            return
        if not config.condition_size:
            raise UserError("condition", None, "was given, but this network knows none", {"condition": None})
        tail = (config.condition_size, *(x.shape[2:] if config.condition_channels else ()))
        due = x.shape[:1] if config.num_classes else (x.shape[0], *tail)
        if condition.shape != due or condition.is_floating_point() == (config.num_classes > 0):
            kind = "integers" if config.num_classes else "floating point"
            given = f"{condition.dtype} {list(condition.shape)}"
            raise ValueError(f"condition must be {kind} of shape {list(due)}, not {given}")

    @_disable_dynamo  # as torch.compiler.disable, which takes a second more to import
    def _dropout_masks(self, x: Tensor, key: randomness.Key | None) -> list[Tensor]:
        """For each residual block in order of execution what dropout keeps, bool [B, C_block, H_block, W_block].

        All of them are columns of one draw. A key changes at every step: traced, it would be recompiled each time, so
        `torch.compile` leaves this part out.
        """
        if key is None:
            raise ValueError(
                f"training mode with dropout={self.config.dropout} draws random masks; pass dropout_key, or call eval()"
            )
        if len(key.slots) != len(x):
            raise ValueError(f"dropout_key has {len(key.slots)} slots for {len(x)} images; give it one for each image")
        shapes = [
            (block.out_channels, max(x.shape[2] >> number, 1), max(x.shape[3] >> number, 1))
            for number, level in self.numbered()
            for block in level.blocks
        ]
        sizes = [math.prod(shape) for shape in shapes]
        columns = torch.split(randomness.kept(key, sum(sizes), self.config.dropout), sizes, dim=1)
        # Each a tensor of its own: the backward pass lets go of one after the other.
        copies = [part.clone(memory_format=torch.contiguous_format) for part in columns]
        return [part.view(-1, *shape) for part, shape in zip(copies, shapes, strict=True)]


@network
def unet(in_channels: int, out_channels: int, num_labels: int, **settings: Any) -> UNet:
    """The U-Net of these ``settings`` (`UNetConfig`), which say of what kind ``num_labels`` are."""
    return UNet(UNetConfig(in_channels=in_channels, out_channels=out_channels, **settings))


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))


def _attention_or_identity(config: UNetConfig, level: int) -> nn.Module:
    return Attention(config, config.widths[level]) if level in config.attention else nn.Identity()


def _levels_down(config: UNetConfig) -> tuple[list[Level], list[int]]:
    """The levels from full resolution down, and the channels of the skips that they leave for the levels up."""
    levels: list[Level] = []
    width = config.widths[0]
    size = 3 if config.layout == "ho" else 5
    skips = [width]  # of the input convolution
    for i, out in enumerate(config.widths):
        blocks = [ResBlock(config, width if n == 0 else out, out) for n in range(config.num_blocks)]
        attentions = [_attention_or_identity(config, i) for _ in blocks]
        last = i == len(config.widths) - 1
        resize = None if last else Downsample(out, config.downsample_padding, size, config.padding)
        levels.append(Level(blocks, attentions, resize))
        skips += [out] * (config.num_blocks if last else config.num_blocks + 1)
        width = out
    return levels, skips


def _levels_up(config: UNetConfig, skips: list[int]) -> list[Level]:
    """The levels from the lowest resolution up; each block takes the last of the skips still waiting."""
    levels: list[Level] = []
    width, waiting, ho = config.widths[-1], list(skips), config.layout == "ho"
    for i, out in reversed(list(enumerate(config.widths))):
        blocks = []
        for _ in range(config.num_blocks + 1):
            blocks.append(ResBlock(config, width + waiting.pop(), out))
            width = out
        attentions = [_attention_or_identity(config, i) if ho else nn.Identity() for _ in blocks]
        levels.append(Level(blocks, attentions, Upsample(out, not ho, config.padding) if i else None))
    return levels


def _initialise(net: UNet) -> None:
    """Uniform weights of variance 2 / (fan_in + fan_out) and zero biases; zero where a residual branch ends.

    This is Ho et al.'s initialisation, whose "zero" is 1e-10. It is called once, for the whole network, so that no
    enclosing module can undo the zeros.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.2)  # as the time embedding's, as initialised
    for module in net.modules():
        if isinstance(module, Attention):
            for part in module.qkv.weight.chunk(3):  # q, k and v as matrices of their own
                nn.init.xavier_uniform_(part)
            nn.init.zeros_(module.out.weight)
        elif isinstance(module, ResBlock):
            nn.init.zeros_(module.second_conv.weight)
    nn.init.zeros_(net.output_conv.weight)
