"""What the plugin says of its losses, by kind of margin; nothing heavy is imported."""
