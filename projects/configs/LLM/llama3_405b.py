# Llama-3.1-405B, 405,853,388,800 parameters, from the hub (ask for access there) or where LLM_PATH says.
_base_ = './llama3_8b.py'
path = '{{$LLM_PATH:meta-llama/Llama-3.1-405B}}'

model = dict(
    path=path,
    architecture=dict(
        hidden_size=16384,
        intermediate_size=53248,
        num_hidden_layers=126,
        num_attention_heads=128,
        max_position_embeddings=131072,
        rope_parameters=dict(
            _delete_=True,
            rope_type='llama3',
            rope_theta=500000.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
