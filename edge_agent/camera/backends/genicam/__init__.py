"""GenICam cameras: GigE Vision, USB3 Vision, GenTL producers."""
