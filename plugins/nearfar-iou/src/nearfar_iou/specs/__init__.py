"""What the plugin says of its parts, by kind; nothing heavy is imported."""
