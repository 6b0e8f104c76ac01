"""A package ``projects`` as BEVFormer, UniAD and VAD have it."""
