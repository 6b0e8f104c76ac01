_base_ = ['./llama3_8b.py', '../_base_/prune/llm_global.py']
