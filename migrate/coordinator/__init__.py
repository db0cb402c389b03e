"""The coordinator of a fleet: owners, epochs, the journal, the steps of a move."""
