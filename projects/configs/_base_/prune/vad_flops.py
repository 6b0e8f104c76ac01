# Every kind of unit and VAD's queries too: a fraction of the work of a frame.
_base_ = ['./vad.py']
prune_cfg = dict(
    units=[
        dict(type='BottleneckChannels'),
        dict(type='FPNChannels'),
        dict(type='DeformableHeads'),
        dict(type='SamplingPoints'),
        dict(type='AttentionHeads'),
        dict(type='FFNNeurons'),
        dict(type='BranchNeurons'),
        dict(type='ObjectQueries'),
        dict(type='MapQueries'),
        dict(type='MotionModes'),
    ],
    criterion=dict(
        _delete_=True,
        type='ByKind',
        default=dict(type='Taylor', order=1),
        kinds=dict(
            object_query=dict(type='Usage'),
            map_query=dict(type='Usage'),
            motion_mode=dict(type='Usage'),
        ),
    ),
    budget=dict(_delete_=True, type='flops', ratio=0.3),
)
