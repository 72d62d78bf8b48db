"""Update of the bundle while the line runs."""
