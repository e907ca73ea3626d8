"""What passes between parent and worker: frames, payloads, the register.  Touches sockets and files."""
