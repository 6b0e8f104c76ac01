# OPT-350M, 331,196,416 parameters: norms behind the blocks, embeddings narrower than the model.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/wikitext2.py',
    '../_base_/schedules/llm_adamw.py',
]
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'], allow_failed_imports=False)
path = '{{$LLM_PATH:facebook/opt-350m}}'

model = dict(
    type='HFCausalLM',
    path=path,
    window=2048,
    architecture=dict(
        model_type='opt',
        vocab_size=50272,
        max_position_embeddings=2048,
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
