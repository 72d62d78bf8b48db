"""The messages on the wire: types, JSON Schemas, AsyncAPI document."""
