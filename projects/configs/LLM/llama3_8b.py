# Llama-3-8B, 8,030,261,248 parameters, from the hub (ask for access there) or where LLM_PATH says.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/wikitext2.py',
    '../_base_/schedules/llm_adamw.py',
]
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'], allow_failed_imports=False)
path = '{{$LLM_PATH:meta-llama/Meta-Llama-3-8B}}'

model = dict(
    type='HFCausalLM',
    path=path,
    dtype='bfloat16',
    gradient_checkpointing=True,
    window=2048,
    architecture=dict(
        model_type='llama',
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rms_norm_eps=1e-05,
        rope_parameters={'rope_type': 'default', 'rope_theta': 500000.0},
        tie_word_embeddings=False,
        bos_token_id=128000,
        eos_token_id=128001,
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
