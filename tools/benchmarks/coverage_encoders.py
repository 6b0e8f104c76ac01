"""Tiny encoders, vision models and models of speech of transformers: their sizes, and an example each."""

from collections.abc import Iterator
from typing import Any

#: Sizes of models of text, by keys of their configs.
TEXT = dict(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=64, pad_token_id=0)  # fmt: skip
OLDER = dict(vocab_size=128, max_position_embeddings=64, n_layers=2, n_heads=4)
T5 = dict(vocab_size=128, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, num_decoder_layers=2,
          decoder_start_token_id=0)  # fmt: skip
SEQ2SEQ = dict(
    vocab_size=128, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
    decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=64,
    pad_token_id=1, decoder_start_token_id=2, forced_eos_token_id=2,
)  # fmt: skip
#: The same of images.
VIT = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64,
           patch_size=16)  # fmt: skip
SWIN = dict(
    image_size=64, patch_size=4, embed_dim=32, depths=[1, 1], num_heads=[2, 4], window_size=4
)
STAGES = dict(hidden_sizes=[32, 64], depths=[1, 1], patch_sizes=[7, 3], strides=[4, 2])
PYRAMID = dict(STAGES, num_encoder_blocks=2, num_attention_heads=[2, 4], mlp_ratios=[2, 2])
CONVS = dict(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1])
#: The same of sound.
SPEECH = dict(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, conv_dim=[16, 16],
    conv_stride=[5, 4], conv_kernel=[10, 4], num_feat_extract_layers=2, num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
)  # fmt: skip
#: ``{type: (sizes, kind of example)}``.
SIZES: dict[str, tuple[dict[str, Any], str]] = {
    **{
        name: (TEXT, 'text')
        for name in (
            'bert', 'roberta', 'electra', 'ernie', 'xlm-roberta', 'camembert', 'megatron-bert', 'rembert',
            'roformer', 'convbert', 'data2vec-text', 'mobilebert', 'nystromformer', 'layoutlm', 'mpnet',
            'deberta', 'deberta-v2', 'modernbert', 'yoso', 'mra', 'fnet', 'ibert', 'splinter', 'big_bird',
        )
    },
    'albert': (dict(TEXT, embedding_size=32), 'text'),
    'longformer': (dict(TEXT, attention_window=4), 'text'),
    'distilbert': (dict(OLDER, dim=64, hidden_dim=128), 'text'),
    'flaubert': (dict(OLDER, emb_dim=64), 'text'),
    'xlnet': (dict(vocab_size=128, d_model=64, n_layer=2, n_head=4, d_inner=128), 'text'),
    **{n: (T5, 'pair') for n in ('t5', 'mt5', 'umt5', 'longt5', 'switch_transformers')},
    **{
        name: (SEQ2SEQ, 'pair')
        for name in (
            'bart', 'mbart', 'pegasus', 'marian', 'blenderbot', 'blenderbot-small', 'm2m_100', 'plbart',
            'mvp', 'nllb-moe',
        )
    },
    **{
        name: (VIT, 'image')
        for name in (
            'vit', 'deit', 'vit_mae', 'vit_msn', 'dinov2', 'dinov2_with_registers', 'beit',
            'data2vec-vision', 'ijepa', 'pixio', 'dinov3_vit', 'vitdet',
        )
    },
    'vivit': (dict(VIT, num_frames=4, tubelet_size=[2, 16, 16]), 'video'),
    'videomae': (dict(VIT, num_frames=4), 'video'),
    'timesformer': (dict(VIT, num_frames=4), 'video'),
    **{name: (SWIN, 'image') for name in ('swin', 'swinv2', 'donut-swin')},
    'focalnet': (
        dict(SWIN, focal_levels=[2, 2], focal_windows=[3, 3], hidden_sizes=[32, 64]), 'image',
    ),
    'convnext': (dict(hidden_sizes=[32, 64], depths=[1, 1], num_stages=2), 'image'),
    'convnextv2': (dict(hidden_sizes=[32, 64], depths=[1, 1], num_stages=2), 'image'),
    'resnet': (dict(CONVS, layer_type='bottleneck'), 'image'),
    'regnet': (dict(CONVS, groups_width=8), 'image'),
    'bit': (dict(CONVS, num_groups=8), 'image'),
    'segformer': (dict(PYRAMID, sr_ratios=[4, 1]), 'image'),
    'pvt_v2': (dict(PYRAMID, image_size=64, sr_ratios=[4, 1]), 'image'),
    'pvt': (
        dict(PYRAMID, image_size=64, sequence_reduction_ratios=[4, 1], patch_sizes=[4, 2]), 'image',
    ),
    'poolformer': (dict(STAGES, num_encoder_blocks=2, padding=[2, 1]), 'image'),
    'mobilenet_v1': (dict(depth_multiplier=0.25), 'image'),
    'mobilenet_v2': (dict(depth_multiplier=0.35), 'image'),
    'mobilevit': (dict(image_size=64), 'image'),
    'mobilevitv2': (dict(image_size=64), 'image'),
    'levit': (
        dict(
            image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1],
            key_dim=[16, 16, 16],
        ),
        'image',
    ),
    'swiftformer': (dict(image_size=64, embed_dims=[16, 32, 48, 64], depths=[1, 1, 1, 1]), 'image'),
    'hiera': (
        dict(
            image_size=[64, 64], embed_dim=32, num_heads=[1, 2], depths=[1, 1], patch_stride=[4, 4],
            query_stride=[2, 2], num_query_pool=1, masked_unit_size=[4, 4],
            masked_unit_attention=[True, False],
        ),
        'image',
    ),
    'clip': (
        dict(
            text_config=dict(TEXT, projection_dim=32, eos_token_id=2), vision_config=VIT,
            projection_dim=32,
        ),
        'both',
    ),
    'siglip': (dict(text_config=dict(TEXT, projection_size=64), vision_config=VIT), 'both'),
    'whisper': (
        dict(SEQ2SEQ, num_mel_bins=16, max_source_positions=20, max_target_positions=20), 'spectrum',
    ),
    **{
        n: (SPEECH, 'sound')
        for n in ('wav2vec2', 'hubert', 'wavlm', 'unispeech', 'sew', 'data2vec-audio')
    },
    'audio-spectrogram-transformer': (dict(VIT, max_length=64, num_mel_bins=32), 'spectrogram'),
    'patchtst': (
        dict(
            num_input_channels=2, context_length=32, d_model=32, num_attention_heads=4, ffn_dim=64,
            num_hidden_layers=2, patch_length=8, patch_stride=8,
        ),
        'series',
    ),
}  # fmt: skip


