# Llama-3-70B, 70,553,706,496 parameters, from the hub (ask for access there) or where LLM_PATH says.
_base_ = './llama3_8b.py'
path = '{{$LLM_PATH:meta-llama/Meta-Llama-3-70B}}'

model = dict(
    path=path,
    architecture=dict(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
