"""Finding units by what a model computes, for modules of unknown classes, and proving that they can go."""
