"""Pictures in, faces and crops out."""
