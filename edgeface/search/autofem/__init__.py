"""Search of an AutoFEM genotype, the neck of ASFD; needs torch."""
