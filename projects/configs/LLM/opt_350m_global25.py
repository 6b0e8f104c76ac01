_base_ = ['./opt_350m.py', '../_base_/prune/llm_global.py']
