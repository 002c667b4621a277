"""What we ask of the operating system: folders by descriptor, rights, privileges, signals."""
