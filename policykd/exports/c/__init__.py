"""A student as C99: what the source says (`header`, `source`, `arithmetic`), its self-test, and how it is run here."""
