"""Train a denoising diffusion model on images, sample from it, and understand every step."""
