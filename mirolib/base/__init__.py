"""What every part needs: errors, files, plain state, and how facts are shown."""
