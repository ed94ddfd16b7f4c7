"""What several DataModules share."""
