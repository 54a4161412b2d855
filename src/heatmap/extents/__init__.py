"""What is known of extents: their items in ranges of addresses, and facts about each as columns."""
