# OPT-1.3B, 1,315,758,080 parameters, from the hub or where LLM_PATH says.
_base_ = './opt_125m.py'
path = '{{$LLM_PATH:facebook/opt-1.3b}}'

model = dict(
    path=path,
    architecture=dict(
        hidden_size=2048,
        ffn_dim=8192,
        num_hidden_layers=24,
        num_attention_heads=32,
        word_embed_proj_dim=2048,
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
