# Soft pruning: twelve epochs of the dense model, then three times twelve in which heads, neurons and
# channels fade out and go, 30 % in all.
_base_ = ['./VAD_nano_toy.py', '../_base_/prune/ticket_rsst.py']
train_cfg = dict(type='IterativePruneLoop')
prune_cfg = dict(
    units=[
        dict(type='BottleneckChannels'),
        dict(type='DeformableHeads'),
        dict(type='AttentionHeads'),
        dict(type='FFNNeurons'),
    ],
    criterion=dict(normalize='mean'),
    budget=dict(ratio=0.3),
    schedule=dict(rounds=3, rewind=None),
    penalty=dict(strength=30.0),
)
