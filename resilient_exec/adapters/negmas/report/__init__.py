"""What a tournament tells at its end, and what its ranking is worth."""
