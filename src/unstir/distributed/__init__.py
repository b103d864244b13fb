"""One job by several processes: which of them this one is, what they exchange, and how one's death ends the others."""
