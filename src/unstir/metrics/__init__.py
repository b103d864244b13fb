"""What a trained run is worth, in figures: read `features`, `distances`, `figures`, `measure`, then `evaluation`."""
