"""Settings: what they are (`schema`), reading and writing (`load`), completing from data (`resolve`)."""
