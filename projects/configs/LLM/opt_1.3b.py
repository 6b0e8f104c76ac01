# OPT-1.3B, 1,315,758,080 parameters, from the hub or where LLM_PATH says.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/wikitext2.py',
    '../_base_/schedules/llm_adamw.py',
]
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'], allow_failed_imports=False)
path = '{{$LLM_PATH:facebook/opt-1.3b}}'

model = dict(
    type='HFCausalLM',
    path=path,
    window=2048,
    architecture=dict(
        model_type='opt',
        vocab_size=50272,
        max_position_embeddings=2048,
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
