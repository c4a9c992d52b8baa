"""Import this where torch computes: the first exp, log or sqrt of a process is then as exact as
every later one.

torch calls MKL's vector functions from several threads, and MKL chooses its kernels while the first
such call runs. A second thread that enters meanwhile may be given the fast and coarse kernel
(relative error 1.5e-4 in place of 6e-8) for its share of that one call: pytorch/pytorch issue
188792. One number is computed by one thread, so nothing races.
"""

from __future__ import annotations

import torch

for function in (torch.exp, torch.log, torch.sqrt):
    function(torch.ones(1))
