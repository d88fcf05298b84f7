"""How good a student or a teacher is: on selection seeds, on report seeds, under disturbances."""
