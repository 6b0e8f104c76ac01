# VAD (https://arxiv.org/abs/2303.12077) with ResNet-50. The sizes are the tiny model's.
#
# Images are normalised in the data preprocessor. mean, std and bgr_to_rgb belong to the weights:
# these are torchvision's, for training from its ResNet. VAD's released files want
# mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0] and bgr_to_rgb=False. Checkpoints written
# here say which were used, and loading one under other values is refused.
custom_imports = dict(imports=['projects.prune_plugin', 'projects.vad'], allow_failed_imports=False)

point_cloud_range = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]  # x, y, z in metres, LiDAR frame
num_classes = 10  # of nuScenes' detection
map_num_classes = 3  # divider, ped_crossing, boundary
dims = 256
neurons = 512
bev = 100
layers = 3
levels = 1
# What the two-stage training changes: first perception and motion alone (planning losses count
# nothing), then planning in full and perception at 0.4 of its weights.
stage_1_loss = dict(
    planning=dict(
        loss_plan_reg=dict(loss_weight=0.0),
        loss_plan_bound=dict(loss_weight=0.0),
        loss_plan_col=dict(loss_weight=0.0),
        loss_plan_dir=dict(loss_weight=0.0),
    )
)
stage_2_loss = dict(
    detection=dict(loss_cls=dict(loss_weight=0.8), loss_bbox=dict(loss_weight=0.1)),
    map=dict(loss_map_cls=dict(loss_weight=0.8), loss_map_pts=dict(loss_weight=0.4)),
)
focal = dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
queries = dict(type='CustomTransformerDecoder', embed_dims=dims, feedforward_channels=neurons)
look_at_bev = dict(
    type='VADDecoderLayer',
    embed_dims=dims,
    feedforward_channels=neurons,
    cross_attn=dict(type='CustomMSDeformableAttention', embed_dims=dims, num_levels=1),
)

model = dict(
    type='VAD',
    use_grid_mask=True,
    video_test_mode=True,
    input_shape=(6, 384, 640),
    data_preprocessor=dict(
        type='VADDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    img_neck=dict(
        type='mmdet.FPN',
        in_channels=[2048],
        out_channels=dims,
        add_extra_convs='on_output',
        num_outs=levels,
        relu_before_extra_convs=True,
    ),
    pts_bbox_head=dict(
        type='VADHead',
        bev_h=bev,
        bev_w=bev,
        embed_dims=dims,
        num_query=300,
        num_classes=num_classes,
        map_num_vec=100,
        map_num_pts_per_vec=20,
        map_num_classes=map_num_classes,
        positional_encoding=dict(
            type='mmdet.LearnedPositionalEncoding',
            num_feats=dims // 2,
            row_num_embed=bev,
            col_num_embed=bev,
        ),
        transformer=dict(
            type='VADPerceptionTransformer',
            embed_dims=dims,
            encoder=dict(
                type='BEVFormerEncoder',
                num_layers=layers,
                pc_range=point_cloud_range,
                num_points_in_pillar=4,
                layer=dict(
                    type='BEVFormerLayer',
                    embed_dims=dims,
                    feedforward_channels=neurons,
                    self_attn=dict(type='TemporalSelfAttention', embed_dims=dims),
                    cross_attn=dict(
                        type='SpatialCrossAttention',
                        embed_dims=dims,
                        deformable_attention=dict(
                            type='MSDeformableAttention3D',
                            embed_dims=dims,
                            num_points=8,
                            num_levels=levels,
                        ),
                    ),
                ),
            ),
            decoder=dict(type='DetectionTransformerDecoder', num_layers=layers, layer=look_at_bev),
            map_decoder=dict(
                type='MapDetectionTransformerDecoder', num_layers=layers, layer=look_at_bev
            ),
        ),
        motion_decoder=queries,
        motion_map_decoder=queries,
        ego_agent_decoder=queries,
        ego_map_decoder=queries,
        bbox_coder=dict(
            type='CustomNMSFreeCoder',
            post_center_range=[-20, -35, -10.0, 20, 35, 10.0],
            pc_range=point_cloud_range,
            max_num=100,
            num_classes=num_classes,
        ),
        map_bbox_coder=dict(
            type='MapNMSFreeCoder',
            post_center_range=[-20, -35, -20, -35, 20, 35, 20, 35],
            pc_range=point_cloud_range,
            max_num=50,
            num_classes=map_num_classes,
        ),
        loss=dict(
            type='VADLoss',
            pc_range=point_cloud_range,
            detection=dict(
                assigner=dict(
                    type='HungarianAssigner3D',
                    cls_cost=dict(type='mmdet.FocalLossCost'),  # costs weigh as much as losses
                    reg_cost=dict(type='BBox3DL1Cost'),
                ),
                loss_cls=dict(**focal, loss_weight=2.0),
                loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
                loss_traj=dict(type='mmdet.L1Loss', loss_weight=0.2),
                loss_traj_cls=dict(**focal, loss_weight=0.2),
            ),
            map=dict(
                assigner=dict(
                    type='MapHungarianAssigner3D',
                    cls_cost=dict(type='mmdet.FocalLossCost'),
                    pts_cost=dict(type='OrderedPtsL1Cost'),
                ),
                loss_map_cls=dict(**focal, loss_weight=2.0),
                loss_map_pts=dict(type='PtsL1Loss', loss_weight=1.0),
                loss_map_dir=dict(type='PtsDirCosLoss', loss_weight=0.005),
            ),
            planning=dict(
                loss_plan_reg=dict(type='mmdet.L1Loss', loss_weight=1.0),
                loss_plan_bound=dict(type='PlanMapBoundLoss', loss_weight=1.0, dis_thresh=1.0),
                loss_plan_col=dict(type='PlanCollisionLoss', loss_weight=1.0),
                loss_plan_dir=dict(type='PlanMapDirectionLoss', loss_weight=0.5),
            ),
        ),
    ),
)
