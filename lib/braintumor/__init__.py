"""What the notebooks of the brain tumor study share. Import the modules, there is nothing here."""
