_base_ = ['./opt_125m.py', '../_base_/prune/llm_alps.py']
