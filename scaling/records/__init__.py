"""What is known of a study and its trials: the one thing that both sides share."""
