"""GenICam backends: GigE Vision, USB3 Vision, GenTL producers."""
