"""What the host needs: errors, files, signals, several processes as one run, compiler flags. Imports nothing heavy."""
