"""The parts of `against.py`: this project and its peers set to the same work, timed in turns, and written as tables.

`sizes` is what they share, `ours`, `of_diffusers` and `of_lucidrains` are the three sides, each importing its own
package alone. `parts` puts them next to each other; `timing`, `machine` and `tables` measure and write. `judges` says
what the networks and images of any side are worth, and `kept` holds settings and results; other benchmarks share them.
"""
