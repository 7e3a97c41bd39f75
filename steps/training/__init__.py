"""What the flow of a pass is trained for, and the methods of training."""
