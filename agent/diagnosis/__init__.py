"""From an error to its cause and what to do: rules as data, and one pure function. Standard library only."""
