"""A world that tries to break Waystation: seeded, from outside, against real processes.

``plan`` makes from a seed who acts and what goes wrong; ``profiles`` say who takes part: sessions, or money.
``world`` has the processes, ``proxy`` the wires between them. ``actors`` and ``agents`` act and note what
they saw; ``faults`` strike. ``oracle`` knows the promises of the documentation, and judges from what was
noted and what can be read at the end. ``shrink`` finds the smallest plan that still fails.
"""
