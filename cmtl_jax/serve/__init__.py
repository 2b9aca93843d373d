"""A local page that counts people in pictures, and the same over HTTP."""
