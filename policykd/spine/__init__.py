"""What every part may use: contracts, errors, files, seeds, configuration."""
