"""Dispersion as it is added to density functionals: D3 with Becke–Johnson damping.

S. Grimme, J. Antony, S. Ehrlich, H. Krieg, J. Chem. Phys. 132, 154104 (2010): coordination numbers,
C6 coefficients, three-body term. S. Grimme, S. Ehrlich, L. Goerigk, J. Comput. Chem. 32, 1456
(2011): the damping. Reference values and parameters of functionals are read from the installed
package ``dftd3``, whose numbers these are.

| | file |
|---|---|
| E = -Σ C₆ [s₆/(r⁶ + f⁶) + s₈ (C₈/C₆)/(r⁸ + f⁸)] | `d3.py` |
| E = Σ √(C₆ C₆ C₆) (3 cos α cos β cos γ + 1) f / (r r r)³ | `three_body.py` |
| sums over pairs of atoms | `blocks.py` |
| lattice translations within a cutoff | `images.py` |
| reference values, parameters of functionals | `library.py` |
| which dispersion a model has | `settings.py` |
"""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.dispersion.d3 import dispersion_energy
    from mace_scf_jax.dispersion.images import with_pair_images
    from mace_scf_jax.dispersion.settings import DispersionError, DispersionSettings

__all__ = ["DispersionError", "DispersionSettings", "dispersion_energy", "with_pair_images"]

__getattr__, __dir__ = imported_late(__name__, __file__)
