"""What a run is: its config, its folder, its checkpoints, and the objects rebuilt from them."""
