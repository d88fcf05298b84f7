"""The configuration: schema, loading, messages."""
