# The base model's sizes: a larger BEV, all levels of the pyramid, twice the layers.
_base_ = ['./vad.py']
bev = 200
layers = 6
levels = 4

model = dict(
    input_shape=(6, 736, 1280),
    img_backbone=dict(out_indices=(1, 2, 3)),
    img_neck=dict(in_channels=[512, 1024, 2048], num_outs=levels),
    pts_bbox_head=dict(
        bev_h=bev,
        bev_w=bev,
        positional_encoding=dict(row_num_embed=bev, col_num_embed=bev),
        transformer=dict(
            encoder=dict(
                num_layers=layers,
                layer=dict(cross_attn=dict(deformable_attention=dict(num_levels=levels))),
            ),
            decoder=dict(num_layers=layers),
            map_decoder=dict(num_layers=layers),
        ),
    ),
)