def encoder_names() -> Iterator[str]:
    """The types of models."""
    yield from SIZES


def example_of(kind: str) -> dict[str, Any]:
    """An example of a kind of input."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Any:
        return torch.randn(shape, generator=generator)

    def tokens(length: int) -> Any:
        return torch.randint(3, 100, (1, length), generator=generator)

    examples = {
        'text': dict(input_ids=tokens(12)),
        'pair': dict(input_ids=tokens(12), decoder_input_ids=tokens(7)),
        'image': dict(pixel_values=noise(1, 3, 64, 64)),
        'video': dict(pixel_values=noise(1, 4, 3, 64, 64)),
        'both': dict(input_ids=tokens(12), pixel_values=noise(1, 3, 64, 64)),
        'spectrum': dict(input_features=noise(1, 16, 40), decoder_input_ids=tokens(7)),
        'sound': dict(input_values=noise(1, 1500)),
        'spectrogram': dict(input_values=noise(1, 64, 32)),
        'series': dict(past_values=noise(1, 32, 2)),
    }
    return examples[kind]


def encoder_model(name: str) -> tuple[Any, Any]:
    """A tiny model and its example input."""
    from transformers import AutoConfig, AutoModel

    sizes, kind = SIZES[name]
    return AutoModel.from_config(AutoConfig.for_model(name, **sizes)).float(), example_of(kind)
