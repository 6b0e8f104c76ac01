_base_ = ['./vit_tiny_digits.py', '../_base_/prune/heads_neurons.py']
