# The trained small VAD (ckpts/vad_nano_toy.pth) without 30 % of its parameters, retrained on a drive
# that it has not seen: tools/create_data.py toy --out data/toy_nuscenes_train/13 --seed 13 --scenes 10
# --image-size 320 180. Four scenes, as in VAD_nano_toy_prune0.3.py, are too few: it would forget.
_base_ = ['./VAD_nano_toy_train.py', '../_base_/prune/vad.py']
load_from = 'ckpts/vad_nano_toy.pth'
model = dict(auxiliary=[])
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                type='VADNuScenesDataset',
                data_root='data/toy_nuscenes_train/13',
                ann_file=f'vad_nuscenes_infos_temporal_{split}.pkl',
                pipeline=_base_.train_pipeline,
                classes=_base_.classes,
                queue_length=2,
                point_cloud_range=_base_.point_cloud_range,
            )
            for split in ('train', 'val')
        ],
    ),
)
# The planning losses of a trained model are small beside the others; without the weight its modules go
# first (error of the plan right after pruning: 3.20 m, with it 1.06 m, dense 1.15 m; one seed).
prune_cfg = dict(
    budget=dict(ratio=0.3),
    calibration=dict(num_samples=64, recalibrate_bn=32, loss_weights=dict(planning=10.0)),
    recovery=dict(epochs=2, lr=6e-5, warmup_iters=20),
)
