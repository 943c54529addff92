"""What the plugin adds to the command line; each module is imported when its command is called."""
