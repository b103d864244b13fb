"""What makes a job of a library call: several processes, signals and exits. Nothing else touches these."""
