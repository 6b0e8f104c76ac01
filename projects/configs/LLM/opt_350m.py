# OPT-350M, 331,196,416 parameters: norms behind the blocks, embeddings narrower than the model.
_base_ = './opt_125m.py'
path = '{{$LLM_PATH:facebook/opt-350m}}'

model = dict(
    path=path,
    architecture=dict(
        hidden_size=1024,
        ffn_dim=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        word_embed_proj_dim=512,
        do_layer_norm_before=False,
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
