"""Accept or refuse an exported artifact by what it decides on labelled frames."""
