"""Small MACE models with random weights, saved as MACE saves them."""

import warnings

import numpy as np


def save_model(path, irreps="4x0e + 4x1o", numbers=(6, 14), seed=3):
    """Write a model of two layers and a cutoff of 4 Å in double precision."""
    with warnings.catch_warnings():  # of MACE's dependencies
        warnings.simplefilter("ignore")
        _save(path, irreps, numbers, seed)
    return path


def _save(path, irreps, numbers, seed):
    import torch
    from e3nn import o3
    from mace import modules
    from mace.tools import torch_tools

    torch.manual_seed(seed)
    with torch_tools.default_dtype("float64"):
        model = modules.ScaleShiftMACE(
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
            r_max=4.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(numbers),
            hidden_irreps=o3.Irreps(irreps),
            MLP_irreps=o3.Irreps("4x0e"),
            atomic_energies=np.zeros(len(numbers)),
            avg_num_neighbors=8.0,
            atomic_numbers=list(numbers),
            correlation=2,
            gate=torch.nn.functional.silu,
            radial_MLP=[8, 8],
        )
    torch.save(model, path)
