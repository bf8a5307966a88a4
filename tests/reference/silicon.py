"""Tersoff's silicon: a fast, published potential with internal relaxation."""

from ase.calculators.tersoff import Tersoff, TersoffParameters


def tersoff_silicon() -> Tersoff:
    """J. Tersoff, Phys. Rev. B 37, 6991 (1988)."""
    # fmt: off
    parameters = TersoffParameters(
        m=3.0, gamma=1.0, lambda3=1.3258, c=4.8381, d=2.0417, h=0.0, n=22.956, beta=0.33675,
        lambda2=1.3258, B=95.373, R=3.0, D=0.2, lambda1=3.2394, A=3264.7,
    )
    # fmt: on
    return Tersoff({("Si", "Si", "Si"): parameters})
