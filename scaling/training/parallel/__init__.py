"""One strategy a file: how a model and its batch are cut among a trial's workers."""
