"""What an optimizer step costs, side by side with what people use today."""
