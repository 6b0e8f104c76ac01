_base_ = ['./vit_small_cifar10.py', '../_base_/prune/heads_neurons.py']
