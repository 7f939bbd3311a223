"""What bytes mean: pure functions over what others wrote."""
