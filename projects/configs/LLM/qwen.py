# Qwen3-0.6B, 596,049,920 parameters, from the hub or where LLM_PATH says.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/wikitext2.py',
    '../_base_/schedules/llm_adamw.py',
]
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'], allow_failed_imports=False)
path = '{{$LLM_PATH:Qwen/Qwen3-0.6B-Base}}'

model = dict(
    type='HFCausalLM',
    path=path,
    window=2048,
    architecture=dict(
        model_type='qwen3',
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32768,
        rms_norm_eps=1e-06,
        rope_parameters={'rope_type': 'default', 'rope_theta': 1000000.0},
        tie_word_embeddings=True,
        bos_token_id=151643,
        eos_token_id=151643,
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
