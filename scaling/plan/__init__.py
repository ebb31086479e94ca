"""What a study would do, and what must hold before it starts; nothing here starts anything."""
