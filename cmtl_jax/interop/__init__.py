"""Exchange with other code bases."""
