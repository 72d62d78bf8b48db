"""The contract between the workshop and the line: manifest, golden outputs, signature."""
