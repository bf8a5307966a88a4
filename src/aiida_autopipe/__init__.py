"""From a material and a goal to a validated machine-learned interatomic potential, with full
provenance.
"""

__version__ = "0.1.0"
