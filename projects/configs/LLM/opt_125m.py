# OPT-125M, 125,239,296 parameters, from the hub or where LLM_PATH says.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/wikitext2.py',
    '../_base_/schedules/llm_adamw.py',
]
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'], allow_failed_imports=False)
path = '{{$LLM_PATH:facebook/opt-125m}}'

model = dict(
    type='HFCausalLM',
    path=path,
    window=2048,
    architecture=dict(
        model_type='opt',
        vocab_size=50272,
        max_position_embeddings=2048,
        hidden_size=768,
        ffn_dim=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        word_embed_proj_dim=768,
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
