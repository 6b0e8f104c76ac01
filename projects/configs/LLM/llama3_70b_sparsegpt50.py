_base_ = ['./llama3_70b.py', '../_base_/prune/llm_weights.py']
