"""Networks that map (x_t, t) to a tensor of the same shape; independent of diffusion."""

from typing import TYPE_CHECKING, Any

from unstir.nn.config import UNetConfig

if TYPE_CHECKING:
    from unstir.nn.unet import UNet, flops

__all__ = ["UNet", "UNetConfig", "flops"]


def __getattr__(name: str) -> Any:
    """Import torch, which takes a second, only when a network is needed: the command line needs only configs."""
    if name in ("UNet", "flops"):
        from unstir.nn import unet

        return getattr(unet, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
