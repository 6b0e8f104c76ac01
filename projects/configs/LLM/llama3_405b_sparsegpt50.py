_base_ = ['./llama3_405b.py', '../_base_/prune/llm_weights.py']
