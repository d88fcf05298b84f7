"""Tables, progress and videos."""
