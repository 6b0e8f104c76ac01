_base_ = ['./qwen.py', '../_base_/prune/llm_global.py']
