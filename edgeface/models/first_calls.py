"""Import this where torch computes: it makes a first exp, log or sqrt as exact as later ones.

torch calls MKL's vector functions from several threads, and MKL chooses its kernels while the first
such call runs. A second thread that enters meanwhile may get the fast and coarse kernel (relative
error 1.5e-4 instead of 6e-8) for its share of that one call: pytorch/pytorch issue 188792. The
calls made here compute one number each, so only one thread runs and nothing races.
"""

from __future__ import annotations

import torch

for function in (torch.exp, torch.log, torch.sqrt):
    function(torch.ones(1))
