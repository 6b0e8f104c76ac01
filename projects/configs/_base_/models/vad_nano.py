# A small VAD for two CPU cores: a thin ResNet-18 to stride 16, images of 320 x 180, a BEV of 40 x 20
# cells of 1.5 m, two layers everywhere. The ego starts from its last two offsets.
_base_ = ['./vad.py']

dims = 96
neurons = 192
bev_h, bev_w = 40, 20
layers = 2
attention = dict(embed_dims=dims, dropout=0.0)
sizes = dict(**attention, feedforward_channels=neurons)
look_at_bev = dict(**sizes, cross_attn=attention)
model = dict(
    use_grid_mask=False,
    input_shape=(6, 192, 320),
    img_backbone=dict(
        depth=18,
        base_channels=32,
        stem_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    img_neck=dict(in_channels=[128], out_channels=dims),
    pts_bbox_head=dict(
        bev_h=bev_h,
        bev_w=bev_w,
        embed_dims=dims,
        num_query=60,
        map_num_vec=30,
        ego_his_encoder=True,
        positional_encoding=dict(num_feats=dims // 2, row_num_embed=bev_h, col_num_embed=bev_w),
        transformer=dict(
            embed_dims=dims,
            rotate_center=(bev_w / 2, bev_h / 2),
            encoder=dict(
                num_layers=layers,
                layer=dict(
                    **sizes,
                    self_attn=attention,
                    cross_attn=dict(**attention, deformable_attention=dict(embed_dims=dims)),
                ),
            ),
            decoder=dict(num_layers=layers, layer=look_at_bev),
            map_decoder=dict(num_layers=layers, layer=look_at_bev),
        ),
        motion_decoder=sizes,
        motion_map_decoder=sizes,
        ego_agent_decoder=sizes,
        ego_map_decoder=sizes,
        bbox_coder=dict(max_num=60),
        map_bbox_coder=dict(max_num=30),
    ),
)
