"""What all steps share."""
