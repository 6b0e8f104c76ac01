"""What every room uses: errors, checks, files, ranks, registries. Knows no other room."""
