_base_ = ['./smollm2_135m.py', '../_base_/prune/llm_alps.py']
