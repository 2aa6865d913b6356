"""What we are measured against, each in a module of its own."""
