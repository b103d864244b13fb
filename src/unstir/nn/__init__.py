"""Networks that map (x_t, t) to a tensor of the same shape; independent of diffusion."""
