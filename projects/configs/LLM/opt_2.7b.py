# OPT-2.7B, 2,651,596,800 parameters, from the hub or where LLM_PATH says.
_base_ = './opt_125m.py'
path = '{{$LLM_PATH:facebook/opt-2.7b}}'

model = dict(
    path=path,
    architecture=dict(
        hidden_size=2560,
        ffn_dim=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        word_embed_proj_dim=2560,
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
