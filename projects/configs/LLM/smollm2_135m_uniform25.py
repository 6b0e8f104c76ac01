# The same widths in every layer, multiples of 64 channels: a folder that any program for Llama loads.
_base_ = './smollm2_135m_global25.py'
prune_cfg = dict(units=[dict(type='FFNNeurons')], allocator=dict(type='Uniform'), round_to=64)
