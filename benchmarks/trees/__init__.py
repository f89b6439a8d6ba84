"""The workflows that are sent while workers are killed, and their tasks."""
